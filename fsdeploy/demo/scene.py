"""What changes from picture to picture: pose, expression, light, camera. A scene can be drawn as any identity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scene:
    """One picture's parameters. Angles in radians; lengths as shares of the frame's height."""

    yaw: float
    """Positive turns the nose to the image's right."""
    pitch: float
    """Positive raises the nose."""
    roll: float
    """Positive turns the head clockwise in the image."""
    scale: float
    """Half the head's width."""
    shift: tuple[float, float]
    """Of the head's centre from the frame's centre, (x, y)."""
    mouth_open: float
    """0 closed, 1 wide open."""
    smile: float
    """Negative pulls the corners down."""
    brow_raise: float
    blink: float
    """0 open, 1 closed."""
    light_azimuth: float
    light_elevation: float
    """Positive is from above."""
    ambient: float
    """Share of light without direction, 0..1."""
    tint: tuple[float, float, float]
    """Gain of blue, green, red."""
    blur: float
    """Sigma of the camera's blur, px."""
    noise: float
    """Sigma of the camera's noise, grey levels."""
    background: int
    """Seed of the background and clothes; also of the noise."""


_SCALE = 0.235


def random_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene; poses within about 27 degrees of yaw, 11 of pitch, 8 of roll."""

    def bell(sigma: float) -> float:
        return float(np.clip(rng.normal(0.0, sigma), -2.0 * sigma, 2.0 * sigma))

    return Scene(
        yaw=bell(0.24),
        pitch=bell(0.10),
        roll=bell(0.07),
        scale=_SCALE + bell(0.01),
        shift=(bell(0.02), bell(0.02)),
        mouth_open=float(np.clip(rng.normal(0.1, 0.35), 0.0, 1.0)) if rng.random() < 0.7 else 0.0,
        smile=float(np.clip(rng.normal(0.2, 0.5), -0.4, 1.2)),
        brow_raise=float(np.clip(rng.normal(0.0, 0.5), -1.0, 1.0)),
        blink=float(rng.uniform(0.5, 1.0)) if rng.random() < 0.15 else 0.0,
        light_azimuth=bell(0.45),
        light_elevation=0.3 + bell(0.2),
        ambient=float(rng.uniform(0.45, 0.75)),
        tint=_tint(rng),
        blur=float(rng.uniform(0.0, 0.8)),
        noise=float(rng.uniform(0.5, 3.0)),
        background=int(rng.integers(1 << 30)),
    )


def clip_scenes(rng: np.random.Generator, frames: int, frame_rate: float) -> list[Scene]:
    """A talking head: smooth pose, speech-like mouth, two blinks, one light and one background.

    Every curve is a sum of two sines of random phase, slow enough to be smooth at `frame_rate` frames a second.
    """
    time = np.arange(frames) / frame_rate

    def wave(size: float, hertz: float) -> np.ndarray:
        phases = rng.uniform(0.0, 2.0 * np.pi, 2)
        fast = 0.4 * np.sin(2.0 * np.pi * 2.3 * hertz * time + phases[1])
        return np.asarray(size * (np.sin(2.0 * np.pi * hertz * time + phases[0]) + fast) / 1.4)

    yaw, pitch, roll = wave(0.36, 0.3), wave(0.14, 0.4), wave(0.09, 0.25)
    mouth = np.clip(wave(0.6, 1.1), 0.0, 1.0)
    smile, brows = 0.3 + wave(0.5, 0.35), wave(0.6, 0.5)
    blinks = rng.uniform(0.15, 0.85, 2) * time[-1] if frames else np.zeros(2)
    blink = np.exp(-(((time[:, None] - blinks) / 0.09) ** 2)).max(axis=1)
    left, up = wave(0.03, 0.2), wave(0.02, 0.3)
    azimuth, ambient = float(rng.uniform(-0.6, 0.6)), float(rng.uniform(0.5, 0.65))
    background = int(rng.integers(1 << 30))
    return [
        Scene(
            yaw=float(yaw[i]),
            pitch=float(pitch[i]),
            roll=float(roll[i]),
            scale=_SCALE,
            shift=(float(left[i]), float(up[i])),
            mouth_open=float(mouth[i]),
            smile=float(smile[i]),
            brow_raise=float(brows[i]),
            blink=float(blink[i]),
            light_azimuth=azimuth,
            light_elevation=0.35,
            ambient=ambient,
            tint=(1.0, 1.0, 1.0),
            blur=0.4,
            noise=1.0,
            background=background,
        )
        for i in range(frames)
    ]


def _tint(rng: np.random.Generator) -> tuple[float, float, float]:
    blue, green, red = 1.0 + np.clip(rng.normal(0.0, 0.03, 3), -0.07, 0.07)
    return float(blue), float(green), float(red)
