"""SIMD registers for compiled loops: four or eight numbers at a time, as one value of a numba function.

Numba has no such type, and its compiler finds lanes only in plain loops. These functions are one or a few machine
instructions each, on any machine: LLVM's vectors. Sums and products round as float32 does, and a product that is added
(`fma`) rounds once: the same bits everywhere.

This module has the type, what makes its values and what each number does alone; shuffles.py moves numbers between places,
loads.py between registers and images. lanes.py is where loops find them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.extending import models, register_model

intrinsic: Any = extending.intrinsic
FLOAT, WHOLE, HALF = ir.FloatType(), ir.IntType(32), ir.HalfType()
_UNDEFINED = ir.Undefined


class Lanes(types.Type):  # type: ignore[misc]
    """The type of a register: `count` float32, or int32 where `whole`."""

    def __init__(self, count: int, whole: bool = False):
        self.count, self.whole = count, whole
        super().__init__(name=f"Lanes({'int32' if whole else 'float32'} x {count})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Lanes):
        super().__init__(manager, kind, ir.VectorType(WHOLE if kind.whole else FLOAT, kind.count))


FOUR, EIGHT = Lanes(4), Lanes(8)
WHOLE4, WHOLE8 = Lanes(4, whole=True), Lanes(8, whole=True)

Build = Callable[..., Any]


def constant(element: ir.Type, values: Sequence[float]) -> ir.Constant:
    """A vector of LLVM's, known when the code is built."""
    return ir.Constant(ir.VectorType(element, len(values)), [ir.Constant(element, v) for v in values])


def shuffled(builder: Any, a: Any, b: Any, at: list[int]) -> Any:
    """The numbers at these places of a, b in a row."""
    return builder.shuffle_vector(a, b, constant(WHOLE, at))


def _gathered(builder: Any, values: list[Any]) -> Any:
    v = ir.Constant(ir.VectorType(values[0].type, len(values)), _UNDEFINED)
    for n, value in enumerate(values):
        v = builder.insert_element(v, value, ir.Constant(WHOLE, n))
    return v


def _spread(builder: Any, value: Any, count: int) -> Any:
    first = ir.Constant(ir.VectorType(value.type, count), _UNDEFINED)
    first = builder.insert_element(first, value, ir.Constant(WHOLE, 0))
    return shuffled(builder, first, first, [0] * count)


def simple(result: Any, build: Build) -> tuple[Any, Any]:
    """What an intrinsic gives back to numba: its signature, and its code out of (builder, *values)."""
    return result, lambda context, builder, signature, values: build(builder, *values)


@intrinsic
def four(typing, a, b, c, d):
    """Four numbers in a register."""
    f = types.float32
    return simple(FOUR(f, f, f, f), lambda builder, *v: _gathered(builder, list(v)))


@intrinsic
def parts(typing, v):
    """The four numbers of a register."""

    def build(builder, v):
        out = ir.Constant(ir.ArrayType(FLOAT, 4), _UNDEFINED)
        for n in range(4):
            out = builder.insert_value(out, builder.extract_element(v, ir.Constant(WHOLE, n)), n)
        return out

    return simple(types.UniTuple(types.float32, 4)(FOUR), build)


@intrinsic
def all4(typing, a):
    """Four times the same number."""
    return simple(FOUR(types.float32), lambda builder, a: _spread(builder, a, 4))


@intrinsic
def all8(typing, a):
    """Eight times the same number."""
    return simple(EIGHT(types.float32), lambda builder, a: _spread(builder, a, 8))


@intrinsic
def whole8(typing, a):
    """Eight times the same whole number."""
    return simple(WHOLE8(types.int32), lambda builder, a: _spread(builder, a, 8))


@intrinsic
def whole2by2(typing, a, b):
    """The whole numbers a, b, a, b."""
    return simple(WHOLE4(types.int32, types.int32), lambda builder, a, b: _gathered(builder, [a, b, a, b]))


