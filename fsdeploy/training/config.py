"""What one training run feeds the model: folders, batch size, and which variations are on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run that belong to the run, not to the model."""

    folders: tuple[Path, ...]
    """Folders of extracted faces in side order (A, B)."""
    batch_size: int = 16
    """Faces per side and batch."""
    augment_color: bool = True
    """Vary colour and contrast."""
    flip: bool = True
    """Mirror faces by chance."""
    warp: bool = True
    """Distort the feed, so that the model learns to undo it."""
    cache_landmarks: bool = False
    """Keep all landmarks in memory and warp towards similar landmarks of the other side."""
    lr_finder: bool = False
    """Find the learning rate before training."""
    snapshot_interval: int = -1
    """Total iterations between full copies of the model folder; 0 or less is off."""
