"""Who signs: body, looks, camera and manner of one invented person.

All draws depend on (seed, index) alone, so signer 3 is the same person in a world of four signers and in one of forty.
Skin tones are spread over a scale like Monk's (2019); clothes and backgrounds are drawn so that skin stands out from them.
About 15 % are left-handed; a left-handed signer mirrors every sign.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

Rgb = tuple[int, int, int]
HairStyle = Literal["short", "bob", "long", "bun", "curly", "cropped"]
Sleeve = Literal["long", "short"]

LEFT_HANDED_SHARE: Final = 0.15
GOLDEN: Final = 0.6180339887498949  # multiples modulo 1 fill [0, 1) evenly: few signers already differ

SKIN_TONES: Final[tuple[Rgb, ...]] = (
    (246, 220, 202), (241, 206, 182), (232, 190, 160), (222, 174, 140), (205, 152, 116),
    (184, 130, 96), (160, 108, 77), (136, 89, 63), (112, 72, 52), (90, 58, 44),
)  # fmt: skip
HAIR_COLOURS: Final[tuple[Rgb, ...]] = (
    (32, 26, 26), (52, 36, 28), (84, 54, 36), (120, 78, 46), (176, 128, 74), (150, 72, 40), (146, 142, 140),
    (70, 66, 70),
)  # fmt: skip
SHIRTS: Final[tuple[Rgb, ...]] = (
    (38, 62, 104), (34, 92, 88), (92, 40, 74), (44, 46, 56), (52, 96, 62), (72, 66, 132),
    (228, 226, 220), (176, 202, 224), (198, 216, 190), (28, 110, 148),
)  # fmt: skip
BACKGROUNDS: Final[tuple[Rgb, ...]] = (
    (190, 204, 214), (204, 212, 200), (214, 206, 214), (172, 190, 196), (120, 142, 160), (150, 168, 152),
    (224, 222, 214),
)  # fmt: skip
IRISES: Final[tuple[Rgb, ...]] = ((70, 44, 28), (92, 62, 36), (72, 96, 70), (70, 104, 138))
FRAME_SIZES: Final = ((320, 320), (368, 288), (288, 352), (336, 336), (320, 288), (288, 368))
FRAME_RATES: Final = (25, 30, 24)


@dataclass(frozen=True)
class Signer:
    """One person and their camera. Lengths are in shoulder widths of an average body, sizes in pixels."""

    name: str
    index: int
    left_handed: bool
    skin: Rgb
    hair: Rgb
    hair_style: HairStyle
    iris: Rgb
    shirt: Rgb
    sleeve: Sleeve
    v_neck: bool
    glasses: bool
    beard: bool
    background: Rgb
    shoulder_width: float
    arm_length: float  # factor on both bones
    hand_length: float
    head_size: float  # factor
    width_px: int
    height_px: int
    fps: int
    camera_distance: float  # from the body plane to the lens: less gives stronger perspective
    zoom: float  # factor on the picture
    shift_x: float  # of the body in the picture
    shift_y: float
    speed: float  # factor, 1 is average
    amplitude: float  # factor on movements
    location_shift: tuple[float, float, float]  # habitual offset of all locations
    hold: float  # share of the clip spent before and after signing, 0..1
    mouthing: float  # how much the mouth moves, 0..1


def make_signer(seed: int, index: int) -> Signer:
    """The signer number `index` of the world `seed`; the same two numbers always give the same person.

    >>> make_signer(0, 3).name
    'signer03'
    """
    if index < 0:
        raise ValueError(f"need a signer index >= 0, got {index}")
    rng = np.random.default_rng([seed, 101, index])
    phase = np.random.default_rng([seed, 102]).uniform(size=8)  # shared by the world: where the even sequences start

    def even(stream: int, count: int) -> int:
        return int(((phase[stream] + index * GOLDEN) % 1.0) * count)

    skin = SKIN_TONES[(3 * index + int(phase[0] * 10)) % 10]
    shirts = [shirt for shirt in SHIRTS if abs(_luma(shirt) - _luma(skin)) > 48]
    shirt = shirts[even(5, len(shirts))]
    backgrounds = [b for b in BACKGROUNDS if abs(_luma(b) - _luma(skin)) > 12 and abs(_luma(b) - _luma(shirt)) > 25]
    hair_darkest = 3 if _luma(skin) < 140 else len(HAIR_COLOURS)
    styles: tuple[HairStyle, ...] = ("short", "bob", "long", "curly", "bun", "cropped")
    style = styles[(index + int(phase[1] * 6)) % 6]
    width_px, height_px = FRAME_SIZES[(index + int(phase[2] * 6)) % 6]
    return Signer(
        name=f"signer{index:02d}",
        index=index,
        left_handed=bool((phase[3] + index * GOLDEN) % 1.0 < LEFT_HANDED_SHARE),
        skin=skin,
        hair=HAIR_COLOURS[int(rng.integers(hair_darkest))],
        hair_style=style,
        iris=IRISES[int(rng.integers(2 if _luma(skin) < 150 else 4))],
        shirt=shirt,
        sleeve="short" if rng.uniform() < 0.4 else "long",
        v_neck=bool(rng.uniform() < 0.4),
        glasses=bool(rng.uniform() < 0.25),
        beard=bool(style in ("short", "cropped") and rng.uniform() < 0.5),
        background=backgrounds[even(6, len(backgrounds))],
        shoulder_width=float(rng.uniform(0.93, 1.07)),
        arm_length=float(rng.uniform(0.95, 1.05)),
        hand_length=float(rng.uniform(0.55, 0.61)),
        head_size=float(rng.uniform(0.96, 1.06)),
        width_px=width_px,
        height_px=height_px,
        fps=FRAME_RATES[even(4, 3)],
        camera_distance=float(rng.uniform(4.5, 6.0)),
        zoom=float(rng.uniform(0.94, 1.06)),
        shift_x=float(rng.uniform(-0.06, 0.06)),
        shift_y=float(rng.uniform(-0.04, 0.04)),
        speed=float(rng.uniform(0.85, 1.2)),
        amplitude=float(rng.uniform(0.85, 1.15)),
        location_shift=(float(rng.normal(0, 0.03)), float(rng.normal(0, 0.03)), float(rng.normal(0, 0.02))),
        hold=float(rng.uniform(0.06, 0.11)),
        mouthing=float(rng.uniform(0.2, 1.0)),
    )


def _luma(colour: Rgb) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
