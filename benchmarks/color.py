"""Which colour method puts a face into its frame best? Measured on two real clips with their alignments.

    python benchmarks/color.py CLIP_A CLIP_B [--frames 60] [--size 128]

Two experiments, figures in CIE Lab (Delta E 1976), lower is better but for `detail`:

known    The face of A itself with a known colour error (gain, gamma and cast as trained models show them) is
         corrected against its own frame: the distance to the true face is the error that is left.
other    The face of B, cut from its own clip, stands in for the model's output on A's frame. `seam` is the difference
         to the frame in the soft edge of the mask, where the eye finds it; `flicker` is how much the face's mean
         colour moves against its frame from one frame to the next; `detail` is the fine contrast of the result
         relative to the swapped face (1 = unchanged).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from fsdeploy.convert import plugin
from fsdeploy.convert.landmarks import load_faces
from fsdeploy.convert.plugin import ColorPlugin, MaskEdge
from fsdeploy.convert.sources import VideoFile
from fsdeploy.faces.aligned import AlignedFace
from fsdeploy.faces.masks import landmark_mask
from fsdeploy.runtime.paste import crop_patch

METHODS = ("none", "avg-color", "color-transfer", "match-hist", "reinhard", "mkl", "seamless-clone")
Picture = np.ndarray


def crops(clip: Path, count: int, size: int) -> Iterator[tuple[Picture, Picture]]:
    """(face (S, S, 3) float32 0..1, extended mask (S, S) float32) of the first face of consecutive frames."""
    faces = load_faces(clip)
    for frame in VideoFile(clip).frames(0, count):
        records = faces.faces(frame)
        if not records or frame.image is None:
            continue
        matrix = AlignedFace.from_landmarks(records[0].landmarks).crop_matrix(size, "face", 0.875)
        points = records[0].landmarks @ matrix[:, :2].T + matrix[:, 2]
        mask = landmark_mask("extended", points, size).astype(np.float32) / 255
        yield crop_patch(frame.image, matrix, size).astype(np.float32) / 255, mask


def lab(picture: Picture) -> Picture:
    return cv2.cvtColor(np.clip(picture, 0, 1).astype(np.float32), cv2.COLOR_BGR2LAB)


def distance(one: Picture, other: Picture, weight: Picture) -> float:
    """Mean Delta E under a weight."""
    return float((np.linalg.norm(lab(one) - lab(other), axis=2) * weight).sum() / weight.sum())


def spoilt(picture: Picture, seed: int) -> Picture:
    """A known colour error: channel gains, a gamma and a cast, as trained models show them, and their softness."""
    rng = np.random.default_rng(seed)
    out = np.clip(picture, 1e-4, 1) ** rng.uniform(0.8, 1.25)
    out = out * rng.uniform(0.8, 1.2, 3) + rng.uniform(-0.06, 0.06, 3)
    return cv2.GaussianBlur(np.clip(out, 0, 1).astype(np.float32), (3, 3), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip_a", type=Path)
    parser.add_argument("clip_b", type=Path)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--size", type=int, default=128)
    chosen = parser.parse_args()
    a = list(crops(chosen.clip_a, chosen.frames, chosen.size))
    b = list(crops(chosen.clip_b, chosen.frames, chosen.size))
    edge = plugin.build("mask", "feather", MaskEdge)
    print(f"{'method':15s} {'known':>7s} {'seam':>7s} {'flicker':>8s} {'detail':>7s}")
    for name in METHODS:
        method = None if name == "none" else plugin.build("color", name, ColorPlugin)

        def corrected(target: Picture, swapped: Picture, mask: Picture) -> Picture:
            return swapped if method is None else np.clip(method(target, swapped, mask), 0, 1)  # noqa: B023

        known, seam, detail, means = [], [], [], []
        for number, ((target, mask), (other, _)) in enumerate(zip(a, b, strict=False)):
            raw, final = edge(mask, True)
            known.append(distance(corrected(target, spoilt(target, number), raw), target, raw))
            out = corrected(target, other, raw)
            ring = final * (1 - final) * 4
            seam.append(distance(out, target, ring))
            grey = [cv2.Laplacian(lab(picture)[..., 0], cv2.CV_32F)[raw > 0.5].std() for picture in (out, other)]
            detail.append(grey[0] / grey[1])
            means.append(((lab(out) - lab(target)) * raw[..., None]).sum((0, 1)) / raw.sum())
        flicker = np.linalg.norm(np.diff(means, axis=0), axis=1).mean()
        print(f"{name:15s} {np.mean(known):7.2f} {np.mean(seam):7.2f} {flicker:8.3f} {np.mean(detail):7.2f}")


if __name__ == "__main__":
    main()
