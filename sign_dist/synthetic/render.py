"""Body poses to pictures: a head and body that move stiffly, arms and hands in the round, shadows between them."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from sign_dist.synthetic.figure import paint_background, paint_body, tinted
from sign_dist.synthetic.hand import Floats
from sign_dist.synthetic.head import HEAD_BOX, HEAD_KEPT, HEAD_PIVOT, HeadPainter
from sign_dist.synthetic.motion import Motion
from sign_dist.synthetic.signer import Rgb, Signer
from sign_dist.synthetic.solid import Point, SolidLayer

Frame = NDArray[np.uint8]  # (H, W, 3) RGB

SUPERSAMPLING: Final = 2
VIEW_WIDTH: Final = 2.16  # shoulder widths that must fit into the picture
VIEW_HEIGHT: Final = 2.18
TOP: Final = 1.03  # upper edge of the picture, above the shoulders
SHADOW: Final = 0.34  # how much light the shadow of a hand takes
SHADOW_SHIFT: Final = np.array([[1, 0, 4], [0, 1, 6]], np.float32)  # right and down, away from the light
SEWN_DEPTH: Final = 0.17  # what lies nearer to the viewer than this is no part of the shoulder
SWAY_STEPS_PX: Final = 0.5  # the body is kept at steps of this shift; finer cannot be seen

# Tones 1..255 of the solid layer, shared between materials as (base, span).
SKIN: Final = (1, 88)
PALM: Final = (91, 88)
CLOTH: Final = (181, 60)
NAIL: Final = (242, 13)

FINGER_RADII: Final = (0.066, 0.059, 0.053, 0.044)  # hand lengths, at the knuckle and the three joints after it
THUMB_RADII: Final = (0.084, 0.073, 0.064, 0.050)
THICKNESS: Final = {5: 1.0, 9: 1.03, 13: 0.97, 17: 0.86}
PALM_LINES: Final = (  # along t and f, in hand lengths: the lines of heart, head and life
    ((-0.17, 0.36), (-0.06, 0.36), (0.06, 0.43)),
    ((-0.14, 0.24), (0.0, 0.30), (0.13, 0.38)),
    ((0.02, 0.07), (0.03, 0.20), (0.13, 0.36)),
)


def fit_scale(signer: Signer) -> float:
    """Pixels per shoulder width in the plane of the body: all of the signing space fits into the picture."""
    return min(signer.width_px / VIEW_WIDTH, signer.height_px / VIEW_HEIGHT) * signer.zoom


class Renderer:
    """Draws one signer. Keeps what does not change between clips of that signer."""

    def __init__(self, signer: Signer) -> None:
        self.signer = signer
        self._scale = fit_scale(signer)
        self._origin_px = (
            signer.width_px * (0.5 + signer.shift_x * 0.6),
            self._scale * (TOP + signer.shift_y),
        )
        self._background = paint_background(signer)
        self._body = paint_body(signer, self._scale, self._origin_px)
        self._swayed: dict[tuple[int, int], Frame] = {}
        self._heads = HeadPainter(signer, self._scale)
        self._layer = SolidLayer(SUPERSAMPLING * signer.width_px, SUPERSAMPLING * signer.height_px)
        self._sleeve = self._sleeve_cover()
        self._colours = _colour_table(signer)

    def frames(self, motion: Motion) -> Iterator[Frame]:
        """All pictures of a clip, uint8 (H, W, 3) RGB."""
        for index in range(motion.num_frames):
            yield self.frame(motion, index)

    def frame(self, motion: Motion, index: int) -> Frame:
        """The picture at `index`."""
        picture = self._torso(motion.head[index]).copy()
        self._add_head(picture, motion, index)
        self._layer.clear()
        for side in (0, 1):
            self._add_arm(motion.shoulders[index, side], motion.elbows[index, side], motion.hands[index, side, 0])
        for side in (0, 1):
            self._add_hand(motion.hands[index, side], right=side == 0)
        self._add_layer(picture)
        return picture

    def project(self, point: Floats) -> tuple[Point, float]:
        """Pixel and depth in the supersampled picture, and pixels per shoulder width there of that depth."""
        distance = self.signer.camera_distance
        scale = SUPERSAMPLING * self._scale * distance / (distance - float(point[2]))
        x = SUPERSAMPLING * self._origin_px[0] + scale * float(point[0])
        y = SUPERSAMPLING * self._origin_px[1] - scale * float(point[1])
        return (x, y, scale * float(point[2])), scale

    def _sleeve_cover(self) -> NDArray[np.uint8]:
        """(H, W): 0 on the chest side of both shoulders, where sleeve and shirt are one, 255 from the upper arm on."""
        x = (np.arange(self.signer.width_px, dtype=np.float32)[None, :] - self._origin_px[0]) / self._scale
        y = (self._origin_px[1] - np.arange(self.signer.height_px, dtype=np.float32)[:, None]) / self._scale
        across = (np.abs(x) / self.signer.shoulder_width - 0.40) / 0.13 + 0.25 * (y + 0.1)
        inside = np.clip(across, 0, 1)
        sewn = np.where(y < 0.03, 255 * inside * inside * (3 - 2 * inside), 255)
        return np.maximum(sewn, 255 - self._body[:, :, 3]).astype(np.uint8)  # never outside the shirt

    def _torso(self, head: Floats) -> Frame:
        """Background and body, shifted with the sway of the body."""
        sway_px = (head[1] / 1.3 * self._scale, -0.3 * head[1] / 1.3 * self._scale)
        key = (round(sway_px[0] / SWAY_STEPS_PX), round(sway_px[1] / SWAY_STEPS_PX))
        if key not in self._swayed:
            shift = np.array([[1, 0, key[0] * SWAY_STEPS_PX], [0, 1, key[1] * SWAY_STEPS_PX]], np.float32)
            size = (self.signer.width_px, self.signer.height_px)
            body = cv2.warpAffine(self._body, shift, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            dressed = self._background * (1 - body[:, :, 3:] / 255) + body[:, :, :3]
            self._swayed[key] = np.clip(dressed + 0.5, 0, 255).astype(np.uint8)
        return self._swayed[key]

    def _add_head(self, picture: Frame, motion: Motion, index: int) -> None:
        face = self._heads.face(
            shut=bool(motion.eyes[index] < 0.5),
            mouth=min(int(motion.mouth[index] * 3), 2),
            brows=int(motion.brows[index] > 0.5),
        )
        roll, right, up = motion.head[index]
        size = self.signer.head_size / HEAD_KEPT
        cos, sin = size * np.cos(roll), size * np.sin(roll)
        turn = np.array([[cos, sin], [-sin, cos]])  # rows grow downwards: a positive roll leans to the picture's left
        pivot_in = np.array(self._heads.origin_px) + np.array([HEAD_PIVOT[0], -HEAD_PIVOT[1]]) * self._scale * HEAD_KEPT
        pivot_out = np.array(self._origin_px) + np.array([HEAD_PIVOT[0] + right, -HEAD_PIVOT[1] - up]) * self._scale
        reach_px = 1.06 * self._scale * self.signer.head_size * np.array([HEAD_BOX[0], HEAD_BOX[1] + HEAD_BOX[2]])
        limit = np.array([self.signer.width_px, self.signer.height_px])
        left, top = np.clip(pivot_out - reach_px * [1.0, 0.60], 0, limit).astype(int)
        right_px, bottom = np.clip(pivot_out + reach_px * [1.0, 0.52], 0, limit).astype(int)
        matrix = np.column_stack([turn, pivot_out - [left, top] - turn @ pivot_in])
        head = cv2.warpAffine(face, matrix, (right_px - left, bottom - top), flags=cv2.INTER_LINEAR)
        part = picture[top:bottom, left:right_px]
        _lay_over(part, cv2.bitwise_not(cv2.extractChannel(head, 3)), cv2.cvtColor(head, cv2.COLOR_RGBA2RGB))

    def _add_arm(self, shoulder: Floats, elbow: Floats, wrist: Floats) -> None:
        """Sleeve and bare skin; thicknesses in shoulder widths."""
        (s, at_s), (e, at_e), (w, at_w) = (self.project(p) for p in (shoulder, elbow, wrist))
        cone, cloth, skin = self._layer.cone, CLOTH, SKIN
        if self.signer.sleeve == "long":
            cuff, at_cuff = self.project(elbow + 0.96 * (wrist - elbow))
            cone(s, e, 0.112 * at_s, 0.096 * at_e, base=cloth[0], span=cloth[1])
            cone(e, cuff, 0.096 * at_e, 0.068 * at_cuff, base=cloth[0], span=cloth[1])
            cone(cuff, w, 0.052 * at_cuff, 0.052 * at_w, base=skin[0], span=skin[1])
        else:
            hem, at_hem = self.project(shoulder + 0.58 * (elbow - shoulder))
            cone(s, hem, 0.112 * at_s, 0.110 * at_hem, base=cloth[0], span=cloth[1])
            cone(hem, hem, 0.112 * at_hem, 0.112 * at_hem, base=cloth[0], span=cloth[1])  # else skin peeps through
            cone(hem, e, 0.090 * at_hem, 0.082 * at_e, base=skin[0], span=skin[1])
            cone(e, w, 0.083 * at_e, 0.057 * at_w, base=skin[0], span=skin[1])

    def _add_hand(self, joints: Floats, *, right: bool) -> None:
        length = self.signer.hand_length
        along = joints[9] - joints[0]
        across = joints[5] - joints[17]  # towards the thumb
        normal = np.cross(across, along) if right else np.cross(along, across)  # out of the palm
        normal /= np.linalg.norm(normal)
        _, scale = self.project(joints[9])
        unit = length * scale
        points = [self.project(joint)[0] for joint in joints]
        shows_palm = bool(normal[2] > 0)
        base, span = PALM if shows_palm else SKIN
        cone = self._layer.cone

        # Wide cones set back by a part of their radius overlap into one flat palm instead of four ridges.
        back = [self.project(joint - 0.035 * length * normal)[0] for joint in joints[[0, 5, 9, 13, 17]]]
        for knuckle, share, width in ((1, 0.13, 0.095), (2, 0.03, 0.105), (3, -0.06, 0.105), (4, -0.14, 0.090)):
            foot = self.project(joints[0] + share * across + 0.08 * along - 0.02 * length * normal)[0]
            inner = tuple(0.94 * p + 0.06 * q for p, q in zip(back[knuckle], back[0], strict=True))
            cone(foot, (inner[0], inner[1], inner[2]), 0.105 * unit, width * unit, base=base, span=span)
        cone(points[0], self.project(joints[0] + 0.15 * along)[0], 0.10 * unit, 0.11 * unit, base=base, span=span)
        # The ball of the thumb, and the web of skin that joins thumb and palm.
        cone(points[1], points[2], 0.100 * unit, 0.076 * unit, base=base, span=span)
        web = self.project(0.40 * joints[1] + 0.30 * joints[2] + 0.30 * joints[5])[0]
        cone(points[1], web, 0.08 * unit, 0.060 * unit, base=base, span=span)
        if shows_palm and normal[2] > 0.45:
            self._palm_lines(joints, length)

        for first, thickness in THICKNESS.items():
            self._add_finger(points[first : first + 4], joints[first : first + 4], FINGER_RADII, thickness * unit, normal, along)
        self._add_finger(points[1:5], joints[1:5], THUMB_RADII, unit, normal, along)

    def _add_finger(
        self, points: list[Point], joints: Floats, radii: tuple[float, ...], unit: float, normal: Floats, along: Floats
    ) -> None:
        for k in range(3):
            bone = joints[k + 1] - joints[k]
            # The soft side of a bent finger turns with it.
            soft = normal[2] * float(bone @ along) - along[2] * float(bone @ normal)
            base, span = PALM if soft > 0 else SKIN
            self._layer.cone(points[k], points[k + 1], radii[k] * unit, radii[k + 1] * unit, base=base, span=span)
            if k == 2 and soft < 0:
                self._add_nail(points[2], points[3], radii[3] * unit)

    def _add_nail(self, before: Point, tip: Point, radius: float) -> None:
        out = tuple(b + 0.62 * (t - b) for b, t in zip(before, tip, strict=True))
        end = tuple(b + 1.12 * (t - b) for b, t in zip(before, tip, strict=True))
        lift = 0.62 * radius
        self._layer.cone(
            (out[0], out[1], out[2] + lift), (end[0], end[1], end[2] + lift), 0.58 * radius, 0.58 * radius,
            base=NAIL[0], span=NAIL[1],
        )  # fmt: skip

    def _palm_lines(self, joints: Floats, length: float) -> None:
        f = joints[9] - joints[0]
        f = f / np.linalg.norm(f)
        t = joints[5] - joints[17]
        t = t - (t @ f) * f
        t = t / np.linalg.norm(t)
        for line in PALM_LINES:
            path = [self.project(joints[0] + length * (a * t + b * f))[0][:2] for a, b in line]
            fixed = np.round(np.array(path) * 16).astype(np.int32)
            cv2.polylines(self._layer.tone, [fixed], False, (PALM[0] + 38,), 2, cv2.LINE_8, 4)

    def _add_layer(self, picture: Frame) -> None:
        """Lay arms and hands over the picture: a shadow on what is behind, dark seams where one part covers another."""
        rows = np.flatnonzero(self._layer.tone.any(axis=1))
        columns = np.flatnonzero(self._layer.tone.any(axis=0))
        if len(rows) == 0:
            return
        n = SUPERSAMPLING
        top, bottom = max(rows[0] // n - 12, 0), min(rows[-1] // n + 16, picture.shape[0])
        left, right = max(columns[0] // n - 12, 0), min(columns[-1] // n + 16, picture.shape[1])
        tone = self._layer.tone[n * top : n * bottom, n * left : n * right]
        depth = self._layer.depth[n * top : n * bottom : n, n * left : n * right : n]
        size = (right - left, bottom - top)
        colour = cv2.resize(cv2.applyColorMap(tone, self._colours), size, interpolation=cv2.INTER_AREA)
        cover = cv2.resize(cv2.threshold(tone, 0, 255, cv2.THRESH_BINARY)[1], size, interpolation=cv2.INTER_AREA)

        # A sleeve grows out of the shirt: near the chest its edge fades, unless it is lifted in front of the body.
        coarse = tone[::n, ::n]
        sewn = ((coarse >= CLOTH[0]) | (coarse == 0)) & (depth < np.float32(SEWN_DEPTH * n * self._scale))
        kept = cv2.blur(np.where(sewn, self._sleeve[top:bottom, left:right], np.uint8(255)), (3, 3))
        cover = cv2.multiply(cover, kept, scale=1 / 255)
        shadow = cv2.blur(cv2.blur(cover, (11, 11)), (9, 9))
        shadow = cv2.warpAffine(shadow, SHADOW_SHIFT, size, borderMode=cv2.BORDER_REPLICATE)
        near = cv2.blur(depth, (7, 7)) - depth  # positive where the surroundings stand out
        near *= np.float32(5.6)
        seam = 255 - cv2.blur(np.clip(near, 0, 115).astype(np.uint8), (3, 3))

        unlit = cv2.multiply(cv2.bitwise_not(cover), cv2.convertScaleAbs(shadow, alpha=-SHADOW, beta=255), scale=1 / 255)
        part = picture[top:bottom, left:right]
        _lay_over(part, unlit, cv2.multiply(colour, _three(cv2.multiply(seam, kept, scale=1 / 255)), scale=1 / 255))


def _three(grey: MatLike) -> MatLike:
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)


def _lay_over(part: Frame, keep: MatLike, colour: MatLike) -> None:
    """In place: `part` times `keep` / 255, plus `colour` that is already multiplied by its opacity."""
    cv2.add(cv2.multiply(part, _three(keep), scale=1 / 255), colour, dst=part)


@lru_cache(maxsize=4)
def renderer(signer: Signer) -> Renderer:
    """The renderer of a signer; the last few are kept, since painting one costs as much as ten frames."""
    return Renderer(signer)


def _colour_table(signer: Signer) -> NDArray[np.uint8]:
    """(256, 1, 3): the colour of each tone, from shade to light; shadows of skin are warmer than its lights."""
    table = np.zeros((256, 3))
    dark_share = 0.55 if sum(signer.skin) < 330 else 0.25  # palms are lighter than the back of dark hands
    palm = tinted(signer.skin, 1.0, (236, 186, 160), dark_share)
    _ramp(table, SKIN, tinted(signer.skin, 0.46, (150, 50, 30), 0.10), tinted(signer.skin, 1.10))
    _ramp(table, PALM, tinted(_whole(palm), 0.46, (150, 40, 30), 0.12), tinted(_whole(palm), 1.10))
    _ramp(table, CLOTH, tinted(signer.shirt, 0.40), tinted(signer.shirt, 1.14))
    _ramp(table, NAIL, tinted(signer.skin, 0.8, (240, 170, 160), 0.3), tinted(signer.skin, 1.0, (255, 226, 216), 0.6))
    table[0] = 0
    return np.clip(table + 0.5, 0, 255).astype(np.uint8)[:, None]


def _ramp(table: Floats, tones: tuple[int, int], dark: tuple[float, float, float], light: tuple[float, float, float]) -> None:
    base, span = tones
    share = np.linspace(0, 1, span + 1)[:, None]
    table[base : base + span + 1] = (1 - share) * np.array(dark) + share * np.array(light)


def _whole(colour: tuple[float, float, float]) -> Rgb:
    return round(colour[0]), round(colour[1]), round(colour[2])
