"""Bilinear samples, compiled: of float32 images and flows one at a time, of the loop's float16 images two in one go.

Names: p, the number of a pixel; w, h: the image's width and height; a place beyond the image is drawn onto its rim.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from blursynth.common.compiled import inlined
from blursynth.walk import lanes
from blursynth.walk.lanes import U


class View(NamedTuple):
    """An image's size as registers have it: its last pixel, and the last that has a neighbour beyond it (x, y, x, y)."""

    width: np.uintp
    last: np.ndarray
    before: np.ndarray


@inlined
def view(w, h):
    """The `View` of an image."""
    x, y = np.float32(w - 1), np.float32(h - 1)
    return View(U(w), lanes.four(x, y, x, y), lanes.whole2by2(np.int32(w - 2), np.int32(h - 2)))


@inlined
def add_both(total, first, second, view, at, weight):
    """total (eight lanes, to be folded) + samples of two flat float16 (H * W * 4) images.

    at: x, y in the first, x, y in the second; weight: the first's, anything, the second's, anything.
    """
    at = lanes.clamp(at, view.last)
    corner = lanes.whole(at, view.before)
    rest = lanes.sub(at, lanes.floats(corner))
    right = lanes.mul(rest, weight)
    left = lanes.sub(weight, right)
    below = view.width * U(4)
    p = lanes.first_pixel(corner, view.width) * U(4)
    row = lanes.load8(first, p)
    row = lanes.fma(lanes.second8(rest), lanes.sub(lanes.load8(first, p + below), row), row)
    total = lanes.fma(row, lanes.first_halves8(left, right), total)
    p = lanes.second_pixel(corner, view.width) * U(4)
    row = lanes.load8(second, p)
    row = lanes.fma(lanes.fourth8(rest), lanes.sub(lanes.load8(second, p + below), row), row)
    return lanes.fma(row, lanes.third_halves8(left, right), total)


@inlined
def add_one(total, image, view, x, y, weight):
    """The same of one image."""
    zero = np.float32(0)
    at = lanes.clamp(lanes.four(x, y, zero, zero), view.last)
    corner = lanes.whole(at, view.before)
    rest = lanes.sub(at, lanes.floats(corner))
    weights = lanes.all4(weight)
    right = lanes.mul(rest, weights)
    p = lanes.first_pixel(corner, view.width) * U(4)
    row = lanes.load8(image, p)
    row = lanes.fma(lanes.second8(rest), lanes.sub(lanes.load8(image, p + view.width * U(4)), row), row)
    return lanes.fma(row, lanes.first_halves8(lanes.sub(weights, right), right), total)


@inlined
def both_flows(first, second, view, at):
    """Samples of two flat flows (H * W * 2) at x, y in the first and x, y in the second: four lanes."""
    at = lanes.clamp(at, view.last)
    corner = lanes.whole(at, view.before)
    rest = lanes.sub(at, lanes.floats(corner))
    left = lanes.sub(lanes.all4(np.float32(1)), rest)
    below = view.width * U(2)
    p = lanes.first_pixel(corner, view.width) * U(2)
    row = lanes.load4(first, p)
    a = lanes.fma(lanes.second4(rest), lanes.sub(lanes.load4(first, p + below), row), row)
    p = lanes.second_pixel(corner, view.width) * U(2)
    row = lanes.load4(second, p)
    b = lanes.fma(lanes.fourth4(rest), lanes.sub(lanes.load4(second, p + below), row), row)
    a = lanes.mul(a, lanes.first_halves4(left, rest))
    b = lanes.mul(b, lanes.third_halves4(left, rest))
    return lanes.fold_both(a, b)


@inlined
def clamped(x, y, w, h):
    """Pixel number of one sample's corner, drawn into the image, and its bilinear weights."""
    x = min(max(x, np.float32(0)), np.float32(w - 1))
    y = min(max(y, np.float32(0)), np.float32(h - 1))
    return corner(x, y, min(int(x), w - 2), min(int(y), h - 2), w)


@inlined
def corner(x, y, x0, y0, w):
    """The same of a place whose corner is known."""
    a = x - np.float32(x0)
    b = y - np.float32(y0)
    ab = a * b
    return U(y0) * U(w) + U(x0), np.float32(1) - a - b + ab, a - ab, b - ab, ab


@inlined
def blend4(im, p, w, w00, w01, w10, w11):
    """The four pixels at p, w a row, of a flat float32 (pixels * 4) image, weighed."""
    i = p * U(4)
    j = i + U(w) * U(4)
    return (
        w00 * im[i] + w01 * im[i + U(4)] + w10 * im[j] + w11 * im[j + U(4)],
        w00 * im[i + U(1)] + w01 * im[i + U(5)] + w10 * im[j + U(1)] + w11 * im[j + U(5)],
        w00 * im[i + U(2)] + w01 * im[i + U(6)] + w10 * im[j + U(2)] + w11 * im[j + U(6)],
        w00 * im[i + U(3)] + w01 * im[i + U(7)] + w10 * im[j + U(3)] + w11 * im[j + U(7)],
    )


@inlined
def sample4(im, w, h, x, y, s):
    """s * sample of a flat float32 (H * W * 4) image."""
    p, w00, w01, w10, w11 = clamped(x, y, w, h)
    w00 *= s
    w01 *= s
    w10 *= s
    w11 *= s
    return blend4(im, p, w, w00, w01, w10, w11)


@inlined
def sample2(flow, w, h, x, y):
    """Sample of a flat flow (H * W * 2)."""
    p, w00, w01, w10, w11 = clamped(x, y, w, h)
    i = p * U(2)
    j = i + U(w) * U(2)
    return (
        w00 * flow[i] + w01 * flow[i + U(2)] + w10 * flow[j] + w11 * flow[j + U(2)],
        w00 * flow[i + U(1)] + w01 * flow[i + U(3)] + w10 * flow[j + U(1)] + w11 * flow[j + U(3)],
    )
