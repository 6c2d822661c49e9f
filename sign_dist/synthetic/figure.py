"""What stands behind a signer, and the neck and clothed body.

Painted once per signer at a higher resolution, then moved frame by frame. Lengths are in average shoulder widths, the
origin is midway between the shoulders, y is up (see `motion`).
"""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sign_dist.synthetic.brush import Brush, Sheet, smooth
from sign_dist.synthetic.signer import Rgb, Signer

BODY: Final = [
    (0.15, 0.10), (0.27, 0.045), (0.42, 0.0), (0.50, -0.07), (0.535, -0.20), (0.49, -0.42), (0.44, -0.70),
    (0.42, -1.0), (0.45, -1.4), (0.47, -2.4),
]  # fmt: skip
NECK: Final = [(0.125, 0.42), (0.122, 0.20), (0.135, 0.11), (0.21, 0.06), (0.10, -0.22)]


def tinted(colour: Rgb, factor: float, towards: Rgb = (0, 0, 0), share: float = 0.0) -> tuple[float, float, float]:
    """`colour` times `factor`, mixed with `share` of another colour."""
    mixed = (np.array(colour, dtype=float) * (1 - share) + np.array(towards) * share) * factor
    red, green, blue = np.clip(mixed, 0, 255)
    return float(red), float(green), float(blue)


def paint_background(signer: Signer) -> NDArray[np.float32]:
    """(H, W, 3): a softly lit wall, brighter behind the head, darker at the corners."""
    rows = np.linspace(-1, 1, signer.height_px, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, signer.width_px, dtype=np.float32)[None, :]
    glow = 1.07 - 0.13 * ((columns + 0.15) ** 2 + (rows + 0.45) ** 2)
    return np.clip(glow[:, :, None] * np.array(signer.background, np.float32), 0, 255).astype(np.float32)


def paint_body(signer: Signer, scale: float, origin_px: tuple[float, float]) -> Sheet:
    """(H, W, 4) of the whole picture: neck and shirt, colours multiplied by the opacity. `scale` is pixels per unit."""
    size = (2 * signer.width_px, 2 * signer.height_px)
    brush = Brush(size[0], size[1], 2 * scale, (2 * origin_px[0], 2 * origin_px[1]))
    wide = np.array([signer.shoulder_width, 1.0])
    body = smooth(np.array(BODY + [(-x, y) for x, y in reversed(BODY)]) * wide)

    brush.fill(body, signer.shirt)
    height, width = brush.sheet.shape[:2]
    x = (np.arange(width, dtype=np.float32)[None, :] - brush.origin_px[0]) / brush.scale
    y = (brush.origin_px[1] - np.arange(height, dtype=np.float32)[:, None]) / brush.scale
    round_chest = 1.05 - 0.55 * (x + 0.10) ** 2 + 0.06 * np.cos(5.0 * x) * np.exp(-((y + 0.30) ** 2) / 0.08)
    brush.shade((round_chest * np.clip(1.06 + 0.13 * y, 0.8, 1.1)).astype(np.float32))
    dark, light = tinted(signer.shirt, 0.55), tinted(signer.shirt, 1.0, (255, 255, 255), 0.35)
    for side in (-1, 1):
        s = side * signer.shoulder_width
        brush.stroke([(0.36 * s, -0.33), (0.40 * s, -0.48), (0.385 * s, -0.7)], dark, 0.05, opacity=0.45, soft=0.03)
        brush.stroke([(0.42 * s, -0.10), (0.30 * s, -0.26), (0.16 * s, -0.33)], dark, 0.03, opacity=0.22, soft=0.025)
        brush.stroke([(0.40 * s, -0.80), (0.22 * s, -0.92), (0.10 * s, -0.94)], dark, 0.03, opacity=0.25, soft=0.02)
        brush.stroke([(0.20 * s, 0.045), (0.42 * s, -0.03)], light, 0.05, opacity=0.25, soft=0.03)

    neckline = smooth(
        [(0.165, 0.10), (0.10, -0.03), (0.0, -0.19), (-0.10, -0.03), (-0.165, 0.10), (0.0, 0.16)]
        if signer.v_neck
        else [(0.18, 0.10), (0.155, -0.015), (0.0, -0.065), (-0.155, -0.015), (-0.18, 0.10), (0.0, 0.16)]
    )
    skin = tinted(signer.skin, 0.94)
    brush.stroke(np.vstack([neckline, neckline[:1]]), tinted(signer.shirt, 0.74), 0.034)
    brush.fill(neckline, skin)
    neck = smooth([*NECK, *((-a, b) for a, b in reversed(NECK))])
    above_shirt = np.array([(a, max(b, 0.055 if abs(a) > 0.12 else -0.01)) for a, b in neck])
    brush.fill(above_shirt, skin)
    shadow = tinted(signer.skin, 0.58)
    brush.ellipse((0.0, 0.19), (0.15, 0.075), shadow, opacity=0.55, soft=0.035)  # cast by the chin
    for side in (-1, 1):
        brush.stroke([(0.128 * side, 0.30), (0.132 * side, 0.09)], shadow, 0.03, opacity=0.5, soft=0.018)
        brush.stroke([(0.035 * side, -0.005), (0.13 * side, 0.03)], shadow, 0.012, opacity=0.45, soft=0.008)  # collar bone
    small = cv2.resize(brush.sheet, (signer.width_px, signer.height_px), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32)
