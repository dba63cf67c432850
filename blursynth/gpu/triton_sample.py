"""Bilinear samples of the frames and the flows, in Triton: walk/sample.py's, for a program's pixels at once."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def clamp(v, last):
    """v within 0..last; 0 where it is not a number."""
    return tl.minimum(tl.where(v > 0, v, 0.0), last)


@triton.jit
def _corner(x, y, w, h):
    """Number of the upper left pixel of samples at x, y, drawn onto the picture, and how far right of it and below."""
    x, y = clamp(x, (w - 1).to(tl.float32)), clamp(y, (h - 1).to(tl.float32))
    left, top = tl.minimum(x.to(tl.int32), w - 2), tl.minimum(y.to(tl.int32), h - 2)
    return top * w + left, x - left, y - top


@triton.jit
def sample(smooth, x, y, weight, on, w, h):
    """weight (N,) * bilinear samples (N, 4) of a float16 (H * W * 4) image."""
    p, a, b = _corner(x, y, w, h)
    at = smooth + p[:, None] * 4 + tl.arange(0, 4)[None, :]
    on, b = on[:, None], b[:, None]
    left = tl.load(at, mask=on, other=0.0).to(tl.float32)
    left += b * (tl.load(at + w * 4, mask=on, other=0.0).to(tl.float32) - left)
    right = tl.load(at + 4, mask=on, other=0.0).to(tl.float32)
    right += b * (tl.load(at + 4 + w * 4, mask=on, other=0.0).to(tl.float32) - right)
    share = a * weight
    return left * (weight - share)[:, None] + right * share[:, None]


@triton.jit
def flow_at(flow, p, on):
    """x and y (N,) of a flow at pixels p."""
    return tl.split(tl.load(flow + p[:, None] * 2 + tl.arange(0, 2)[None, :], mask=on[:, None], other=0.0))


@triton.jit
def flow_between(flow, x, y, on, w, h):
    """x and y (N,) of bilinear samples of a flow."""
    p, a, b = _corner(x, y, w, h)
    at, on = flow + p[:, None] * 2 + tl.arange(0, 2)[None, :], on[:, None]
    a, b = a[:, None], b[:, None]
    left = tl.load(at, mask=on, other=0.0)
    left += b * (tl.load(at + w * 2, mask=on, other=0.0) - left)
    right = tl.load(at + 2, mask=on, other=0.0)
    right += b * (tl.load(at + 2 + w * 2, mask=on, other=0.0) - right)
    return tl.split(left + a * (right - left))
