"""Rounded cones with a depth buffer: the whole of what arms and hands are made of.

A rounded cone is what two balls of different radii sweep out. Each is rasterised inside its own bounding box, shaded by
its surface normal and kept where it is nearest to the viewer, so fingers cover each other and the palm as real ones do.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Depths = NDArray[np.float32]

FAR: Final = np.float32(-1e6)
# Light from above, left and in front. Shade = sum of these times the normal, plus what comes from everywhere.
LIGHT_X: Final = -0.16
LIGHT_Y: Final = -0.20  # picture rows grow downwards
LIGHT_Z: Final = 0.62
AMBIENT: Final = 0.16

# x and y in pixels, depth towards the viewer in pixels. Python's floats: numpy's would turn the pictures to 64 bits.
Point = tuple[float, float, float]


class SolidLayer:
    """A picture of tones, uint8 (H, W), 0 where nothing is, and the depths behind it."""

    def __init__(self, width_px: int, height_px: int) -> None:
        self.tone: Image = np.zeros((height_px, width_px), np.uint8)
        self.depth: Depths = np.full((height_px, width_px), FAR, np.float32)
        self._columns = np.arange(width_px, dtype=np.float32)
        self._rows = np.arange(height_px, dtype=np.float32)[:, None]

    def clear(self) -> None:
        self.tone.fill(0)
        self.depth.fill(FAR)

    def cone(self, a: Point, b: Point, radius_a: float, radius_b: float, *, base: int, span: int) -> None:
        """Draw the cone from ball `a` to ball `b`; tones run from `base` in the shade to `base + span` in the light."""
        height_px, width_px = self.tone.shape
        left = max(int(min(a[0] - radius_a, b[0] - radius_b)), 0)
        right = min(int(max(a[0] + radius_a, b[0] + radius_b)) + 2, width_px)
        top = max(int(min(a[1] - radius_a, b[1] - radius_b)), 0)
        bottom = min(int(max(a[1] + radius_a, b[1] + radius_b)) + 2, height_px)
        if left >= right or top >= bottom:
            return
        x = self._columns[left:right] - a[0]
        y = self._rows[top:bottom] - a[1]
        along_x, along_y = b[0] - a[0], b[1] - a[1]
        # Where on the axis (0 at a, 1 at b) the point nearest to each pixel lies.
        inverse = 1.0 / max(along_x * along_x + along_y * along_y, 1e-3)
        share = x * (along_x * inverse) + y * (along_y * inverse)
        np.maximum(share, 0.0, out=share)
        np.minimum(share, 1.0, out=share)
        dx = x - share * along_x
        dy = y - share * along_y
        radius = share * (radius_b - radius_a)
        radius += radius_a
        bulge = radius * radius
        bulge -= dx * dx
        bulge -= dy * dy
        inside = bulge > 0
        np.maximum(bulge, 0.0, out=bulge)
        np.sqrt(bulge, out=bulge)  # how far the surface stands out from the axis
        share *= b[2] - a[2]
        share += bulge
        share += a[2]
        depth = self.depth[top:bottom, left:right]
        inside &= share > depth
        np.copyto(depth, share, where=inside)
        bulge *= LIGHT_Z * span
        dx *= LIGHT_X * span
        bulge += dx
        dy *= LIGHT_Y * span
        bulge += dy
        bulge /= radius
        bulge += base + AMBIENT * span
        np.maximum(bulge, base, out=bulge)
        np.copyto(self.tone[top:bottom, left:right], bulge, where=inside, casting="unsafe")
