"""SIMD registers for compiled loops: four or eight numbers at a time, as one value of a numba function.

Numba has no such type, and its compiler finds lanes only in plain loops. These functions are one or a few machine
instructions each, on any machine: LLVM's vectors. Sums and products round as float32 does, and a product that is added
(`fma`) rounds once: the same bits everywhere.

Images are flat arrays: float32, or float16 seen as uint16, for numba knows no float16 on CPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.extending import models, register_model

intrinsic: Any = extending.intrinsic
_FLOAT, _WHOLE, _HALF = ir.FloatType(), ir.IntType(32), ir.HalfType()
_UNDEFINED = ir.Undefined


class Lanes(types.Type):  # type: ignore[misc]
    """The type of a register: `count` float32, or int32 where `whole`."""

    def __init__(self, count: int, whole: bool = False):
        self.count, self.whole = count, whole
        super().__init__(name=f"Lanes({'int32' if whole else 'float32'} x {count})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Lanes):
        super().__init__(manager, kind, ir.VectorType(_WHOLE if kind.whole else _FLOAT, kind.count))


FOUR, EIGHT = Lanes(4), Lanes(8)
WHOLE4, WHOLE8 = Lanes(4, whole=True), Lanes(8, whole=True)

Build = Callable[..., Any]


def _constant(element: ir.Type, values: Sequence[float]) -> ir.Constant:
    return ir.Constant(ir.VectorType(element, len(values)), [ir.Constant(element, v) for v in values])


def _shuffle(builder: Any, a: Any, b: Any, at: list[int]) -> Any:
    return builder.shuffle_vector(a, b, _constant(_WHOLE, at))


def _gathered(builder: Any, values: list[Any]) -> Any:
    v = ir.Constant(ir.VectorType(values[0].type, len(values)), _UNDEFINED)
    for n, value in enumerate(values):
        v = builder.insert_element(v, value, ir.Constant(_WHOLE, n))
    return v


def _spread(builder: Any, value: Any, count: int) -> Any:
    first = ir.Constant(ir.VectorType(value.type, count), _UNDEFINED)
    first = builder.insert_element(first, value, ir.Constant(_WHOLE, 0))
    return _shuffle(builder, first, first, [0] * count)


def _simple(result: Any, build: Build) -> tuple[Any, Any]:
    """What an intrinsic gives back to numba: its signature, and its code out of (builder, *values)."""
    return result, lambda context, builder, signature, values: build(builder, *values)


@intrinsic
def four(typing, a, b, c, d):
    """Four numbers in a register."""
    f = types.float32
    return _simple(FOUR(f, f, f, f), lambda builder, *v: _gathered(builder, list(v)))


@intrinsic
def parts(typing, v):
    """The four numbers of a register."""

    def build(builder, v):
        out = ir.Constant(ir.ArrayType(_FLOAT, 4), _UNDEFINED)
        for n in range(4):
            out = builder.insert_value(out, builder.extract_element(v, ir.Constant(_WHOLE, n)), n)
        return out

    return _simple(types.UniTuple(types.float32, 4)(FOUR), build)


@intrinsic
def all4(typing, a):
    """Four times the same number."""
    return _simple(FOUR(types.float32), lambda builder, a: _spread(builder, a, 4))


@intrinsic
def all8(typing, a):
    """Eight times the same number."""
    return _simple(EIGHT(types.float32), lambda builder, a: _spread(builder, a, 8))


@intrinsic
def whole8(typing, a):
    """Eight times the same whole number."""
    return _simple(WHOLE8(types.int32), lambda builder, a: _spread(builder, a, 8))


@intrinsic
def whole2by2(typing, a, b):
    """The whole numbers a, b, a, b."""
    return _simple(WHOLE4(types.int32, types.int32), lambda builder, a, b: _gathered(builder, [a, b, a, b]))


@intrinsic
def halves(typing, a, b):
    """Four times a, four times b."""

    def build(builder, a, b):
        return _shuffle(builder, _spread(builder, a, 8), _spread(builder, b, 8), [0] * 4 + [8] * 4)

    return _simple(EIGHT(types.float32, types.float32), build)


@intrinsic
def zeros8(typing):
    """Eight zeros."""
    return _simple(EIGHT(), lambda builder: _constant(_FLOAT, [0.0] * 8))


@intrinsic
def count8(typing):
    """0 to 7."""
    return _simple(EIGHT(), lambda builder: _constant(_FLOAT, [float(n) for n in range(8)]))


@intrinsic
def add(typing, a, b):
    """a + b"""
    return _simple(a(a, b), lambda builder, a, b: builder.fadd(a, b))


@intrinsic
def sub(typing, a, b):
    """a - b"""
    return _simple(a(a, b), lambda builder, a, b: builder.fsub(a, b))


@intrinsic
def mul(typing, a, b):
    """a * b"""
    return _simple(a(a, b), lambda builder, a, b: builder.fmul(a, b))


@intrinsic
def over(typing, a, b):
    """a / b"""
    return _simple(a(a, b), lambda builder, a, b: builder.fdiv(a, b))


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
    return _simple(a(a, b, c), _named("fma", 3))


@intrinsic
def root(typing, v):
    """Square roots."""
    return _simple(v(v), _named("sqrt", 1))


@intrinsic
def larger(typing, a, b):
    """The larger of each two numbers."""
    return _simple(a(a, b), lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))


@intrinsic
def largest(typing, v):
    """The largest of eight numbers."""

    def build(builder, v):
        for step in (4, 2, 1):
            other = _shuffle(builder, v, v, [n ^ step for n in range(8)])
            v = builder.select(builder.fcmp_ordered(">", v, other), v, other)
        return builder.extract_element(v, ir.Constant(_WHOLE, 0))

    return _simple(types.float32(EIGHT), build)


@intrinsic
def sum8(typing, v):
    """The sum of eight numbers."""

    def build(builder, v):
        for step in (4, 2, 1):
            v = builder.fadd(v, _shuffle(builder, v, v, [n ^ step for n in range(8)]))
        return builder.extract_element(v, ir.Constant(_WHOLE, 0))

    return _simple(types.float32(EIGHT), build)


@intrinsic
def sums(typing, a, b, c, d):
    """The sums of four registers of eight, in one of four."""

    def build(builder, a, b, c, d):
        def neighbours(a, b, count):
            return builder.fadd(*(_shuffle(builder, a, b, list(range(n, count, 2))) for n in (0, 1)))

        v = neighbours(neighbours(a, b, 16), neighbours(c, d, 16), 16)
        return neighbours(v, v, 8)

    return _simple(FOUR(EIGHT, EIGHT, EIGHT, EIGHT), build)


def _every_second(first: int) -> Any:
    def typed(typing, a, b):
        at = list(range(first, 16, 2))
        return _simple(EIGHT(EIGHT, EIGHT), lambda builder, a, b: _shuffle(builder, a, b, at))

    return intrinsic(typed)


evens, odds = _every_second(0), _every_second(1)
"""Of sixteen numbers a, b: the first, third and so on; the second, fourth and so on."""


def _woven(first: int) -> Any:
    def typed(typing, a, b):
        at = [n + c for n in range(first, first + 4) for c in (0, 8)]
        return _simple(EIGHT(EIGHT, EIGHT), lambda builder, a, b: _shuffle(builder, a, b, at))

    return intrinsic(typed)


woven_low, woven_high = _woven(0), _woven(4)
"""Numbers of a and b in turn: of the first four of each, of the last four. `evens` and `odds` take them apart."""


@intrinsic
def clamp(typing, v, top):
    """v drawn into 0..top; what is no number becomes 0."""

    def build(builder, v, top):
        zero = _constant(_FLOAT, [0.0] * v.type.count)
        v = builder.select(builder.fcmp_ordered(">", v, zero), v, zero)
        return builder.select(builder.fcmp_ordered("<", v, top), v, top)

    return _simple(v(v, top), build)


@intrinsic
def whole(typing, v, most):
    """The whole part of numbers from 0 on, and not more than `most`."""

    def build(builder, v, most):
        v = builder.fptosi(v, most.type)
        return builder.select(builder.icmp_signed("<", v, most), v, most)

    return _simple(most(v, most), build)


@intrinsic
def floats(typing, v):
    """Whole numbers as float32."""
    real = EIGHT if v.count == 8 else FOUR
    return _simple(real(v), lambda builder, v: builder.sitofp(v, ir.VectorType(_FLOAT, v.type.count)))


@intrinsic
def lane_of(typing, x, y, w):
    """4 (y w + x): where in a flat image of four lanes, w wide, the pixels x, y begin."""

    def build(builder, x, y, w):
        four_each = _constant(_WHOLE, [2] * 8)
        return builder.shl(builder.add(builder.mul(y, w), x), four_each)

    return _simple(WHOLE8(WHOLE8, WHOLE8, WHOLE8), build)


def _pixel(n: int) -> Any:
    def typed(typing, v, w):
        def build(builder, v, w):
            x, y = (
                builder.zext(builder.extract_element(v, ir.Constant(_WHOLE, n + c)), w.type) for c in range(2)
            )
            return builder.add(builder.mul(y, w), x)

        return _simple(types.uintp(WHOLE4, types.uintp), build)

    return intrinsic(typed)


first_pixel, second_pixel = _pixel(0), _pixel(2)
"""Of whole numbers x, y, x', y' and a width w: y w + x, and y' w + x'."""


def _spread_of(n: int, count: int) -> Any:
    def typed(typing, v):
        return _simple(Lanes(count)(FOUR), lambda builder, v: _shuffle(builder, v, v, [n] * count))

    return intrinsic(typed)


second8, fourth8 = _spread_of(1, 8), _spread_of(3, 8)
"""Eight times the second or the fourth number of four."""
second4, fourth4 = _spread_of(1, 4), _spread_of(3, 4)
"""The same, four times."""


def _halves_of(n: int, count: int) -> Any:
    def typed(typing, a, b):
        at = [n] * (count // 2) + [n + 4] * (count // 2)
        return _simple(Lanes(count)(FOUR, FOUR), lambda builder, a, b: _shuffle(builder, a, b, at))

    return intrinsic(typed)


first_halves8, third_halves8 = _halves_of(0, 8), _halves_of(2, 8)
"""Of two registers of four: four times a's first (third) number, four times b's."""
first_halves4, third_halves4 = _halves_of(0, 4), _halves_of(2, 4)
"""The same, twice each."""


@intrinsic
def fold(typing, v):
    """The sum of the first four and the last four of eight numbers."""

    def build(builder, v):
        return builder.fadd(_shuffle(builder, v, v, [0, 1, 2, 3]), _shuffle(builder, v, v, [4, 5, 6, 7]))

    return _simple(FOUR(EIGHT), build)


@intrinsic
def widened(typing, v):
    """Four numbers, and four zeros behind them."""
    zeros = _constant(_FLOAT, [0.0] * 4)
    return _simple(EIGHT(FOUR), lambda builder, v: _shuffle(builder, v, zeros, list(range(8))))


@intrinsic
def fold_both(typing, a, b):
    """Of registers of two by two numbers: a's sums, then b's."""

    def build(builder, a, b):
        return builder.fadd(_shuffle(builder, a, b, [0, 1, 4, 5]), _shuffle(builder, a, b, [2, 3, 6, 7]))

    return _simple(FOUR(FOUR, FOUR), build)


_STORED = {types.float32: _FLOAT, types.int32: _WHOLE, types.uint32: _WHOLE, types.uint16: _HALF}
"""An array's numbers, and what they hold."""


