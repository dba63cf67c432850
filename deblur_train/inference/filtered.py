"""Dense convolutions by Winograd's minimal filtering, for inference on CPUs: 16 products where there were 36.

Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks": blocks of 2x2 pixels of a 3x3 convolution, or of 3x3
pixels of a 2x2 one, are sums of an area's 16 combinations, each times one matrix. As exact as the convolution, to rounding.
Strips of blocks stay in the caches. numba is imported with this module, and this module by the first network that needs it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic as untyped_intrinsic
from numba.extending import models, register_model
from torch import Tensor

from blursynth.common.compiled import beside_others
from deblur_train.inference.fused import Conv, as_map, pixels

N = 4  # pixels of an area, a side
STRIP = 1 << 20  # bytes of a strip's combinations
WIDE = 8  # channels of a vector
VECTOR = ir.VectorType(ir.FloatType(), WIDE)
intrinsic: Any = untyped_intrinsic


class Vector(types.Type):  # type: ignore[misc]
    """The type of eight float32."""

    def __init__(self) -> None:
        super().__init__(name="EightFloats")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, VECTOR)


EIGHT = Vector()


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """Where eight elements of a flat float32 array lie."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), VECTOR.as_pointer())


@intrinsic
def _load(context: Any, array: Any, index: Any) -> Any:
    """Elements ``index`` to ``index + 7`` of a flat float32 array."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_place(context, builder, signature.args[0], *args), align=4)

    return EIGHT(array, types.intp), code


@intrinsic
def _store(context: Any, array: Any, index: Any, value: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _place(context, builder, signature.args[0], *args[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, EIGHT), code


@intrinsic
def _plus(context: Any, a: Any, b: Any) -> Any:
    return EIGHT(EIGHT, EIGHT), lambda context, builder, signature, args: builder.fadd(*args)


@intrinsic
def _minus(context: Any, a: Any, b: Any) -> Any:
    return EIGHT(EIGHT, EIGHT), lambda context, builder, signature, args: builder.fsub(*args)


@intrinsic
def _positive(context: Any, a: Any) -> Any:
    """The values below 0 become 0; NaN stays."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = ir.Constant(VECTOR, [0.0] * WIDE)
        return builder.select(builder.fcmp_ordered("<", args[0], zero), zero, args[0])

    return EIGHT(EIGHT), code


