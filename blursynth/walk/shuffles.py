"""Numbers of SIMD registers put in another order, taken apart and summed across; for compiled loops, as registers.py has it."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from blursynth.walk.registers import EIGHT, FLOAT, FOUR, WHOLE, Lanes, constant, intrinsic, shuffled, simple


@intrinsic
def largest(typing, v):
    """The largest of eight numbers."""

    def build(builder, v):
        for step in (4, 2, 1):
            other = shuffled(builder, v, v, [n ^ step for n in range(8)])
            v = builder.select(builder.fcmp_ordered(">", v, other), v, other)
        return builder.extract_element(v, ir.Constant(WHOLE, 0))

    return simple(types.float32(EIGHT), build)


@intrinsic
def sum8(typing, v):
    """The sum of eight numbers."""

    def build(builder, v):
        for step in (4, 2, 1):
            v = builder.fadd(v, shuffled(builder, v, v, [n ^ step for n in range(8)]))
        return builder.extract_element(v, ir.Constant(WHOLE, 0))

    return simple(types.float32(EIGHT), build)


@intrinsic
def sums(typing, a, b, c, d):
    """The sums of four registers of eight, in one of four."""

    def build(builder, a, b, c, d):
        def neighbours(a, b, count):
            return builder.fadd(*(shuffled(builder, a, b, list(range(n, count, 2))) for n in (0, 1)))

        v = neighbours(neighbours(a, b, 16), neighbours(c, d, 16), 16)
        return neighbours(v, v, 8)

    return simple(FOUR(EIGHT, EIGHT, EIGHT, EIGHT), build)


def _every_second(first: int) -> Any:
    def typed(typing, a, b):
        at = list(range(first, 16, 2))
        return simple(EIGHT(EIGHT, EIGHT), lambda builder, a, b: shuffled(builder, a, b, at))

    return intrinsic(typed)


evens, odds = _every_second(0), _every_second(1)
"""Of sixteen numbers a, b: the first, third and so on; the second, fourth and so on."""


def _woven(first: int) -> Any:
    def typed(typing, a, b):
        at = [n + c for n in range(first, first + 4) for c in (0, 8)]
        return simple(EIGHT(EIGHT, EIGHT), lambda builder, a, b: shuffled(builder, a, b, at))

    return intrinsic(typed)


woven_low, woven_high = _woven(0), _woven(4)
"""Numbers of a and b in turn: of the first four of each, of the last four. `evens` and `odds` take them apart."""


def _spread_of(n: int, count: int) -> Any:
    def typed(typing, v):
        return simple(Lanes(count)(FOUR), lambda builder, v: shuffled(builder, v, v, [n] * count))

    return intrinsic(typed)


second8, fourth8 = _spread_of(1, 8), _spread_of(3, 8)
"""Eight times the second or the fourth number of four."""
second4, fourth4 = _spread_of(1, 4), _spread_of(3, 4)
"""The same, four times."""


def _halves_of(n: int, count: int) -> Any:
    def typed(typing, a, b):
        at = [n] * (count // 2) + [n + 4] * (count // 2)
        return simple(Lanes(count)(FOUR, FOUR), lambda builder, a, b: shuffled(builder, a, b, at))

    return intrinsic(typed)


first_halves8, third_halves8 = _halves_of(0, 8), _halves_of(2, 8)
"""Of two registers of four: four times a's first (third) number, four times b's."""
first_halves4, third_halves4 = _halves_of(0, 4), _halves_of(2, 4)
"""The same, twice each."""


@intrinsic
def fold(typing, v):
    """The sum of the first four and the last four of eight numbers."""

    def build(builder, v):
        return builder.fadd(shuffled(builder, v, v, [0, 1, 2, 3]), shuffled(builder, v, v, [4, 5, 6, 7]))

    return simple(FOUR(EIGHT), build)


@intrinsic
def widened(typing, v):
    """Four numbers, and four zeros behind them."""
    zeros = constant(FLOAT, [0.0] * 4)
    return simple(EIGHT(FOUR), lambda builder, v: shuffled(builder, v, zeros, list(range(8))))


@intrinsic
def fold_both(typing, a, b):
    """Of registers of two by two numbers: a's sums, then b's."""

    def build(builder, a, b):
        return builder.fadd(shuffled(builder, a, b, [0, 1, 4, 5]), shuffled(builder, a, b, [2, 3, 6, 7]))

    return simple(FOUR(FOUR, FOUR), build)
