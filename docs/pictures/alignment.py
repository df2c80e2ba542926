"""Draws alignment.png for docs/embedding.md: python docs/pictures/alignment.py"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from fsdeploy.demo.identities import IDENTITY_A
from fsdeploy.demo.render import draw
from fsdeploy.demo.scene import random_scene
from fsdeploy.faces.aligned import AlignedFace
from fsdeploy.faces.landmarks import MEAN_FACE
from fsdeploy.images import write_image

EDGE = 300
PANEL, GAP, HEAD = EDGE, 24, 30
SIZE, COVERAGE = 64, 0.8
INK, BOX, POINT, CROP = (40, 40, 40), (200, 120, 30), (40, 160, 40), (40, 40, 210)


def text(image: np.ndarray, words: str, x: int, y: int, scale: float = 0.5) -> None:
    cv2.putText(image, words, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, INK, 1, cv2.LINE_AA)


def dots(image: np.ndarray, points: np.ndarray, color: tuple[int, int, int] = POINT, radius: int = 2) -> None:
    for x, y in np.round(points * 16).astype(int):
        cv2.circle(image, (int(x), int(y)), radius * 16, color, -1, cv2.LINE_AA, 4)


def outline(image: np.ndarray, corners: np.ndarray, color: tuple[int, int, int]) -> None:
    cv2.polylines(image, [np.round(corners * 16).astype(np.int32)], True, color, 2, cv2.LINE_AA, 4)


def mapped(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def inverse(matrix: np.ndarray) -> np.ndarray:
    return np.linalg.inv(np.vstack([matrix, (0.0, 0.0, 1.0)]))[:2]


def main() -> None:
    scene = dataclasses.replace(
        random_scene(np.random.default_rng(4)), yaw=0.18, roll=0.2, blink=0.0, scale=0.2, shift=(0.02, 0.0), noise=0.0
    )
    drawing = draw(IDENTITY_A, scene, EDGE, EDGE)
    face = AlignedFace.from_landmarks(drawing.landmarks)
    unit_box = np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
    crop_box = np.array([(-0.5, -0.5), (SIZE - 0.5, -0.5), (SIZE - 0.5, SIZE - 0.5), (-0.5, SIZE - 0.5)])
    crop = face.crop_matrix(SIZE, "face", COVERAGE)
    in_frame = mapped(crop_box, inverse(crop))

    first = drawing.frame.copy()
    dots(first, drawing.landmarks)
    outline(first, mapped(unit_box, inverse(face.matrix)), BOX)
    outline(first, in_frame, CROP)

    second = np.full((PANEL, PANEL, 3), 255, np.uint8)
    zoom = np.array([[150.0, 0.0, 75.0], [0.0, 150.0, 90.0]])
    dots(second, mapped(face.normalised, zoom))
    dots(second, mapped(MEAN_FACE, zoom), INK, 1)
    outline(second, mapped(unit_box, zoom), BOX)
    outline(second, mapped(mapped(in_frame, face.matrix), zoom), CROP)

    third = cv2.resize(
        face.crop(drawing.frame, SIZE, "face", COVERAGE), (PANEL, PANEL), interpolation=cv2.INTER_NEAREST
    )
    cv2.rectangle(third, (0, 0), (PANEL - 1, PANEL - 1), CROP, 3)

    panels = [("1  frame, pixels", first), ("2  mean-face box, 0..1", second), ("3  crop that the model sees", third)]
    sheet = np.full((HEAD + PANEL + 8, len(panels) * (PANEL + GAP) - GAP, 3), 255, np.uint8)
    for i, (title, panel) in enumerate(panels):
        left = i * (PANEL + GAP)
        sheet[HEAD : HEAD + PANEL, left : left + PANEL] = panel
        text(sheet, title, left, 20)
    write_image(Path(__file__).with_name("alignment.png"), sheet, [cv2.IMWRITE_PNG_COMPRESSION, 9])


main()
