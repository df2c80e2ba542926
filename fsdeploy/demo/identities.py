"""The two identities of the demo. Nobody: each is a list of numbers."""

from __future__ import annotations

from dataclasses import dataclass

Color = tuple[int, int, int]
"""Blue, green, red, 0..255."""


@dataclass(frozen=True)
class Proportions:
    """Factors on the neutral head (1 is neutral) and shifts in head units (half the head's width)."""

    width: float
    jaw: float
    nose: float
    eyes: float
    mouth: float
    chin_shift: float
    """Positive lengthens the chin."""
    brow_shift: float
    """Positive lowers the brows."""


@dataclass(frozen=True)
class Identity:
    """What stays the same in every picture of a person."""

    name: str
    seed: int
    """Of the skin's and hair's grain."""
    proportions: Proportions
    skin: Color
    lips: Color
    hair: Color
    brows: Color
    iris: Color
    brow_thickness: int
    """Pixels of the texture."""
    hairline_shift: float
    """Head units; negative is a higher forehead."""
    beard: float
    """Opacity, 0 (none) to 1."""
    long_hair: bool
    mole: tuple[float, float] | None = None
    """Where on the neutral face, head units."""


IDENTITY_A = Identity(
    name="A",
    seed=65,
    proportions=Proportions(width=0.92, jaw=0.90, nose=0.85, eyes=1.12, mouth=0.92, chin_shift=-0.03, brow_shift=-0.03),
    skin=(158, 186, 228),
    lips=(105, 100, 190),
    hair=(35, 50, 80),
    brows=(38, 54, 84),
    iris=(130, 96, 44),
    brow_thickness=9,
    hairline_shift=-0.06,
    beard=0.0,
    long_hair=True,
    mole=(0.42, 0.45),
)
IDENTITY_B = Identity(
    name="B",
    seed=66,
    proportions=Proportions(width=1.06, jaw=1.10, nose=1.2, eyes=0.92, mouth=1.12, chin_shift=0.06, brow_shift=0.03),
    skin=(98, 134, 192),
    lips=(92, 94, 152),
    hair=(60, 62, 66),
    brows=(28, 29, 36),
    iris=(50, 70, 80),
    brow_thickness=17,
    hairline_shift=0.12,
    beard=0.55,
    long_hair=False,
)
IDENTITIES = (IDENTITY_A, IDENTITY_B)
