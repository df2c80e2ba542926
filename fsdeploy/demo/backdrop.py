"""What stands behind the face: a room, clothes, neck, ears, and hair that falls behind the head."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.demo.identities import Identity
from fsdeploy.demo.scene import Scene
from fsdeploy.demo.shape import project

Float = NDArray[np.float32]


def draw_backdrop(identity: Identity, scene: Scene, height: int, width: int) -> Float:
    """(H, W, 3) BGR, 0..255. Room and clothes follow from the scene's seed alone, so identities share them."""
    rng = np.random.default_rng(scene.background)
    image = _room(rng, height, width)
    light = np.array(scene.tint) * (scene.ambient + 0.6 * (1.0 - scene.ambient))
    hair = (np.array(identity.hair) * light).astype(np.float32)
    if identity.long_hair:
        _ellipse(image, identity, scene, (0.0, -0.15, -0.9), (1.16, 1.32), hair * np.float32(0.8))
        _ellipse(image, identity, scene, (0.0, 0.55, -1.0), (1.02, 1.0), hair * np.float32(0.7))
    skin = (np.array(identity.skin) * light).astype(np.float32)
    _neck(image, identity, scene, skin * np.float32(0.72))
    _clothes(image, identity, scene, rng.uniform(25, 150, 3).astype(np.float32))
    for side in (-1.0, 1.0):
        _ellipse(image, identity, scene, (1.03 * side, -0.02, -0.62), (0.13, 0.27), skin * np.float32(0.85))
        _ellipse(image, identity, scene, (1.05 * side, 0.0, -0.60), (0.06, 0.16), skin * np.float32(0.62))
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 0.006 * height), dtype=np.float32)


def _room(rng: np.random.Generator, height: int, width: int) -> Float:
    """A wall with a soft gradient and two blurred patches."""
    one, other = rng.uniform(50, 200, 3), rng.uniform(50, 200, 3)
    grey = rng.uniform(0.3, 0.7)
    one, other = (c * (1.0 - grey) + c.mean() * grey for c in (one, other))
    across = rng.random() < 0.5
    ramp = np.linspace(0.0, 1.0, width)[None, :, None] if across else np.linspace(0.0, 1.0, height)[:, None, None]
    image = np.ascontiguousarray((one * (1.0 - ramp) + other * ramp) * np.ones((height, width, 1)), dtype=np.float32)
    for _ in range(2):
        low = rng.uniform(-0.2, 0.9, 2) * [width, height]
        high = low + rng.uniform(0.15, 0.5, 2) * height
        color = tuple(float(c) for c in one * rng.uniform(0.6, 1.2))
        cv2.rectangle(image, tuple(low.astype(int).tolist()), tuple(high.astype(int).tolist()), color, -1)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 0.02 * height), dtype=np.float32)


def _ellipse(
    image: Float,
    identity: Identity,
    scene: Scene,
    centre: tuple[float, float, float],
    radii: tuple[float, float],
    color: Float,
) -> None:
    """An upright ellipse at a point of the head, in head units, turned with the head's roll."""
    height, width = image.shape[:2]
    at = np.array([centre]) * [identity.proportions.width, 1.0, 1.0]
    x, y = project(at, scene, height, width)[0]
    unit = scene.scale * height * 6.0 / (6.0 - centre[2])
    axes = (radii[0] * identity.proportions.width * unit, radii[1] * unit)
    box = ((float(x), float(y)), (2.0 * axes[0], 2.0 * axes[1]), float(np.degrees(scene.roll)))
    cv2.ellipse(image, box, tuple(float(c) for c in color), -1, cv2.LINE_AA)


def _neck(image: Float, identity: Identity, scene: Scene, color: Float) -> None:
    height, width = image.shape[:2]
    sides = np.array([[-0.56, 0.55, -0.6], [0.56, 0.55, -0.6]]) * [identity.proportions.width, 1.0, 1.0]
    left, right = project(sides, scene, height, width)
    lean = 0.12 * (right[0] - left[0])
    outline = np.array([left, right, [right[0] + lean, height + 9.0], [left[0] - lean, height + 9.0]])
    cv2.fillPoly(image, [np.round(outline * 16.0).astype(np.int32)], tuple(float(c) for c in color), cv2.LINE_AA, 4)


def _clothes(image: Float, identity: Identity, scene: Scene, color: Float) -> None:
    height, width = image.shape[:2]
    unit = scene.scale * height
    x, y = project(np.array([[0.0, 1.1, -0.7]]), scene, height, width)[0]
    # Shoulders do not roll with the head: an upright ellipse below the chin.
    box = ((float(x), float(y) + 1.55 * unit), (4.6 * unit * identity.proportions.width, 2.3 * unit), 0.0)
    cv2.ellipse(image, box, tuple(float(c) for c in color), -1, cv2.LINE_AA)
