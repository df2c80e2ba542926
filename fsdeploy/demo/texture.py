"""What a head is painted with: colour, relief, gloss and where the face ends, over the neutral head from the front."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.demo.identities import Color, Identity
from fsdeploy.demo.shape import HAIRLINE, NEUTRAL, SKULL

SIZE = 512
_ZOOM = np.array([0.36, 0.30]) * SIZE
_ORIGIN = np.array([0.50, 0.54]) * SIZE
_SUBPIXEL_BITS = 4

Float = NDArray[np.float32]
Point = tuple[float, float]

# Relief: (centre, radii, height) of smooth bumps in head units; each is mirrored unless it lies on the middle line.
_BUMPS: tuple[tuple[Point, Point, float], ...] = (
    ((0.0, 0.0), (0.09, 0.34), 0.075),  # ridge of the nose
    ((0.0, 0.30), (0.12, 0.10), 0.055),  # its ball
    ((0.165, 0.33), (0.07, 0.07), 0.045),  # its wings
    ((0.45, -0.24), (0.26, 0.15), -0.085),  # eye sockets
    ((0.45, -0.26), (0.15, 0.085), 0.045),  # eyeballs
    ((0.42, -0.47), (0.34, 0.08), 0.045),  # brow bones
    ((0.58, 0.14), (0.24, 0.17), 0.060),  # cheek bones
    ((0.33, 0.47), (0.06, 0.20), -0.022),  # folds from nose to mouth
    ((0.0, 0.50), (0.035, 0.07), -0.018),  # groove above the lip
    ((0.0, 0.63), (0.22, 0.05), 0.028),  # upper lip
    ((0.0, 0.80), (0.20, 0.06), 0.036),  # lower lip
    ((0.0, 0.90), (0.22, 0.035), -0.022),  # crease below it
    ((0.0, 1.00), (0.20, 0.10), 0.050),  # chin
)


@dataclass(frozen=True)
class Atlas:
    """The paint of one identity; every array is SIZE x SIZE."""

    color: Float
    """(SIZE, SIZE, 3), blue, green, red, 0..255."""
    slope: Float
    """(SIZE, SIZE, 2): rise of the relief to the right and downward."""
    gloss: Float
    """0 (dull) to 1 (wet)."""
    face: Float
    """1 on the face, 0 on the hair: what a mask of the face covers."""


def to_texture(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Texture pixels (N, 2) of head coordinates (N, 2 or 3)."""
    return np.asarray(points[..., :2] * _ZOOM + _ORIGIN)


def paint(identity: Identity) -> Atlas:
    """Paint a head; the same identity gives the same bytes."""
    rng = np.random.default_rng(identity.seed)
    skin = _skin(identity, rng)
    if identity.beard:
        _add_beard(skin, identity, rng)
    color = np.clip(skin, 0.0, 255.0).astype(np.uint8)
    _draw_mouth(color, identity.lips)
    for eye in (slice(36, 42), slice(42, 48)):
        _draw_eye(color, NEUTRAL[eye], identity.iris)
    _draw_nostrils(color)
    _draw_brows(color, identity, rng)
    if identity.mole is not None:
        cv2.circle(color, _pixel(identity.mole), 5, (50, 60, 90), -1, cv2.LINE_AA)
    hair = cv2.GaussianBlur(_hair_area(identity), (0, 0), 3.0)
    strands = cv2.GaussianBlur(_noise(rng), (0, 0), 1.2, sigmaY=9.0)[..., None] * 60.0
    blended = color * (1.0 - hair[..., None]) + (_tone(identity.hair) + strands) * hair[..., None]
    gloss = 0.22 * (1.0 - hair) + 0.10 * hair + _wet_area() * 0.6
    return Atlas(
        np.clip(blended, 0.0, 255.0).astype(np.float32),
        _slope(),
        gloss.astype(np.float32),
        _face_area(identity),
    )


def _tone(color: Color) -> Float:
    return np.array(color, np.float32)