def _place(context: Any, builder: Any, signature: Any, values: Any, count: int) -> tuple[Any, int]:
    """A pointer to `count` numbers of the array values[0] from values[1] on, and their alignment."""
    array = context.make_array(signature.args[0])(context, builder, values[0])
    element = _STORED[signature.args[0].dtype]
    at = builder.gep(array.data, [values[1]])
    return builder.bitcast(at, ir.VectorType(element, count).as_pointer()), 2 if element is _HALF else 4


def _load(count: int) -> Any:
    def typed(typing, image, at):
        def code(context, builder, signature, values):
            pointer, align = _place(context, builder, signature, values, count)
            v = builder.load(pointer, align=align)
            return builder.fpext(v, ir.VectorType(_FLOAT, count)) if align == 2 else v

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
        return _shuffle(builder, upper, lower, list(range(8)))

    return EIGHT(image, types.uintp, types.uintp), code


@intrinsic
def store4by2(typing, image, at, below, v):
    """Writes eight numbers there."""

    def code(context, builder, signature, values):
        for n, pointer in enumerate(_rows(context, builder, signature, values)):
            four = _shuffle(builder, values[3], values[3], list(range(4 * n, 4 * n + 4)))
            builder.store(four, pointer, align=4)
        return context.get_dummy_value()

    return types.void(image, types.uintp, types.uintp, v), code


@intrinsic
def half(typing, image, at):
    """One number of a float16 image."""

    def code(context, builder, signature, values):
        array = context.make_array(signature.args[0])(context, builder, values[0])
        at = builder.bitcast(builder.gep(array.data, [values[1]]), _HALF.as_pointer())
        return builder.fpext(builder.load(at, align=2), _FLOAT)

    return types.float32(image, types.uintp), code
