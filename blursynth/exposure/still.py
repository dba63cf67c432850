"""The exposure of a single picture whose camera shakes: any part of it, straight from the picture's light.

A still has one motion, the camera's, so nothing is estimated: B(q) = integral of p(t) S(place of q at t) dt, with S
the picture's linear light and the place that of `shake.py`'s path. Only the part asked for is integrated, from the
pixels that its light comes from, so that a crop of a large picture costs what the crop costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from blursynth.common.compiled import compiled
from blursynth.exposure.integrate import quasi
from blursynth.exposure.layered import Layer, flat, walk_layers
from blursynth.walk.sample import sample4

WALK = "6023d1089568"  # of `blursynth/walk`, whose code is compiled into this file's: test_walk.py says what to put

STEP_PX = 0.7
"""Longest step between two samples of the path, px: with 0.35 crops of photographs change by less than 0.1 code rms."""

TOGETHER = 1 << 13
"""Points whose ways are held at once: 65 places each, which for every pixel of a photo fill the memory."""

MARGIN = 3  # pixels around a place that its sample reads, and one for rounding
FINE = 16  # moments between two places of a path over which light is shared out among the samples


class StillExposure(NamedTuple):
    """light: float32 (h, w, 4) of the part; samples: taken a pixel; noise_left: share of white noise's variance."""

    light: np.ndarray
    samples: int
    noise_left: float


def places(
    path: np.ndarray, points: np.ndarray, centre: tuple[float, float], motion: np.ndarray | None = None
) -> np.ndarray:
    """Where content of the target stands over the exposure.

    Args:
        path: (P, 3) x, y, roll of `shake.draw_path`.
        points: (N, 2) x, y in the target.
        centre: x, y that the roll turns about: the middle of the whole picture.
        motion: (P, 2) of a `Layer`, where the content is its.
    Returns:
        (P, N, 2) float64.
    """
    turn = np.radians(path[:, 2])[:, None]
    x, y = (points - centre).T
    if motion is not None:
        x, y = x + motion[:, :1], y + motion[:, 1:]
    return np.stack(
        [
            np.cos(turn) * x - np.sin(turn) * y + centre[0] + path[:, :1],
            np.sin(turn) * x + np.cos(turn) * y + centre[1] + path[:, 1:2],
        ],
        axis=2,
    )


def path_lengths(
    path: np.ndarray, points: np.ndarray, centre: tuple[float, float], motion: np.ndarray | None = None
) -> np.ndarray:
    """(N,) px: how far content at ``points`` (N, 2) travels over the exposure; arguments as in `places`."""
    lengths = np.empty(len(points))
    for at in range(0, len(points), TOGETHER):
        way = places(path, points[at : at + TOGETHER], centre, motion)
        lengths[at : at + TOGETHER] = np.linalg.norm(np.diff(way, axis=0), axis=2).sum(axis=0)
    return lengths


def reach(
    path: np.ndarray, part: tuple[int, int, int, int], centre: tuple[float, float]
) -> tuple[int, int, int, int]:
    """The pixels that the light of ``part`` (left, top, right, bottom, the last two not in) comes from, as such a box.

    It may lie partly outside the picture.
    """
    left, top, right, bottom = part
    corners = np.array([(x, y) for x in (left, right - 1) for y in (top, bottom - 1)], np.float64)
    came = _sources(path, corners, centre)
    low, high = came.min(axis=(0, 1)), came.max(axis=(0, 1))
    return (
        math.floor(low[0]) - MARGIN,
        math.floor(low[1]) - MARGIN,
        math.ceil(high[0]) + MARGIN + 1,
        math.ceil(high[1]) + MARGIN + 1,
    )


