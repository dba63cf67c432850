"""How the camera was held: a film's display matrix, and its pictures turned and mirrored upright."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Orientation:
    """A picture is transposed first, then mirrored left to right, then top to bottom."""

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False

    def upright(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, ...) as it is to be seen: (H, W, ...) or, transposed, (W, H, ...), contiguous."""
        if self == UPRIGHT:
            return picture
        if self.transposed:
            picture = picture.swapaxes(0, 1)
        rows, columns = -1 if self.flipped else 1, -1 if self.mirrored else 1
        return np.ascontiguousarray(picture[::rows, ::columns])


UPRIGHT = Orientation()


def parse_display_matrix(data: bytes | None) -> Orientation:
    """Of nine int32 a b u c d v x y w (ISO/IEC 14496-12, 8.5.2): the point (x, y) is shown at (a x + c y, b x + d y).

    ``data`` is FFmpeg's AV_FRAME_DATA_DISPLAYMATRIX, in the machine's byte order; None is upright. Turns by other
    than quarters count as the nearest.
    """
    if data is None or len(data) < 36:
        return UPRIGHT
    a, b, _, c, d = struct.unpack("=5i", data[:20])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)
