"""SIMD registers out of flat images and into them; for compiled loops, as registers.py has it.

Images are flat arrays: float32, or float16 seen as uint16, for numba knows no float16 on CPUs.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from blursynth.walk.registers import EIGHT, FLOAT, HALF, WHOLE, Lanes, intrinsic, shuffled

_STORED = {types.float32: FLOAT, types.int32: WHOLE, types.uint32: WHOLE, types.uint16: HALF}
"""An array's numbers, and what they hold."""


def _place(context: Any, builder: Any, signature: Any, values: Any, count: int) -> tuple[Any, int]:
    """A pointer to `count` numbers of the array values[0] from values[1] on, and their alignment."""
    array = context.make_array(signature.args[0])(context, builder, values[0])
    element = _STORED[signature.args[0].dtype]
    at = builder.gep(array.data, [values[1]])
    return builder.bitcast(at, ir.VectorType(element, count).as_pointer()), 2 if element is HALF else 4


def _load(count: int) -> Any:
    def typed(typing, image, at):
        def code(context, builder, signature, values):
            pointer, align = _place(context, builder, signature, values, count)
            v = builder.load(pointer, align=align)
            return builder.fpext(v, ir.VectorType(FLOAT, count)) if align == 2 else v

        return Lanes(count)(image, types.uintp), code

    return intrinsic(typed)


def _store(count: int) -> Any:
    def typed(typing, image, at, v):
        def code(context, builder, signature, values):
            pointer, align = _place(context, builder, signature, values, count)
            v = values[2]
            builder.store(builder.fptrunc(v, pointer.type.pointee) if align == 2 else v, pointer, align=align)
            return context.get_dummy_value()

        return types.void(image, types.uintp, v), code

    return intrinsic(typed)


load4, load8 = _load(4), _load(8)
"""The numbers of a flat image from an index on."""
store4, store8 = _store(4), _store(8)
"""(image, index, register): writes the numbers there; to float16, rounded to nearest."""


def _rows(context: Any, builder: Any, signature: Any, values: Any) -> list[Any]:
    """Pointers to four numbers of the array values[0] from values[1] on, and to four from values[2] on."""
    return [_place(context, builder, signature, [values[0], at], 4)[0] for at in values[1:3]]


@intrinsic
def load4by2(typing, image, at, below):
    """Four numbers of a flat float32 image from an index on, and four from another on."""

    def code(context, builder, signature, values):
        upper, lower = (builder.load(p, align=4) for p in _rows(context, builder, signature, values))
        return shuffled(builder, upper, lower, list(range(8)))

    return EIGHT(image, types.uintp, types.uintp), code


@intrinsic
def store4by2(typing, image, at, below, v):
    """Writes eight numbers there."""

    def code(context, builder, signature, values):
        for n, pointer in enumerate(_rows(context, builder, signature, values)):
            four = shuffled(builder, values[3], values[3], list(range(4 * n, 4 * n + 4)))
            builder.store(four, pointer, align=4)
        return context.get_dummy_value()

    return types.void(image, types.uintp, types.uintp, v), code


@intrinsic
def half(typing, image, at):
    """One number of a float16 image."""

    def code(context, builder, signature, values):
        array = context.make_array(signature.args[0])(context, builder, values[0])
        at = builder.bitcast(builder.gep(array.data, [values[1]]), HALF.as_pointer())
        return builder.fpext(builder.load(at, align=2), FLOAT)

    return types.float32(image, types.uintp), code
