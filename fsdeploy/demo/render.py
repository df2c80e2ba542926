"""From an identity and a scene to a frame with its exact landmarks and face mask: a small software renderer.

Visible triangles are filled in depth order into an image of triangle numbers; everything else happens per pixel at
once: texture coordinates and normals by each triangle's affine map, relief, light, then background, blur and noise.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.demo import shape
from fsdeploy.demo.backdrop import draw_backdrop
from fsdeploy.demo.identities import Identity
from fsdeploy.demo.scene import Scene
from fsdeploy.demo.texture import Atlas, paint, to_texture

_SUBPIXEL_BITS = 4
_atlas = functools.cache(paint)


@dataclass(frozen=True)
class Drawing:
    """One drawn frame."""

    frame: NDArray[np.uint8]
    """(H, W, 3) BGR."""
    landmarks: NDArray[np.float32]
    """(68, 2) pixels, exact: the projected vertices."""
    mask: NDArray[np.uint8]
    """(H, W): 255 where the frame shows the face (skin, eyes, mouth; no hair, no ears)."""


@dataclass(frozen=True)
class _Surface:
    """What each covered pixel shows."""

    covered: NDArray[np.bool_]
    texture_x: NDArray[np.float32]
    texture_y: NDArray[np.float32]
    normals: NDArray[np.float32]
    """(H, W, 3) in head coordinates, not of unit length."""


def draw(identity: Identity, scene: Scene, height: int = 256, width: int = 256) -> Drawing:
    """Draw `identity` in `scene`. The same arguments give the same frame."""
    head = shape.with_expression(shape.identity_shape(identity.proportions), scene)
    turn = shape.rotation(scene.yaw, scene.pitch, scene.roll)
    points = shape.project(head, scene, height, width)
    surface = _rasterise(points, (head @ turn.T)[:, 2], shape.vertex_normals(head), height, width)
    colors, face = _shade(surface, _atlas(identity), turn, scene)
    edge = cv2.GaussianBlur(surface.covered.astype(np.float32), (0, 0), 0.8)[..., None]
    backdrop = draw_backdrop(identity, scene, height, width)
    frame = colors * edge + backdrop * (1.0 - edge)
    if scene.blur > 0.2:
        frame = np.asarray(cv2.GaussianBlur(frame, (0, 0), scene.blur), np.float32)
    noise = np.random.default_rng(scene.background).normal(0.0, scene.noise, frame.shape)
    return Drawing(
        np.clip(np.round(frame + noise), 0.0, 255.0).astype(np.uint8),
        points[: shape.LANDMARKS].astype(np.float32),
        np.where(surface.covered & (face > 0.5), 255, 0).astype(np.uint8),
    )


def _rasterise(
    points: NDArray[np.float64],
    depth: NDArray[np.float64],
    normals: NDArray[np.float64],
    height: int,
    width: int,
) -> _Surface:
    texture = to_texture(shape.NEUTRAL)
    order = _visible(points, depth, texture)
    corners = points[order]
    numbers = np.full((height, width), -1, np.int32)
    fixed = np.round(corners * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    for number, corner in enumerate(fixed):
        cv2.fillConvexPoly(numbers, corner, (number,), cv2.LINE_8, _SUBPIXEL_BITS)
    # Per triangle: attribute = map @ (x, y, 1), for texture x, y and the normal's three components.
    attributes = np.concatenate([texture, normals], axis=1)[order]
    maps = np.linalg.solve(np.concatenate([corners, np.ones((*corners.shape[:2], 1))], axis=2), attributes)
    rows, columns = np.nonzero(numbers >= 0)
    owner = numbers[rows, columns]
    where = np.stack([columns, rows, np.ones_like(rows)], axis=1).astype(np.float32)
    values = np.einsum("pk,pka->pa", where, maps.astype(np.float32)[owner])
    # Filling covers pixels a little outside a triangle: keep them on its own piece of texture.
    low, high = attributes.min(axis=1).astype(np.float32), attributes.max(axis=1).astype(np.float32)
    values = np.clip(values, low[owner], high[owner])
    images = np.zeros((height, width, 5), np.float32)
    images[rows, columns] = values
    return _Surface(numbers >= 0, images[..., 0].copy(), images[..., 1].copy(), images[..., 2:])


def _visible(points: NDArray[np.float64], depth: NDArray[np.float64], texture: NDArray[np.float64]) -> NDArray[np.intp]:
    """Triangles that face the camera, (V, 3) vertex indices, farthest first."""
    triangles = shape.triangles()

    def signed_area(where: NDArray[np.float64]) -> NDArray[np.float64]:
        one, other = where[triangles[:, 1]] - where[triangles[:, 0]], where[triangles[:, 2]] - where[triangles[:, 0]]
        return np.asarray(one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0])

    # Seen from the front every triangle of the neutral head faces the camera: one that kept its turn still does.
    area = signed_area(points)
    front = (area * signed_area(texture) > 0.0) & (np.abs(area) > 1e-3)
    farthest_first = np.argsort(depth[triangles].mean(axis=1), kind="stable")
    return np.asarray(triangles[farthest_first[front[farthest_first]]])


def _shade(
    surface: _Surface, atlas: Atlas, turn: NDArray[np.float64], scene: Scene
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lit colours (H, W, 3) and the share of face (H, W) of every covered pixel."""

    def sample(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.remap(image, surface.texture_x, surface.texture_y, cv2.INTER_LINEAR), dtype=np.float32)

    normals = _smooth(surface)
    normals[..., :2] -= sample(atlas.slope)
    normals /= np.linalg.norm(normals, axis=2, keepdims=True) + 1e-6
    flat = np.cos(scene.light_elevation)
    light = np.array(
        [np.sin(scene.light_azimuth) * flat, -np.sin(scene.light_elevation), np.cos(scene.light_azimuth) * flat]
    )
    halfway = light + np.array([0.0, 0.0, 1.0])
    halfway /= np.linalg.norm(halfway)
    # Light is turned into head coordinates once, instead of every normal out of them.
    diffuse = np.clip(normals @ (turn.T @ light).astype(np.float32), 0.0, None)
    shine = np.clip(normals @ (turn.T @ halfway).astype(np.float32), 0.0, None) ** 24 * sample(atlas.gloss)
    lit = sample(atlas.color) * (scene.ambient + (1.08 - scene.ambient) * diffuse)[..., None]
    lit += 255.0 * (1.0 - scene.ambient) * shine[..., None]
    return np.asarray(lit * np.array(scene.tint, np.float32)), sample(atlas.face)


def _smooth(surface: _Surface) -> NDArray[np.float32]:
    """Normals averaged over neighbours on the head, so that no edge of a triangle shows."""
    sigma = max(surface.covered.shape) / 70.0
    share = cv2.GaussianBlur(surface.covered.astype(np.float32), (0, 0), sigma)
    smooth = cv2.GaussianBlur(surface.normals, (0, 0), sigma) / np.maximum(share, 1e-3)[..., None]
    return np.asarray(smooth, dtype=np.float32)