def expose_still(
    light: np.ndarray,
    box: tuple[int, int, int, int],
    part: tuple[int, int, int, int],
    path: np.ndarray,
    centre: tuple[float, float],
    profile: np.ndarray | None = None,
    layers: Sequence[Layer] = (),
) -> StillExposure:
    """Mean light of ``part`` over the exposure.

    Args:
        light: float32 (h, w, 4) linear light of ``box``, which holds `reach` of the part. Premultiplied where the
            fourth channel is coverage.
        box, part: left, top, right, bottom in the picture, the last two not in.
        path, centre: as in `places`.
        profile: (P,) weight of the light over the exposure, equally spaced; None for a box.
        layers: what lies over the picture, later ones over earlier ones; their motions have the path's P places.
    """
    left, top, right, bottom = part
    times, weights = _samples(path, part, centre, profile, layers)
    at = np.stack([np.interp(times, np.linspace(0, 1, len(path)), axis) for axis in path.T], axis=1)
    cos, sin = np.cos(np.radians(at[:, 2])), np.sin(np.radians(at[:, 2]))
    # Pixel (j, i) of the part has its light from (cos j + sin i + x, cos i - sin j + y) of the box.
    dx, dy = left - centre[0] - at[:, 0], top - centre[1] - at[:, 1]
    x, y = cos * dx + sin * dy + centre[0] - box[0], cos * dy - sin * dx + centre[1] - box[1]
    nodes = np.stack([cos, sin, x, y, weights], axis=1).astype(np.float32)
    out = np.empty((bottom - top, right - left, 4), np.float32)
    kernels = [np.array([-v, 1 + 2 * v, -v], np.float32) for v in _phases(nodes, out.shape[:2])]
    h, w = light.shape[:2]
    smooth = quasi(light, kernels=kernels).reshape(-1)
    if layers:
        _walk_all(out, smooth, w, h, nodes, times, layers, box)
    else:
        _walk(out, smooth, w, h, nodes)
    return StillExposure(out, len(nodes), _noise_left(nodes, out.shape[:2], kernels))


def _walk_all(
    out: np.ndarray,
    light: np.ndarray,
    w: int,
    h: int,
    nodes: np.ndarray,
    times: np.ndarray,
    layers: Sequence[Layer],
    box: tuple[int, int, int, int],
) -> None:
    """`walk_layers` of what `_walk` takes: each layer filtered for the places that its own motion gives it."""
    shifts = np.empty((len(nodes), len(layers), 2), np.float32)
    filtered = []
    for k, layer in enumerate(layers):
        moments = np.linspace(0, 1, len(layer.motion))
        for axis in range(2):
            moved = np.interp(times, moments, layer.motion[:, axis])
            shifts[:, k, axis] = box[axis] - layer.corner[axis] - moved
        own = nodes.copy()
        own[:, 2:4] += shifts[:, k]
        kernels = [np.array([-v, 1 + 2 * v, -v], np.float32) for v in _phases(own, out.shape[:2])]
        filtered.append(quasi(layer.light, kernels=kernels))
    walk_layers(out, light, w, h, nodes, *flat(filtered), shifts)


def _phases(nodes: np.ndarray, size: tuple[int, int]) -> tuple[float, float]:
    """Mean of f (1 - f) / 2 over samples and pixels, f the place between two pixels, along x and y.

    Bilinear sampling at f adds that times the second difference: 1/12 for a path that takes all phases, 0 across a
    straight one.
    """
    i, j = np.meshgrid(*(np.linspace(0, n - 1, 9).round() for n in size), indexing="ij")
    cos, sin, x, y, weight = nodes.astype(np.float64).T[:, :, None, None]
    f, g = (cos * j + sin * i + x) % 1, (cos * i - sin * j + y) % 1
    return tuple(float((weight * v * (1 - v) / 2).sum(0).mean()) for v in (f, g))  # type: ignore[return-value]


