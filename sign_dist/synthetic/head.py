"""Heads: hair, skin, and faces whose eyes, brows and mouth change.

Painted at three times the picture's resolution when first needed, then turned and moved frame by frame. Lengths are in
average shoulder widths, the origin is midway between the shoulders, y is up (see `motion`).
"""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sign_dist.synthetic.brush import Brush, ring, smooth
from sign_dist.synthetic.figure import tinted
from sign_dist.synthetic.signer import Signer

HEAD_PIVOT: Final = (0.0, 0.24)  # the head turns and grows about the top of the neck
HEAD_BOX: Final = (0.52, 0.98, 0.42)  # half width, top above and bottom below the origin of the head's sheet
HEAD_OVERSAMPLING: Final = 3
HEAD_KEPT: Final = 1.5  # resolution of the kept sheets relative to the picture
FACE: Final = [
    (0.0, 0.845), (0.13, 0.82), (0.205, 0.71), (0.218, 0.56), (0.208, 0.43), (0.178, 0.31), (0.115, 0.222),
    (0.055, 0.190),
]  # fmt: skip


class HeadPainter:
    """Heads of one signer; each face (eyes shut or not, mouth open 0..2, brows raised 0..1) is painted once."""

    def __init__(self, signer: Signer, scale: float) -> None:
        self.signer = signer
        half, above, below = HEAD_BOX
        fine = HEAD_OVERSAMPLING * scale
        self._scale = scale
        self._blank = Brush(round(2 * half * fine), round((above + below) * fine), fine, (half * fine, above * fine))
        self._paint_skull(self._blank)
        self._faces: dict[tuple[bool, int, int], NDArray[np.uint8]] = {}
        # A point (x, y) in shoulder widths lies at this pixel times HEAD_KEPT in a kept sheet.
        self.origin_px = (half * scale * HEAD_KEPT, above * scale * HEAD_KEPT)

    def face(self, *, shut: bool, mouth: int, brows: int) -> NDArray[np.uint8]:
        """(h, w, 4) uint8, colours multiplied by the opacity, HEAD_KEPT times the picture's resolution."""
        key = (shut, mouth, brows)
        if key not in self._faces:
            brush = self._blank.copy()
            self._paint_features(brush, shut, mouth, brows)
            half, above, below = HEAD_BOX
            kept = (round(2 * half * self._scale * HEAD_KEPT), round((above + below) * self._scale * HEAD_KEPT))
            small = cv2.resize(brush.sheet, kept, interpolation=cv2.INTER_AREA)
            self._faces[key] = np.clip(small + 0.5, 0, 255).astype(np.uint8)
        return self._faces[key]

    def _paint_skull(self, brush: Brush) -> None:
        signer, skin = self.signer, self.signer.skin
        hair, deep_hair = tinted(signer.hair, 1.0), tinted(signer.hair, 0.62)
        match signer.hair_style:  # what hangs or stands behind the head
            case "long":
                back = [
                    (0.0, 0.91),
                    (0.20, 0.87),
                    (0.285, 0.66),
                    (0.30, 0.35),
                    (0.33, 0.02),
                    (0.28, -0.20),
                    (0.16, -0.22),
                    (0.13, 0.2),
                ]
                brush.fill(smooth([*back, *((-x, y) for x, y in reversed(back[1:]))]), deep_hair)
            case "bob":
                back = [(0.0, 0.91), (0.21, 0.87), (0.30, 0.64), (0.31, 0.36), (0.27, 0.17), (0.16, 0.17), (0.12, 0.3)]
                brush.fill(smooth([*back, *((-x, y) for x, y in reversed(back[1:]))]), deep_hair)
            case "curly":
                for angle in np.arange(-30, 211, 20):
                    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
                    brush.ellipse((0.225 * c, 0.62 + 0.24 * s), (0.095, 0.095), deep_hair)
            case "bun":
                brush.ellipse((0.0, 0.90), (0.11, 0.09), deep_hair)
                brush.ellipse((-0.02, 0.92), (0.07, 0.05), hair, opacity=0.7, soft=0.02)
            case "short" | "cropped":
                brush.ellipse((0.0, 0.64), (0.232, 0.235), deep_hair)

        for side in (-1, 1):  # ears
            if signer.hair_style in ("short", "cropped", "bun"):
                brush.ellipse((0.218 * side, 0.485), (0.036, 0.068), tinted(skin, 0.88))
                brush.ellipse((0.220 * side, 0.487), (0.018, 0.042), tinted(skin, 0.66), opacity=0.6, soft=0.008)

        outline = smooth([*FACE, *((-x, y) for x, y in reversed(FACE[1:]))])
        brush.fill(outline, skin)
        mask = brush.mask(outline)
        # Darker towards the edge and away from the light, as a rounded form is.
        inner = cv2.GaussianBlur(mask, (0, 0), 0.055 * brush.scale)
        height, width = mask.shape
        x = (np.arange(width, dtype=np.float32)[None, :] - brush.origin_px[0]) / brush.scale
        y = (brush.origin_px[1] - np.arange(height, dtype=np.float32)[:, None]) / brush.scale
        lit = 0.62 + 0.42 * np.clip(inner * 1.25 - 0.2, 0, 1) - 0.16 * x + 0.10 * (y - 0.5)
        brush.shade((1 + mask * (lit - 1)).astype(np.float32))
        rosy = tinted(skin, 1.0, (214, 84, 76), 0.35)
        for side in (-1, 1):
            brush.ellipse((0.118 * side, 0.385), (0.055, 0.04), rosy, opacity=0.34, soft=0.03)
            brush.ellipse((0.088 * side, 0.515), (0.062, 0.042), tinted(skin, 0.66), opacity=0.34, soft=0.02)  # socket
        if signer.beard:
            jaw = [(0.212, 0.46), (0.195, 0.33), (0.125, 0.215), (0.0, 0.180)]
            inside = [(0.0, 0.372), (0.085, 0.36), (0.115, 0.33), (0.165, 0.40)]
            beard = [
                *jaw,
                *((-x, y) for x, y in reversed(jaw[:-1])),
                *((-x, y) for x, y in reversed(inside[1:])),
                *inside,
            ]
            brush.fill(smooth(beard), tinted(signer.hair, 0.9), opacity=0.86, soft=0.008)
        # Nose: shaded side, bright ridge, wings and nostrils.
        brush.stroke([(0.026, 0.50), (0.034, 0.43), (0.042, 0.405)], tinted(skin, 0.62), 0.022, opacity=0.45, soft=0.010)
        brush.stroke([(-0.004, 0.52), (-0.006, 0.43)], tinted(skin, 1.12, (255, 255, 255), 0.12), 0.022, opacity=0.6, soft=0.010)
        brush.ellipse((-0.003, 0.408), (0.026, 0.020), tinted(skin, 1.1, (255, 255, 255), 0.1), opacity=0.5, soft=0.010)
        brush.stroke(ring((0.0, 0.408), (0.044, 0.030), 200, 340, 16), tinted(skin, 0.55), 0.012, opacity=0.6, soft=0.004)
        for side in (-1, 1):
            brush.ellipse((0.019 * side, 0.383), (0.010, 0.006), tinted(skin, 0.32), opacity=0.75, soft=0.003)
        self._paint_fringe(brush)

    def _paint_fringe(self, brush: Brush) -> None:
        signer = self.signer
        hair, bright = tinted(signer.hair, 1.0), tinted(signer.hair, 1.25, (255, 255, 255), 0.12)
        match signer.hair_style:
            case "cropped":
                front = [
                    (-0.226, 0.56),
                    (-0.20, 0.70),
                    (-0.12, 0.765),
                    (0.0, 0.78),
                    (0.12, 0.765),
                    (0.20, 0.70),
                    (0.226, 0.56),
                    (0.238, 0.70),
                ]
                top = [(0.15, 0.865), (0.0, 0.895), (-0.15, 0.865), (-0.238, 0.70)]
            case "short":
                front = [
                    (-0.228, 0.53),
                    (-0.205, 0.66),
                    (-0.12, 0.70),
                    (0.02, 0.75),
                    (0.15, 0.735),
                    (0.205, 0.66),
                    (0.228, 0.53),
                    (0.252, 0.72),
                ]
                top = [(0.17, 0.89), (0.0, 0.925), (-0.17, 0.89), (-0.252, 0.72)]
            case "bun":
                front = [
                    (-0.225, 0.54),
                    (-0.19, 0.68),
                    (-0.08, 0.765),
                    (0.0, 0.775),
                    (0.08, 0.765),
                    (0.19, 0.68),
                    (0.225, 0.54),
                    (0.246, 0.70),
                ]
                top = [(0.16, 0.87), (0.0, 0.90), (-0.16, 0.87), (-0.246, 0.70)]
            case "curly":
                front = [
                    (-0.23, 0.52),
                    (-0.19, 0.67),
                    (-0.10, 0.725),
                    (0.0, 0.735),
                    (0.10, 0.725),
                    (0.19, 0.67),
                    (0.23, 0.52),
                    (0.285, 0.68),
                ]
                top = [(0.19, 0.89), (0.0, 0.94), (-0.19, 0.89), (-0.285, 0.68)]
            case "bob":
                front = [
                    (-0.235, 0.30),
                    (-0.205, 0.56),
                    (-0.17, 0.655),
                    (-0.02, 0.68),
                    (0.16, 0.665),
                    (0.205, 0.56),
                    (0.235, 0.30),
                    (0.30, 0.60),
                ]
                top = [(0.19, 0.885), (0.0, 0.93), (-0.19, 0.885), (-0.30, 0.60)]
            case "long":
                front = [
                    (-0.235, 0.25),
                    (-0.205, 0.58),
                    (-0.13, 0.70),
                    (0.03, 0.80),
                    (0.14, 0.71),
                    (0.205, 0.58),
                    (0.235, 0.25),
                    (0.29, 0.60),
                ]
                top = [(0.18, 0.885), (0.0, 0.925), (-0.18, 0.885), (-0.29, 0.60)]
        shape = smooth([*front, *top])
        brush.fill(shape - np.array([0.0, 0.012]), tinted(signer.skin, 0.5), opacity=0.35, soft=0.012)  # its shadow on the brow
        brush.fill(shape, hair)
        strands = np.linspace(-0.17, 0.17, 9)
        for number, x in enumerate(strands):
            path = [(0.35 * x, 0.90), (0.9 * x, 0.86), (1.25 * x, 0.77)]
            brush.stroke(path, bright if number % 2 else tinted(signer.hair, 0.7), 0.010, opacity=0.35, soft=0.006)
        brush.stroke([(-0.15, 0.83), (-0.06, 0.875), (0.03, 0.88)], bright, 0.035, opacity=0.45, soft=0.018)

    def _paint_features(self, brush: Brush, shut: bool, mouth: int, brows: int) -> None:
        signer, skin = self.signer, self.signer.skin
        lash = tinted(skin, 0.22)
        for side in (-1, 1):
            x, y = 0.088 * side, 0.500
            if shut:
                brush.stroke(ring((x, y + 0.014), (0.046, 0.022), 190, 350, 16), lash, 0.012)
            else:
                almond = np.vstack([ring((x, y), (0.047, 0.026), 0, 180, 16), ring((x, y), (0.047, 0.019), 180, 360, 16)])
                brush.fill(almond, (244, 242, 238))
                brush.ellipse((x, y + 0.003), (0.0215, 0.0235), signer.iris)
                brush.ellipse((x, y + 0.003), (0.010, 0.011), (18, 14, 14))
                brush.ellipse((x - 0.008, y + 0.012), (0.0058, 0.0058), (255, 255, 255))
                brush.stroke(ring((x, y), (0.048, 0.027), 8, 172, 16), lash, 0.012)
                brush.stroke(ring((x, y), (0.047, 0.020), 200, 340, 12), tinted(skin, 0.5), 0.006, opacity=0.6)
            brush.stroke(ring((x, y + 0.008), (0.054, 0.036), 25, 155, 14), tinted(skin, 0.55), 0.006, opacity=0.5)
            lift = 0.018 * brows
            brow = [(0.038 * side, 0.569 + lift), (0.085 * side, 0.583 + 1.2 * lift), (0.138 * side, 0.563 + lift)]
            brush.stroke(brow, tinted(signer.hair, 0.75, skin, 0.12), 0.021, opacity=0.92, soft=0.003)
        lip, dark_lip = tinted(skin, 0.86, (176, 52, 60), 0.42), tinted(skin, 0.42, (110, 20, 30), 0.3)
        gape, y = 0.013 * mouth, 0.308
        wide = 0.074 - 0.006 * mouth
        upper = [
            (-wide, y + 0.012),
            (-0.03, y + 0.018 + gape),
            (0.0, y + 0.013 + gape),
            (0.03, y + 0.018 + gape),
            (wide, y + 0.012),
        ]
        lower = [(0.035, y - 0.024 - gape), (0.0, y - 0.029 - gape), (-0.035, y - 0.024 - gape)]
        brush.fill(smooth([*upper, *lower], 2), lip)
        if mouth:
            brush.ellipse((0.0, y), (wide * 0.74, 0.006 + gape), (70, 22, 26))
            brush.ellipse((0.0, y + 0.55 * gape), (wide * 0.55, 0.35 * gape), (240, 236, 230))
        else:
            brush.stroke(ring((0.0, y + 0.016), (wide, 0.020), 190, 350, 16), dark_lip, 0.008, opacity=0.9)
        brush.stroke([(-0.02, y - 0.022 - gape), (0.02, y - 0.022 - gape)], (255, 240, 236), 0.008, opacity=0.28, soft=0.004)
        brush.stroke([(-0.03, y - 0.050 - gape), (0.03, y - 0.050 - gape)], tinted(skin, 0.6), 0.014, opacity=0.4, soft=0.009)
        if signer.glasses:
            frame = (40, 36, 40)
            for side in (-1, 1):
                brush.ellipse((0.09 * side, 0.497), (0.066, 0.052), (255, 255, 255), opacity=0.10)
                brush.stroke(ring((0.09 * side, 0.497), (0.066, 0.052)), frame, 0.010)
                brush.stroke([(0.155 * side, 0.505), (0.215 * side, 0.515)], frame, 0.010)
            brush.stroke(ring((0.0, 0.50), (0.026, 0.016), 10, 170, 10), frame, 0.010)
