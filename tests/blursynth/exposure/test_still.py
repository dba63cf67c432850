"""A still under a path equals its analytic exposure, whatever part of it is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from blursynth.exposure.shake import PLACES, draw_path
from blursynth.exposure.still import expose_still, path_lengths, places, reach

SIZE = (420, 300)
MIDDLE = ((SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2)
PART = (150, 90, 246, 170)


def waves(seed: int = 0, fastest: float = 0.25):
    """Linear light at any place: a sum of sinusoids that a sensor can hold, with a photograph's falling spectrum."""
    rng = np.random.default_rng(seed)
    speed = fastest * rng.uniform(0.02, 1, 60)
    angle, phase = rng.uniform(0, 2 * np.pi, (2, 60))
    height = 0.02 / speed / np.sum(0.02 / speed) * 0.8

    def light(x, y):
        out = np.full(np.shape(x), 0.5)
        for s, a, p, h in zip(speed, angle, phase, height):
            out = out + h * np.cos(2 * np.pi * s * (np.cos(a) * x + np.sin(a) * y) + p)
        return out

    return light


def over(light, box):
    y, x = np.mgrid[box[1] : box[3], box[0] : box[2]].astype(float)
    out = np.ones((*x.shape, 4), np.float32)
    out[..., :3] = light(x, y)[..., None]
    return out


def truth(light, path, part, profile=None, moments=1500):
    """Very many moments, each exact: where the light at a pixel comes from is the path's inverse."""
    y, x = np.mgrid[part[1] : part[3], part[0] : part[2]].astype(float)
    total, weight = 0.0, 0.0
    for u in (np.arange(moments) + 0.5) / moments:
        dx, dy, roll = (np.interp(u, np.linspace(0, 1, len(path)), axis) for axis in path.T)
        w = 1.0 if profile is None else np.interp(u, np.linspace(0, 1, len(profile)), profile)
        a, px, py = np.radians(roll), x - MIDDLE[0] - dx, y - MIDDLE[1] - dy
        total = total + w * light(
            np.cos(a) * px + np.sin(a) * py + MIDDLE[0], np.cos(a) * py - np.sin(a) * px + MIDDLE[1]
        )
        weight += w
    return total / weight


def code(linear):
    return 255 * np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055
    )


def exposed(light, path, part=PART, profile=None):
    box = reach(path, part, MIDDLE)
    return expose_still(over(light, box), box, part, path, MIDDLE, profile)


@pytest.mark.parametrize("px", [2, 8, 25])
@pytest.mark.parametrize("profile", [None, np.array([0.0, 1.0, 0.2])])
def test_it_is_the_analytic_exposure_along_the_path(px, profile):
    light, path = waves(), draw_path(np.random.default_rng(px), px, *SIZE)
    got = exposed(light, path, profile=profile).light[..., 0]
    want = truth(light, path, PART, profile)
    assert np.sqrt(np.mean((code(got) - code(want)) ** 2)) < 0.5
    still = code(over(light, PART)[..., 0])
    assert np.sqrt(np.mean((still - code(want)) ** 2)) > 0.4, "the blur is visible"


def test_a_straight_pan_leaves_what_lies_along_it_alone():
    """Bands along the pan neither blur nor ring: the filter that undoes interpolation knows where samples fall."""
    path = np.zeros((PLACES, 3))
    path[:, 0] = np.linspace(-6, 6, PLACES)
    bands = np.random.default_rng(0).random(SIZE[1])
    box = reach(path, PART, MIDDLE)
    light = np.ones((box[3] - box[1], box[2] - box[0], 4), np.float32)
    light[..., :3] = bands[box[1] : box[3], None, None]
    got = expose_still(light, box, PART, path, MIDDLE).light
    assert np.abs(got[..., 0] - bands[PART[1] : PART[3], None]).max() < 1e-5


def test_no_motion_is_the_picture_itself():
    light, path = waves(fastest=0.5), np.zeros((PLACES, 3))
    done = exposed(light, path)
    box = over(light, PART)
    assert np.abs(done.light - box).max() < 1e-5
    assert done.noise_left == pytest.approx(1, abs=1e-6)


def test_a_part_is_what_the_whole_gives_there():
    light, path = waves(1), draw_path(np.random.default_rng(1), 12, *SIZE)
    whole = exposed(light, path, (60, 40, 340, 260)).light
    part = exposed(light, path).light
    there = whole[PART[1] - 40 : PART[3] - 40, PART[0] - 60 : PART[2] - 60]
    assert np.sqrt(np.mean((code(part[..., 0]) - code(there[..., 0])) ** 2)) < 0.1


@pytest.mark.parametrize("px", [3, 20])
def test_the_noise_left_is_measured_noise(px):
    path = draw_path(np.random.default_rng(px), px, *SIZE)
    box = reach(path, PART, MIDDLE)
    light = np.ones((box[3] - box[1], box[2] - box[0], 4), np.float32)
    light[..., :3] = 0.5 + 0.02 * np.random.default_rng(0).standard_normal((*light.shape[:2], 3))
    done = expose_still(light, box, PART, path, MIDDLE)
    assert np.var(done.light[..., :3]) / 0.02**2 == pytest.approx(done.noise_left, rel=0.15)


def test_places_and_their_lengths():
    path = np.array([[-3.0, 0, 0], [0, 0, 0], [0, 4, 0]])
    points = np.array([[10.0, 20.0], [200.0, 100.0]])
    assert np.allclose(places(path, points, MIDDLE), points + path[:, None, :2])
    assert np.allclose(path_lengths(path, points, MIDDLE), 7)
    roll = np.array([[0, 0, -1.0], [0, 0, 0], [0, 0, 1.0]])
    middle, rim = path_lengths(roll, np.array([MIDDLE, (MIDDLE[0] + 100, MIDDLE[1])]), MIDDLE)
    assert middle == pytest.approx(0) and rim == pytest.approx(100 * np.radians(2), rel=1e-3)
