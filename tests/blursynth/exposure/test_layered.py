"""Layers over a still under a path equal a finely rendered composition, whatever lies over what."""

from __future__ import annotations

import math

import numpy as np
import pytest

from blursynth.exposure.layered import Layer, compose, topmost
from blursynth.exposure.shake import PLACES, draw_path
from blursynth.exposure.still import expose_still, path_lengths, places, reach
from tests.blursynth.exposure.test_still import MIDDLE, PART, SIZE, code, over, waves


def disc(x, y, at, radius, edge):
    """Coverage of a soft-edged disc at any place."""
    return 0.5 - 0.5 * np.tanh((np.hypot(x - at[0], y - at[1]) - radius) / edge)


def motion(px, heading, turn=0.0):
    u = np.linspace(-0.5, 0.5, PLACES)
    angle = np.radians(heading + turn * u)
    return u[:, None] * px * np.stack([np.cos(angle), np.sin(angle)], 1)


class Disc:
    """A layer known at every place: its raster, and what is true."""

    def __init__(self, at, radius, edge, moves, seed, bright=1.0):
        self.at, self.radius, self.edge, self.moves = at, radius, edge, moves
        self.light = lambda x, y: bright * waves(seed)(x, y)

    def cover(self, x, y):
        return disc(x, y, self.at, self.radius, self.edge)

    def layer(self):
        reach = math.ceil(self.radius + 8 * self.edge) + 3
        left, top = (int(v) - reach for v in self.at)
        y, x = np.mgrid[top : top + 2 * reach, left : left + 2 * reach].astype(float)
        cover = self.cover(x, y)
        cover[cover < 1e-6] = 0
        light = np.repeat((self.light(x, y) * cover)[..., None], 4, 2)
        light[..., 3] = cover
        return Layer(light.astype(np.float32), (left, top), self.moves)


def truth(light, discs, path, moments=120):
    y, x = np.mgrid[PART[1] : PART[3], PART[0] : PART[2]].astype(float)
    total, ends = 0.0, np.linspace(0, 1, len(path))
    for u in (np.arange(moments) + 0.5) / moments:
        dx, dy, roll = (np.interp(u, ends, axis) for axis in path.T)
        a, px, py = np.radians(roll), x - MIDDLE[0] - dx, y - MIDDLE[1] - dy
        sx = np.cos(a) * px + np.sin(a) * py + MIDDLE[0]
        sy = np.cos(a) * py - np.sin(a) * px + MIDDLE[1]
        seen = light(sx, sy)
        for d in discs:
            lx, ly = sx - np.interp(u, ends, d.moves[:, 0]), sy - np.interp(u, ends, d.moves[:, 1])
            cover = d.cover(lx, ly)
            on = cover > 1e-7
            seen[on] = seen[on] * (1 - cover[on]) + cover[on] * d.light(lx[on], ly[on])
        total = total + seen
    return total / moments


def exposed(light, discs, path):
    box = reach(path, PART, MIDDLE)
    return expose_still(over(light, box), box, PART, path, MIDDLE, None, [d.layer() for d in discs])


TWO = [
    Disc((190.3, 120.8), 22, 1.0, motion(14, 30, 50), 5),
    Disc((205.1, 136.2), 15, 0.7, motion(9, 200), 6, bright=0.4),
]


@pytest.mark.parametrize("px", [pytest.param(1, marks=pytest.mark.slow), 12])
def test_it_is_the_finely_rendered_composition(px):
    light, path = waves(), draw_path(np.random.default_rng(3), px, *SIZE)
    got = exposed(light, TWO, path).light
    want = truth(light, TWO, path)
    assert np.sqrt(np.mean((code(got[..., 0]) - code(want)) ** 2)) < 0.5
    assert np.abs(got[..., 3] - 1).max() < 1e-4, "no light is lost at the edges"
    bare = exposed(light, [], path).light[..., 0]
    assert np.sqrt(np.mean((code(bare) - code(want)) ** 2)) > 5, "the layers are seen"


def test_two_blurred_pictures_laid_over_each_other_are_not_it():
    """What covers moves while what is covered does: only the composition of each instant is true."""
    path = np.zeros((PLACES, 3))
    path[:, 0] = np.linspace(-12, 12, PLACES)
    follows = Disc((198.0, 130.0), 14, 0.7, motion(0, 0), 5)
    light = lambda x, y: np.where(np.hypot(x - 198, y - 130) < 12, 4.0, 0.1)  # a lamp hidden behind it  # noqa: E731
    got = exposed(light, [follows], path).light[..., 0]
    blurred, cover = exposed(light, [], path).light, exposed(lambda x, y: 0 * x, [follows], path).light
    y, x = np.mgrid[PART[1] : PART[3], PART[0] : PART[2]].astype(float)
    alpha = np.mean([follows.cover(x - s, y) for s in np.linspace(-12, 12, 200)], 0)
    pasted = blurred[..., 0] * (1 - alpha) + cover[..., 0]
    assert got.max() < 1.05, "the lamp stays hidden at every instant"
    assert pasted.max() > 1.1, "pasting lets it shine through"


def test_a_layer_at_rest_in_a_scene_at_rest_is_its_composition():
    light, still = waves(), [Disc(d.at, d.radius, d.edge, motion(0, 0), n) for n, d in enumerate(TWO)]
    got = exposed(light, still, np.zeros((PLACES, 3))).light[..., :3]
    want = compose(over(light, PART)[..., :3], [d.layer() for d in still], PART[:2])
    assert np.abs(got - want).max() < 1e-5
    alone = compose(over(light, PART)[..., :3], [], PART[:2])
    assert np.abs(alone - want).max() > 0.1


def test_the_topmost_is_the_last_that_covers():
    seen = topmost([d.layer() for d in TWO], (PART[3] - PART[1], PART[2] - PART[0]), PART[:2])
    y, x = np.mgrid[PART[1] : PART[3], PART[0] : PART[2]].astype(float)
    want = np.where(TWO[1].cover(x, y) >= 0.5, 1, np.where(TWO[0].cover(x, y) >= 0.5, 0, -1))
    assert np.array_equal(seen, want) and {-1, 0, 1} == set(np.unique(seen))


def test_a_layer_off_the_part_is_not_seen():
    """But for the number of samples, which is that of the fastest."""
    light, path = waves(), draw_path(np.random.default_rng(4), 8, *SIZE)
    far = Disc((PART[0] - 80.0, PART[3] + 90.0), 15, 1.0, motion(6, 90), 5)
    assert np.abs(exposed(light, [far], path).light - exposed(light, [], path).light).max() < 2e-3
    assert (topmost([far.layer()], (80, 96), PART[:2]) == -1).all()


def test_its_own_motion_adds_to_the_cameras():
    path = np.zeros((PLACES, 3))
    path[:, 0] = np.linspace(-3, 3, PLACES)
    points = np.array([[10.0, 20.0], [200.0, 100.0]])
    assert np.allclose(path_lengths(path, points, MIDDLE, motion(4, 0)), 10)
    assert np.allclose(path_lengths(path, points, MIDDLE, motion(6, 180)), 0)
    ends = places(path, points, MIDDLE, motion(8, 90))[[0, -1]]
    assert np.allclose(ends[1] - ends[0], [6, 8])
