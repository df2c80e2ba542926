"""What reading and aligning a face costs: CPU milliseconds per face, once per file.

    python benchmarks/faces.py FOLDER [--alignments FILE.fsa] [--json OUT.json]

Beside each step stands what the original system needs for it, in every epoch, on a 512 px face on one x86 server core;
the faces of FOLDER may have another size.
"""

from __future__ import annotations

import argparse
import ast
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2

from fsdeploy.faces import masks, png
from fsdeploy.faces.aligned import AlignedFace, align_many
from fsdeploy.faces.alignments import read_alignments
from fsdeploy.faces.geometry import sub_crop

ORIGINAL_MS = {"PNG decode": 5.5, "header": 4.5, "matrix and pose": 4.2, "crop": 0.5, "eye mask": 0.4}


def cpu_ms(action: Callable[[], object], count: int) -> float:
    """Best of three runs, per item."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        action()
        best = min(best, time.process_time() - start)
    return best / count * 1e3


def measure(files: Sequence[Path], alignments: Path | None) -> dict[str, float]:
    cv2.setNumThreads(1)
    headers = [png.read_header(path) for path in files]
    texts = [str(png.header_to_dict(header)) for header in headers]
    landmarks = [header.face.landmarks for header in headers]
    aligned = align_many(landmarks)
    images = [png.read_face(path)[0] for path in files]
    pairs = list(zip(images, aligned, headers, strict=True))
    n = len(files)
    result = {
        "header": cpu_ms(lambda: [png.read_header(path) for path in files], n),
        "header, text alone": cpu_ms(lambda: [png.parse_literal(text) for text in texts], n),
        "header, text by Python's parser": cpu_ms(lambda: [ast.literal_eval(text) for text in texts], n),
        "PNG decode": cpu_ms(lambda: [cv2.imread(str(path)) for path in files], n),
        "matrix and pose": cpu_ms(lambda: align_many(landmarks), n),
        "matrix and pose, one by one": cpu_ms(lambda: [AlignedFace.from_landmarks(points) for points in landmarks], n),
        "crop": cpu_ms(
            lambda: [sub_crop(i, f.offsets, h.source.stored_centering, "face", 0.875, 0.0, 128) for i, f, h in pairs], n
        ),
        "eye mask": cpu_ms(lambda: [drawn("eye", face) for face in aligned], n),
        "extended mask": cpu_ms(lambda: [drawn("extended", face) for face in aligned], n),
    }
    if alignments is not None:
        count = sum(len(faces) for faces in read_alignments(alignments).frames.values())
        result["alignments file"] = cpu_ms(lambda: read_alignments(alignments), count)
    return result


def drawn(kind: masks.MaskKind, face: AlignedFace) -> object:
    return masks.landmark_mask(kind, face.aligned_landmarks(256, "face", 0.875), 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--alignments", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = measure(sorted(options.folder.rglob("*.png")), options.alignments)
    print(f"{'step':34} {'ms a face':>10} {'original':>10}")
    for step, value in figures.items():
        original = f"{ORIGINAL_MS[step]:10.1f}" if step in ORIGINAL_MS else ""
        print(f"{step:34} {value:10.3f} {original}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
