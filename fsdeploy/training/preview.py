"""Preview sheets: every face beside its reconstruction and its swaps, with labels, crop frames and mask overlay."""

from __future__ import annotations

import re
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import ConfigError
from fsdeploy.training.data.files import get_label

Images = NDArray[np.float32]

_HEADER_SHARE: Final = 4.5
"""Height of the header strip: a face's edge divided by this."""
_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX


class Samples:
    """Compiles preview sheets for the preview window and the time-lapse.

    Args:
        coverage_ratio: Share of the face that the model is trained on, 0.625..1.
        has_mask: The run uses a mask: a learned one or a penalised loss.
        mask_opacity: Of the mask overlay, in percent.
        mask_color: Of the overlay and of the frames around the trained area, #rrggbb.

    Raises:
        ConfigError: `mask_color` is no such colour.
    """

    def __init__(self, coverage_ratio: float, has_mask: bool, mask_opacity: int, mask_color: str) -> None:
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", mask_color):
            raise ConfigError(f"mask_color is '{mask_color}': give a colour as #rrggbb")
        self._has_frame = coverage_ratio < 1.0
        self._has_mask = has_mask
        self._opacity = mask_opacity / 100.0
        rgb = [int(mask_color[at : at + 2], 16) / 255.0 for at in (1, 3, 5)]
        self._color = np.array(rgb[::-1], np.float32)  # BGR
        self._shows_mask = has_mask

    @property
    def shows_mask(self) -> bool:
        """Whether sheets carry the mask overlay."""
        return self._shows_mask

    def toggle_mask_display(self) -> None:
        """Switch the mask overlay on or off; nothing happens in a run without a mask."""
        self._shows_mask = self._has_mask and not self._shows_mask

    def get_preview(self, predictions: Images, targets: Images) -> NDArray[np.uint8]:
        """Compile a sheet: a row per sample, and per identity its face, its reconstruction, its swaps.

        Args:
            predictions: (N, N, B, O, O, 3 or 4) BGR 0..1: [source, j] is the face of identity `source` through the
                decoder of identity (source + j) mod N. Channel 4, if there is one, is the learned mask.
            targets: (N, B, F, F, 4): the BGR faces at full coverage, F = 2 rint(O / coverage / 2), and their mask.

        Returns:
            (H, W, 3) uint8 BGR. A sheet that would be taller than wide goes on in a second set of columns.
        """
        faces = targets.shape[2]
        patches = self._patches(predictions[..., :3], targets[..., :3])  # (N, N + 1, B, F, F, 3)
        if self._shows_mask:
            outside = (1.0 - self._masks(predictions, targets)) * np.float32(self._opacity)
            patches += (self._color - patches) * outside
        pixels = np.rint(np.clip(np.nan_to_num(patches), 0.0, 1.0) * 255.0).astype(np.uint8)
        sources, columns, samples = pixels.shape[:3]
        # (N, N + 1, B, F, F, 3) -> B rows of N * (N + 1) faces
        grid = pixels.transpose(2, 3, 0, 1, 4, 5).reshape(samples * faces, sources * columns * faces, 3)
        header = self._header(sources, faces)
        if grid.shape[0] > grid.shape[1]:
            cut = -(-samples // 2) * faces
            lower = np.zeros((cut, grid.shape[1], 3), np.uint8)
            lower[: grid.shape[0] - cut] = grid[cut:]
            grid = np.concatenate([grid[:cut], lower], axis=1)
            header = np.concatenate([header, header], axis=1)
        return np.concatenate([header, grid], axis=0)

    def _patches(self, predictions: Images, targets: Images) -> Images:
        """(N, N + 1, B, F, F, 3): column 0 the targets, the others the predictions; cropped ones inside a frame."""
        sources, _, faces = targets.shape[:3]
        size = predictions.shape[-2]
        patches = np.repeat(targets[:, None], sources + 1, axis=1)
        if not self._has_frame:
            patches[:, 1:] = predictions
            return patches
        pad = (faces - size) // 2
        inside = slice(pad, pad + size)
        corner = faces // 4
        near = slice(max(0, pad - 1), max(0, pad - 1 + corner))
        far = slice(faces - pad + 1 - corner, faces - pad + 1)
        for rows in (near, far):
            for columns in (near, far):
                patches[:, :, :, rows, columns] = self._color
        patches[:, 0, :, inside, inside] = targets[:, :, inside, inside]
        patches[:, 1:, :, inside, inside] = predictions
        return patches

    def _masks(self, predictions: Images, targets: Images) -> Images:
        """(N, N + 1, B, F, F, 1): the mask of every patch; a learned one counts for the predictions."""
        sources, _, faces = targets.shape[:3]
        masks = np.repeat(targets[:, None, ..., 3:4], sources + 1, axis=1)
        if predictions.shape[-1] == 4:
            size = predictions.shape[-2]
            inside = slice((faces - size) // 2, (faces - size) // 2 + size)
            masks[:, 1:] = 0.0
            masks[:, 1:, :, inside, inside] = predictions[..., 3:4]
        return np.clip(masks, 0.0, 1.0)

    @staticmethod
    def labels(sources: int) -> list[str]:
        """Column labels: for two identities A, A > A, A > B, B, B > B, B > A."""
        names = []
        for source in range(sources):
            own = get_label(source, sources)
            names.append(own)
            names.extend(f"{own} > {get_label((source + step) % sources, sources)}" for step in range(sources))
        return names

    def _header(self, sources: int, faces: int) -> NDArray[np.uint8]:
        """(int(F / 4.5), N (N + 1) F, 3) uint8: black labels, centred over their columns, on white."""
        height = int(faces / _HEADER_SHARE)
        names = self.labels(sources)
        strip = np.full((height, len(names) * faces, 3), 255, np.uint8)
        scale, thickness = faces / 140.0, max(1, faces // 64)
        sizes = [cv2.getTextSize(name, _FONT, scale, 1)[0] for name in names]
        baseline = int((height + sizes[0][1]) / 2)
        for column, (name, (width, _)) in enumerate(zip(names, sizes, strict=True)):
            left = column * faces + (faces - width) // 2
            cv2.putText(strip, name, (left, baseline), _FONT, scale, (0, 0, 0), thickness, lineType=cv2.LINE_AA)
        return strip
