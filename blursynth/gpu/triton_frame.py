"""A frame's light in Triton: a pixel's, exact, and the image to sample from; walk/frame.py's."""

from __future__ import annotations

import triton
import triton.language as tl

from blursynth.walk.frame import CENTRE, SIDE

_SIDE, _CENTRE = tl.constexpr(float(SIDE)), tl.constexpr(float(CENTRE))


@triton.jit
def light_of(codes, table, above, p, on):
    """Light of pixels p (N,), (N, 4): walk/frame.py's `light_of`."""
    c = tl.arange(0, 4)[None, :]
    at = p[:, None] * 3 + c
    rgb = on[:, None] & (c < 3)
    code = tl.load(codes + at, mask=rgb, other=0).to(tl.int32)
    light = tl.load(table + code * 4 + c, mask=rgb, other=1.0)
    if above is not None:
        light += tl.load(above + at, mask=rgb, other=0.0).to(tl.float32)
    return light


@triton.jit(do_not_specialize=["w", "h"])
def prefilter_kernel(
    out, codes, table, above, w, h, PLAIN: tl.constexpr, RESTORED: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    """walk/frame.py's `prefilter`; PLAIN: the light as it is; RESTORED: so around light above white."""
    m = tl.arange(0, COLUMNS * ROWS)
    x, y = tl.program_id(0) * COLUMNS + m % COLUMNS, tl.program_id(1) * ROWS + m // COLUMNS
    on = (x < w) & (y < h)
    x, y = tl.minimum(x, w - 1), tl.minimum(y, h - 1)
    light = light_of(codes, table, above, y * w + x, on)
    if not PLAIN:
        left, right = tl.maximum(x - 1, 0), tl.minimum(x + 1, w - 1)
        smooth = tl.zeros_like(light)
        for dy in tl.static_range(-1, 2):
            row = tl.minimum(tl.maximum(y + dy, 0), h - 1) * w
            ends = light_of(codes, table, above, row + left, on)
            ends += light_of(codes, table, above, row + right, on)
            filtered = _CENTRE * light_of(codes, table, above, row + x, on) + _SIDE * ends
            smooth += filtered * (_CENTRE if dy == 0 else _SIDE)
        if RESTORED:
            near = x < 0
            for place in range(25):
                here = tl.minimum(tl.maximum(y + place // 5 - 2, 0), h - 1) * w
                here += tl.minimum(tl.maximum(x + place % 5 - 2, 0), w - 1)
                for c in tl.static_range(3):
                    if above is not None:
                        near = near | (tl.load(above + here * 3 + c, mask=on, other=0.0) != 0)
                    else:
                        near = near | (tl.load(codes + here * 3 + c, mask=on, other=0) == 255)
            smooth = tl.where(near[:, None], light, smooth)
        light = smooth
    at = out + (y * w + x)[:, None] * 4 + tl.arange(0, 4)[None, :]
    tl.store(at, light.to(tl.float16), mask=on[:, None])
