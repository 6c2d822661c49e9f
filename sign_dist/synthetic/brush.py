"""Soft, smooth-edged painting of the still parts of the picture: polygons and lines on a see-through sheet."""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Sheet = NDArray[np.float32]  # (H, W, 4), colours already multiplied by the opacity, all in 0..255
Colour = Sequence[float]

SUBPIXEL_BITS: Final = 4


class Brush:
    """Paints in the caller's units: x to the right, y up; `scale` pixels per unit, `origin_px` where (0, 0) lies.

    Paint with a soft edge only tints what is there already, so that a shadow or a blush does not leak onto the wall.
    """

    def __init__(self, width_px: int, height_px: int, scale: float, origin_px: tuple[float, float]) -> None:
        self.sheet: Sheet = np.zeros((height_px, width_px, 4), np.float32)
        self.scale = scale
        self.origin_px = origin_px

    def copy(self) -> "Brush":
        height_px, width_px = self.sheet.shape[:2]
        other = Brush(width_px, height_px, self.scale, self.origin_px)
        other.sheet[:] = self.sheet
        return other

    def pixels(self, points: Floats | Sequence[tuple[float, float]]) -> Floats:
        return np.asarray(points, dtype=float) * [self.scale, -self.scale] + self.origin_px

    def fill(
        self, points: Floats | Sequence[tuple[float, float]], colour: Colour, *, opacity: float = 1.0, soft: float = 0.0
    ) -> None:
        """Fill a polygon; `soft` blurs its edge by that many units."""
        self._lay(self.pixels(points), None, colour, opacity, soft)

    def stroke(
        self,
        points: Floats | Sequence[tuple[float, float]],
        colour: Colour,
        width: float,
        *,
        opacity: float = 1.0,
        soft: float = 0.0,
    ) -> None:
        """Draw an open line of `width` units."""
        self._lay(self.pixels(points), max(width * self.scale, 1.0), colour, opacity, soft)

    def ellipse(
        self,
        centre: tuple[float, float],
        radii: tuple[float, float],
        colour: Colour,
        *,
        opacity: float = 1.0,
        soft: float = 0.0,
    ) -> None:
        self.fill(ring(centre, radii), colour, opacity=opacity, soft=soft)

    def mask(self, points: Floats | Sequence[tuple[float, float]]) -> NDArray[np.float32]:
        """Coverage (H, W) in 0..1 of a polygon, nothing painted."""
        covered = np.zeros(self.sheet.shape[:2], np.uint8)
        _fill(covered, self.pixels(points))
        return covered.astype(np.float32) * np.float32(1 / 255)

    def shade(self, factor: NDArray[np.float32]) -> None:
        """Multiply what is painted so far by `factor` (H, W)."""
        self.sheet[:, :, :3] = np.clip(self.sheet[:, :, :3] * factor[:, :, None], 0, 255)

    def _lay(self, points_px: Floats, width_px: float | None, colour: Colour, opacity: float, soft: float) -> None:
        blur_px = soft * self.scale
        margin = int(3 * blur_px + (width_px or 0) / 2 + 3)
        height_px, width = self.sheet.shape[:2]
        left, top = np.maximum(np.floor(points_px.min(axis=0)).astype(int) - margin, 0)
        right, bottom = np.minimum(np.ceil(points_px.max(axis=0)).astype(int) + margin, (width, height_px))
        if left >= right or top >= bottom:
            return
        covered = np.zeros((bottom - top, right - left), np.uint8)
        local = points_px - [left, top]
        if width_px is None:
            _fill(covered, local)
        else:
            fixed = np.round(local * 2**SUBPIXEL_BITS).astype(np.int32)
            cv2.polylines(covered, [fixed], False, (255,), max(round(width_px), 1), cv2.LINE_AA, SUBPIXEL_BITS)
        part = self.sheet[top:bottom, left:right]
        if blur_px > 0.4:
            blurred = cv2.GaussianBlur(covered, (0, 0), blur_px)
            alpha = (blurred.astype(np.float32) * np.float32(opacity / 255))[:, :, None]
            paint = part[:, :, 3:] * np.array([*colour, 255], np.float32) / 255
        else:
            alpha = (covered.astype(np.float32) * np.float32(opacity / 255))[:, :, None]
            paint = np.array([*colour, 255], np.float32)
        part *= 1 - alpha
        part += alpha * paint


def ring(centre: tuple[float, float], radii: tuple[float, float], start: float = 0.0, stop: float = 360.0, num: int = 48) -> Floats:
    """Points (num, 2) on an ellipse, counter-clockwise from `start` to `stop` degrees."""
    angle = np.radians(np.linspace(start, stop, num))
    return np.column_stack([centre[0] + radii[0] * np.cos(angle), centre[1] + radii[1] * np.sin(angle)])


def smooth(points: Sequence[tuple[float, float]] | Floats, rounds: int = 3) -> Floats:
    """Closed polygon with rounded corners (corner cutting, Chaikin 1974)."""
    path = np.asarray(points, dtype=float)
    for _ in range(rounds):
        after = np.roll(path, -1, axis=0)
        path = np.stack([0.75 * path + 0.25 * after, 0.25 * path + 0.75 * after], axis=1).reshape(-1, 2)
    return path


def _fill(covered: NDArray[np.uint8], points_px: Floats) -> None:
    fixed = np.round(points_px * 2**SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(covered, [fixed], (255,), cv2.LINE_AA, SUBPIXEL_BITS)