def _noise(rng: np.random.Generator) -> Float:
    return rng.normal(0.0, 1.0, (SIZE, SIZE)).astype(np.float32)


def _fixed_point(points: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.round(to_texture(points) * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def _pixel(point: Point) -> tuple[int, int]:
    x, y = np.round(to_texture(np.array(point))).astype(int)
    return int(x), int(y)


def _fill(image: Float | NDArray[np.uint8], points: NDArray[np.float64], color: float | Color) -> None:
    value = (float(color),) if isinstance(color, (int, float)) else color
    cv2.fillPoly(image, [_fixed_point(points)], value, cv2.LINE_AA, _SUBPIXEL_BITS)


def _area(points: NDArray[np.float64]) -> Float:
    area = np.zeros((SIZE, SIZE), np.uint8)
    _fill(area, points, 255)
    return np.asarray(area / np.float32(255.0))


def _blend_spot(image: Float, centre: Point, radii: tuple[int, int], color: Float, opacity: float, blur: float) -> None:
    spot = np.zeros((SIZE, SIZE), np.float32)
    cv2.ellipse(spot, _pixel(centre), radii, 0.0, 0.0, 360.0, (1.0,), -1, cv2.LINE_AA)
    weight = cv2.GaussianBlur(spot, (0, 0), blur)[..., None] * opacity
    image[:] = image * (1.0 - weight) + color * weight


def _skin(identity: Identity, rng: np.random.Generator) -> Float:
    tone = _tone(identity.skin)
    grain = cv2.GaussianBlur(_noise(rng), (0, 0), 3.0) * 18.0 + cv2.GaussianBlur(_noise(rng), (0, 0), 14.0) * 80.0
    skin = np.asarray(tone + grain[..., None], dtype=np.float32)
    for side in (-1.0, 1.0):
        _blend_spot(skin, (0.55 * side, 0.30), (45, 38), tone * np.array([0.88, 0.86, 1.05], np.float32), 0.55, 14.0)
        _blend_spot(skin, (0.45 * side, -0.27), (44, 26), tone * np.float32(0.76), 0.55, 9.0)
    _blend_spot(skin, (0.0, 0.42), (34, 9), tone * np.float32(0.66), 0.6, 5.0)
    _blend_spot(skin, (0.0, 0.92), (40, 8), tone * np.float32(0.80), 0.5, 6.0)
    return skin


def _add_beard(skin: Float, identity: Identity, rng: np.random.Generator) -> None:
    upper_edge = NEUTRAL[[53, 51, 49], :2] + [0.0, -0.10]
    area = np.zeros((SIZE, SIZE), np.float32)
    _fill(area, np.concatenate([NEUTRAL[2:15, :2], upper_edge]), 1.0)
    _fill(area, NEUTRAL[48:60], 0.0)
    stubble = np.clip(rng.normal(0.5, 0.6, (SIZE, SIZE)), 0.0, 1.0)
    weight = identity.beard * (cv2.GaussianBlur(area, (0, 0), 7.0) * (0.6 + 0.4 * stubble))[..., None]
    skin[:] = skin * (1.0 - weight) + _tone(identity.hair) * weight


def _draw_mouth(color: NDArray[np.uint8], lips: Color) -> None:
    _fill(color, NEUTRAL[48:60], lips)
    dark = _tone(lips) * np.float32(0.78)
    upper = NEUTRAL[[48, 49, 50, 51, 52, 53, 54, 64, 63, 62, 61, 60]]
    weight = cv2.GaussianBlur(_area(upper), (0, 0), 2.0)[..., None] * 0.6 * _area(NEUTRAL[48:60])[..., None]
    color[:] = np.round(color * (1.0 - weight) + dark * weight).astype(np.uint8)
    _fill(color, NEUTRAL[60:68], (38, 28, 52))
    teeth = np.concatenate([NEUTRAL[[61, 62, 63], :2], [[0.09, 0.695], [0.0, 0.70], [-0.09, 0.695]]])
    _fill(color, teeth, (196, 206, 212))


def _draw_eye(color: NDArray[np.uint8], outline: NDArray[np.float64], iris: Color) -> None:
    area = _area(outline)[..., None]
    x, y = _pixel(tuple(outline[:, :2].mean(axis=0)))
    ball = np.full_like(color, (222, 226, 230))
    cv2.circle(ball, (x, y), 15, tuple(int(0.55 * c) for c in iris), -1, cv2.LINE_AA)
    cv2.circle(ball, (x, y), 12, iris, -1, cv2.LINE_AA)
    cv2.circle(ball, (x, y), 6, (10, 10, 10), -1, cv2.LINE_AA)
    cv2.circle(ball, (x + 4, y - 4), 2, (255, 255, 255), -1, cv2.LINE_AA)
    color[:] = np.round(color * (1.0 - area) + ball * area).astype(np.uint8)
    cv2.polylines(color, [_fixed_point(outline[:4])], False, (25, 25, 35), 3, cv2.LINE_AA, _SUBPIXEL_BITS)


def _draw_nostrils(color: NDArray[np.uint8]) -> None:
    for x in (-0.08, 0.08):
        cv2.ellipse(color, _pixel((x, 0.372)), (8, 4), 0.0, 0.0, 360.0, (42, 46, 72), -1, cv2.LINE_AA)


def _draw_brows(color: NDArray[np.uint8], identity: Identity, rng: np.random.Generator) -> None:
    """A thick line that thins to its outer end, broken up by strands."""
    weight = np.zeros((SIZE, SIZE), np.float32)
    for brow in (NEUTRAL[17:22], NEUTRAL[26:21:-1]):
        for i in range(4):
            thickness = max(2, round(identity.brow_thickness * (0.55, 0.8, 1.0, 1.0)[i]))
            cv2.polylines(
                weight, [_fixed_point(brow[i : i + 2])], False, (1.0,), thickness, cv2.LINE_AA, _SUBPIXEL_BITS
            )
    strands = np.clip(0.92 + 0.5 * cv2.GaussianBlur(_noise(rng), (0, 0), 1.0, sigmaY=2.5), 0.6, 1.0)
    weight = (cv2.GaussianBlur(weight, (0, 0), 1.0) * strands)[..., None]
    color[:] = np.round(color * (1.0 - weight) + _tone(identity.brows) * weight).astype(np.uint8)


def _hairline(identity: Identity) -> NDArray[np.float64]:
    return np.asarray(NEUTRAL[HAIRLINE, :2] + [0.0, identity.hairline_shift])


def _hair_area(identity: Identity) -> Float:
    # A little over the skull's outline, so that no skin shows through at the edge of the hair.
    return _area(np.concatenate([_hairline(identity), NEUTRAL[SKULL][::-1, :2] * 1.1]))


def _face_area(identity: Identity) -> Float:
    return _area(np.concatenate([NEUTRAL[:17, :2], _hairline(identity)[::-1]]))


def _wet_area() -> Float:
    area = np.zeros((SIZE, SIZE), np.float32)
    for part in (NEUTRAL[36:42], NEUTRAL[42:48], NEUTRAL[48:60]):
        area += _area(part)
    return np.asarray(cv2.GaussianBlur(area, (0, 0), 2.0))


def _slope() -> Float:
    """Derivatives of the sum of Gaussian bumps by x and y, in head units."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    x = (columns - _ORIGIN[0]) / _ZOOM[0]
    y = (rows - _ORIGIN[1]) / _ZOOM[1]
    slope = np.zeros((SIZE, SIZE, 2))
    for (cx, cy), (rx, ry), height in _BUMPS:
        for side in (1.0,) if cx == 0.0 else (1.0, -1.0):
            dx, dy = (x - side * cx) / rx, (y - cy) / ry
            bump = height * np.exp(-0.5 * (dx**2 + dy**2))
            slope[..., 0] -= bump * dx / rx
            slope[..., 1] -= bump * dy / ry
    return slope.astype(np.float32)