@beside_others
def _combine(x, width, c, pad, block, wide, first, count, data):
    """The 16 combinations of ``count`` areas of ``x``, ``(height, width, c)`` flat: ``(16, count, c)`` flat.

    Areas are numbered row by row, ``wide`` a row; the very first begins ``pad`` pixels above and left of ``x``, and outside
    there are zeros.
    """
    height, plane = len(x) // (width * c), count * c
    edge = np.zeros(N * N * c, np.float32)
    for n in range(count):
        y, left = (first + n) // wide * block - pad, (first + n) % wide * block - pad
        source, at, row = x, (y * width + left) * c, width * c
        if y < 0 or left < 0 or y + N > height or left + N > width:
            for q in range(N * N):
                inside = 0 <= y + q // N < height and 0 <= left + q % N < width
                for k in range(c):
                    edge[q * c + k] = x[((y + q // N) * width + left + q % N) * c + k] if inside else 0
            source, at, row = edge, 0, N * c
        to = n * c
        for k in range(0, c, WIDE):
            for r in range(N):  # lines combined down, then across
                p = at + k + (0 if r == 0 else 2 * row if r == 2 else row)
                q = at + k + (2 * row if r < 2 else row if r == 2 else 3 * row)
                if r == 1:
                    v0 = _plus(_load(source, p), _load(source, q))
                    v1 = _plus(_load(source, p + c), _load(source, q + c))
                    v2 = _plus(_load(source, p + 2 * c), _load(source, q + 2 * c))
                    v3 = _plus(_load(source, p + 3 * c), _load(source, q + 3 * c))
                else:
                    v0 = _minus(_load(source, p), _load(source, q))
                    v1 = _minus(_load(source, p + c), _load(source, q + c))
                    v2 = _minus(_load(source, p + 2 * c), _load(source, q + 2 * c))
                    v3 = _minus(_load(source, p + 3 * c), _load(source, q + 3 * c))
                o = N * r * plane + to + k
                _store(data, o, _minus(v0, v2))
                _store(data, o + plane, _plus(v1, v2))
                _store(data, o + 2 * plane, _minus(v2, v1))
                _store(data, o + 3 * plane, _minus(v1, v3))


@beside_others
def _collect(made, first, count, wide, c, block, bias, added, positive, out, lines):
    """Blocks of pixels from their 16 products, with bias, onto ``out`` where ``added``, and without what is negative where
    ``positive``; ``out``: ``(rows, wide * block, c)`` flat. lines: room for 12 vectors."""
    plane, row = count * c, wide * block * c
    for n in range(count):
        at = n * c
        to = ((first + n) // wide * block * wide + (first + n) % wide) * block * c
        for k in range(0, c, WIDE):
            for s in range(N):  # across, then down
                p = N * s * plane + at + k
                a, b, d, e = (
                    _load(made, p),
                    _load(made, p + plane),
                    _load(made, p + 2 * plane),
                    _load(made, p + 3 * plane),
                )
                both, apart = _plus(b, d), _minus(b, d)
                _store(lines, s * WIDE, _plus(a, both))
                if block == 2:
                    _store(lines, (N + s) * WIDE, _minus(apart, e))
                else:
                    _store(lines, (N + s) * WIDE, apart)
                    _store(lines, (2 * N + s) * WIDE, _minus(both, e))
            shift = _load(bias, k)
            for q in range(block):
                p = N * q * WIDE
                a, b, d, e = (
                    _load(lines, p),
                    _load(lines, p + WIDE),
                    _load(lines, p + 2 * WIDE),
                    _load(lines, p + 3 * WIDE),
                )
                a, both, apart = _plus(a, shift), _plus(b, d), _minus(b, d)
                for r in range(block):
                    if r == 0:
                        v = _plus(a, both)
                    elif r == 1:
                        v = _plus(apart, shift)
                        if block == 2:
                            v = _minus(v, e)
                    else:
                        v = _minus(_plus(both, shift), e)
                    o = to + r * row + q * c + k
                    if added:
                        v = _plus(v, _load(out, o))
                    _store(out, o, _positive(v) if positive else v)


class Filtered:
    """The same as ``conv``, dense, of stride 1 and 3x3 or 2x2 taps padded by 1, with multiples of 8 channels and no relu6; for
    ``(1, C, H, W)`` float32, channels last."""

    def __init__(self, conv: Conv) -> None:
        taps = conv.weight.shape[2]
        self.conv, self.block = conv, N + 1 - taps
        half = 0.5 * torch.ones(2, taps, dtype=torch.float64)
        half[1, 1::2] *= -1
        ends = torch.eye(taps, dtype=torch.float64)[[0, -1]]
        values = torch.stack([ends[0], half[0], half[1], ends[1]])
        weight = torch.einsum("ay,oiyx,bx->abio", values, conv.weight.double(), values)
        self.weight = weight.float().flatten(0, 1).contiguous()
        self.bias = torch.zeros(weight.shape[3]) if conv.bias is None else conv.bias

    def __call__(self, x: Tensor, padding_rows: int | None = None) -> Tensor:
        more = 2 * self.conv.padding - self.conv.weight.shape[2] + 1
        height, width = x.shape[2] + more, x.shape[3] + more
        if padding_rows not in (None, self.conv.padding):
            return self.conv(x, padding_rows)
        m = self.block
        out = torch.empty(-(-height // m) * m, -(-width // m) * m, len(self.bias))
        self._run(x, out, False)
        return as_map(out[:height, :width])

    def onto(self, into: Tensor, x: Tensor) -> Tensor:
        """``into``, which becomes act(into + conv(x)) in place."""
        whole = into.shape[2] % self.block == into.shape[3] % self.block == 0
        if not whole:
            return self.conv.onto(into, x)
        self._run(x, pixels(into), True)
        return into

    def _run(self, x: Tensor, out: Tensor, added: bool) -> None:
        m, (c, _, width) = self.block, x.shape[1:]
        high, wide = len(out) // m, out.shape[1] // m  # in blocks
        source, bias = pixels(x).contiguous().view(-1).numpy(), self.bias.numpy()
        # Large matrices are brought along for many areas.
        strip = min(high * wide, max(STRIP // (4 * N * N * (c + len(bias))), c * len(bias) // 128))
        flat, weight, positive = out.view(-1).numpy(), self.weight, self.conv.act == "relu"
        threads = torch.get_num_threads()

        def share(number: int) -> None:
            room, made_room = (torch.empty(N * N * strip * n) for n in (c, len(bias)))
            lines = np.empty(3 * N * WIDE, np.float32)
            for first in range(number * strip, high * wide, threads * strip):
                count = min(strip, high * wide - first)
                data, made = room[: N * N * count * c], made_room[: N * N * count * len(bias)]
                _combine(source, width, c, self.conv.padding, m, wide, first, count, data.numpy())
                torch.bmm(data.view(N * N, -1, c), weight, out=made.view(N * N, -1, len(bias)))
                _collect(made.numpy(), first, count, wide, len(bias), m, bias, added, positive, flat, lines)

        if threads == 1:
            share(0)
        else:
            list(_pool(threads).map(share, range(threads)))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that each compute alone. Strips are short: sharing every product would be waiting for each other."""
    begun = Barrier(threads)

    def begin() -> None:
        torch.set_num_threads(1)
        begun.wait()

    pool = ThreadPoolExecutor(threads, initializer=begin)
    list(pool.map(lambda _: None, range(threads)))
    torch.set_num_threads(threads)  # which the others' choice has changed for threads that begin later
    return pool
