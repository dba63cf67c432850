"""The exposure of a still with layers that move of their own, composed at every instant in linear light."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from blursynth.common.compiled import compiled, inlined
from blursynth.walk.lanes import U
from blursynth.walk.sample import blend4, sample4
from blursynth.walk.sample import corner as corner_of

WALK = "6023d1089568"  # of `blursynth/walk`, whose code is compiled into this file's: test_walk.py says what to put


class Layer(NamedTuple):
    """Something that lies over a still and moves.

    light: float32 (h, w, 4) linear light times coverage, and coverage (0 to 1), which is 0 at its rim. corner: x, y in
    the picture of its first pixel at the target's instant. motion: (P, 2) px, what it moves within the scene at equally
    spaced times over the exposure, ends included; a shaking camera's path comes on top.
    """

    light: np.ndarray
    corner: tuple[int, int]
    motion: np.ndarray


def compose(picture: np.ndarray, layers: list[Layer], corner: tuple[int, int]) -> np.ndarray:
    """A part of a picture, linear light (h, w, 3), with the layers over it, at the target's instant.

    corner: x, y of the part in the picture. Later layers lie over earlier ones.
    """
    out = picture.copy()
    for layer in layers:
        there, here = _overlap(layer, out.shape[:2], corner)
        cover = layer.light[there]
        out[here] = out[here] * (1 - cover[..., 3:]) + cover[..., :3]
    return out


def topmost(layers: list[Layer], size: tuple[int, int], corner: tuple[int, int]) -> np.ndarray:
    """Which layer shows most at each pixel of a part (height, width) at the target's instant: int (h, w), -1 for none."""
    seen = np.full(size, -1)
    for n, layer in enumerate(layers):
        there, here = _overlap(layer, size, corner)
        seen[here][layer.light[there][..., 3] >= 0.5] = n
    return seen


def _overlap(
    layer: Layer, size: tuple[int, int], corner: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Rows and columns of a layer that lie over a part, and where they lie in it."""
    there, here = [], []
    for start, length, room in zip(
        (layer.corner[1] - corner[1], layer.corner[0] - corner[0]), layer.light.shape, size
    ):
        low, high = min(max(start, 0), room), max(min(start + length, room), 0)
        high = max(high, low)
        here.append(slice(low, high))
        there.append(slice(low - start, high - start))
    return (there[0], there[1]), (here[0], here[1])


def flat(lights: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Lights (h, w, 4) end to end, and (K, 3) first pixel, width, height of each."""
    first = np.cumsum([0] + [v.shape[0] * v.shape[1] for v in lights[:-1]])
    boxes = np.array([(at, v.shape[1], v.shape[0]) for at, v in zip(first, lights)], np.int64)
    return np.concatenate([v.reshape(-1) for v in lights]), boxes


@compiled
def walk_layers(out, light, w, h, nodes, layers, boxes, shifts):
    """out (h, w, 4) = sum over the nodes of weight * (the layers over the light, where both stand then).

    nodes: as `still._walk` has them; shifts: (nodes, K, 2) what takes a place of the light to one of a layer.
    """
    rows, columns, count, most = out.shape[0], out.shape[1], nodes.shape[0], boxes.shape[0]
    one, zero = np.float32(1), np.float32(0)
    for i in range(rows):
        for j in range(columns):
            s0, s1, s2, s3 = zero, zero, zero, zero
            fi, fj = np.float32(i), np.float32(j)
            for n in range(count):
                cos, sin = nodes[n, 0], nodes[n, 1]
                x = cos * fj + sin * fi + nodes[n, 2]
                y = cos * fi - sin * fj + nodes[n, 3]
                a0, a1, a2, a3 = sample4(light, w, h, x, y, one)
                for k in range(most):
                    u, v = x + shifts[n, k, 0], y + shifts[n, k, 1]
                    lw, lh = boxes[k, 1], boxes[k, 2]
                    if u >= zero and v >= zero and u < np.float32(lw - 1) and v < np.float32(lh - 1):
                        c0, c1, c2, c3 = _from(layers, boxes[k, 0], lw, u, v)
                        see = one - c3
                        a0, a1, a2, a3 = c0 + see * a0, c1 + see * a1, c2 + see * a2, c3 + see * a3
                weight = nodes[n, 4]
                s0 += weight * a0
                s1 += weight * a1
                s2 += weight * a2
                s3 += weight * a3
            out[i, j, 0], out[i, j, 1], out[i, j, 2], out[i, j, 3] = s0, s1, s2, s3


@inlined
def _from(layers, first, w, x, y):
    """Bilinear sample of the layer whose first pixel is that, w wide, at a place inside it."""
    p, w00, w01, w10, w11 = corner_of(x, y, int(x), int(y), w)
    return blend4(layers, U(first) + p, w, w00, w01, w10, w11)