@intrinsic
def halves(typing, a, b):
    """Four times a, four times b."""

    def build(builder, a, b):
        return shuffled(builder, _spread(builder, a, 8), _spread(builder, b, 8), [0] * 4 + [8] * 4)

    return simple(EIGHT(types.float32, types.float32), build)


@intrinsic
def zeros8(typing):
    """Eight zeros."""
    return simple(EIGHT(), lambda builder: constant(FLOAT, [0.0] * 8))


@intrinsic
def count8(typing):
    """0 to 7."""
    return simple(EIGHT(), lambda builder: constant(FLOAT, [float(n) for n in range(8)]))


@intrinsic
def add(typing, a, b):
    """a + b"""
    return simple(a(a, b), lambda builder, a, b: builder.fadd(a, b))


@intrinsic
def sub(typing, a, b):
    """a - b"""
    return simple(a(a, b), lambda builder, a, b: builder.fsub(a, b))


@intrinsic
def mul(typing, a, b):
    """a * b"""
    return simple(a(a, b), lambda builder, a, b: builder.fmul(a, b))


@intrinsic
def over(typing, a, b):
    """a / b"""
    return simple(a(a, b), lambda builder, a, b: builder.fdiv(a, b))


def _named(name: str, parameters: int) -> Any:
    """An intrinsic of LLVM's by its name, of registers of float32."""

    def build(builder, *v):
        kind = ir.FunctionType(v[0].type, [v[0].type] * parameters)
        whole_name = f"llvm.{name}.v{v[0].type.count}f32"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, whole_name), v)

    return build


@intrinsic
def fma(typing, a, b, c):
    """a * b + c, rounded once."""
    return simple(a(a, b, c), _named("fma", 3))


@intrinsic
def root(typing, v):
    """Square roots."""
    return simple(v(v), _named("sqrt", 1))


@intrinsic
def larger(typing, a, b):
    """The larger of each two numbers."""
    return simple(a(a, b), lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))


@intrinsic
def clamp(typing, v, top):
    """v drawn into 0..top; what is no number becomes 0."""

    def build(builder, v, top):
        zero = constant(FLOAT, [0.0] * v.type.count)
        v = builder.select(builder.fcmp_ordered(">", v, zero), v, zero)
        return builder.select(builder.fcmp_ordered("<", v, top), v, top)

    return simple(v(v, top), build)


@intrinsic
def whole(typing, v, most):
    """The whole part of numbers from 0 on, and not more than `most`."""

    def build(builder, v, most):
        v = builder.fptosi(v, most.type)
        return builder.select(builder.icmp_signed("<", v, most), v, most)

    return simple(most(v, most), build)


@intrinsic
def floats(typing, v):
    """Whole numbers as float32."""
    real = EIGHT if v.count == 8 else FOUR
    return simple(real(v), lambda builder, v: builder.sitofp(v, ir.VectorType(FLOAT, v.type.count)))


@intrinsic
def lane_of(typing, x, y, w):
    """4 (y w + x): where in a flat image of four lanes, w wide, the pixels x, y begin."""

    def build(builder, x, y, w):
        four_each = constant(WHOLE, [2] * 8)
        return builder.shl(builder.add(builder.mul(y, w), x), four_each)

    return simple(WHOLE8(WHOLE8, WHOLE8, WHOLE8), build)


def _pixel(n: int) -> Any:
    def typed(typing, v, w):
        def build(builder, v, w):
            x, y = (
                builder.zext(builder.extract_element(v, ir.Constant(WHOLE, n + c)), w.type) for c in range(2)
            )
            return builder.add(builder.mul(y, w), x)

        return simple(types.uintp(WHOLE4, types.uintp), build)

    return intrinsic(typed)


first_pixel, second_pixel = _pixel(0), _pixel(2)
"""Of whole numbers x, y, x', y' and a width w: y w + x, and y' w + x'."""