def _noise_left(nodes: np.ndarray, size: tuple[int, int], kernels: list[np.ndarray]) -> float:
    """Share of white noise's variance that is left in the middle: the energy of the path's point spread."""
    i, j = size[0] // 2, size[1] // 2
    cos, sin, x, y, weight = nodes.astype(np.float64).T
    x, y = cos * j + sin * i + x, cos * i - sin * j + y
    x, y = x - math.floor(x.min()) + 2, y - math.floor(y.min()) + 2
    spread = np.zeros((int(y.max()) + 4, int(x.max()) + 4), np.float64)
    fx, fy = x % 1, y % 1
    for dy, wy in ((0, 1 - fy), (1, fy)):
        for dx, wx in ((0, 1 - fx), (1, fx)):
            np.add.at(spread, (y.astype(int) + dy, x.astype(int) + dx), weight * wx * wy)
    return float(np.square(cv2.sepFilter2D(spread, -1, kernels[0], kernels[1])).sum())


def _sources(path: np.ndarray, points: np.ndarray, centre: tuple[float, float]) -> np.ndarray:
    """(P, N, 2): where in the target the content lies that stands at ``points`` (N, 2) at each place of the path."""
    turn = np.radians(path[:, 2])[:, None]
    x, y = points[:, 0] - centre[0] - path[:, :1], points[:, 1] - centre[1] - path[:, 1:2]
    return np.stack(
        [
            np.cos(turn) * x + np.sin(turn) * y + centre[0],
            np.cos(turn) * y - np.sin(turn) * x + centre[1],
        ],
        axis=2,
    )


def _samples(
    path: np.ndarray,
    part: tuple[int, int, int, int],
    centre: tuple[float, float],
    profile: np.ndarray | None,
    layers: Sequence[Layer] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Moments (0 to 1) at which the path is sampled, equally far apart along it, and the share of light of each.

    Between two samples the light is taken as linear in the way gone: a hand that lingers gives its place the weight.
    """
    corners = np.array([(x, y) for x in (part[0], part[2]) for y in (part[1], part[3])], np.float64)
    came = _sources(path, corners, centre)
    moves = np.linalg.norm(np.diff(came, axis=0), axis=2).max(axis=1)
    for layer in layers:  # the faster of all that can be seen at that time
        own = np.linalg.norm(np.diff(came - layer.motion[:, None], axis=0), axis=2).max(axis=1)
        moves = np.maximum(moves, own)
    way = np.concatenate([[0.0], np.cumsum(moves)])
    count = max(math.ceil(way[-1] / STEP_PX), 1)
    moments = np.linspace(0, 1, len(path))
    fine = (np.arange((len(path) - 1) * FINE) + 0.5) / ((len(path) - 1) * FINE)
    light = np.ones_like(fine)
    if profile is not None:
        light = np.interp(fine, np.linspace(0, 1, len(profile)), profile)
    # A hair's slope keeps the way rising where the hand rests.
    way = way + 1e-9 * moments
    at = np.interp(fine, moments, way) / way[-1] * count
    below = np.minimum(at.astype(np.int64), count - 1)
    weights = np.bincount(below, light * (1 - (at - below)), count + 1)
    weights += np.bincount(below + 1, light * (at - below), count + 1)
    return np.interp(np.arange(count + 1) / count * way[-1], way, moments), weights / weights.sum()


@compiled
def _walk(out, light, w, h, nodes):
    """out (h, w, 4) = sum over the nodes of weight * light at the node's place of each pixel; light is flat."""
    rows, columns, count = out.shape[0], out.shape[1], nodes.shape[0]
    for i in range(rows):
        for j in range(columns):
            s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            fi, fj = np.float32(i), np.float32(j)
            for n in range(count):
                cos, sin = nodes[n, 0], nodes[n, 1]
                x = cos * fj + sin * fi + nodes[n, 2]
                y = cos * fi - sin * fj + nodes[n, 3]
                a0, a1, a2, a3 = sample4(light, w, h, x, y, nodes[n, 4])
                s0 += a0
                s1 += a1
                s2 += a2
                s3 += a3
            out[i, j, 0], out[i, j, 1], out[i, j, 2], out[i, j, 3] = s0, s1, s2, s3
