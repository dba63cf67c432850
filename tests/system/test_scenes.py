"""benchmarks/scenes.py, which models are judged on: its exposures are what it says they are."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.benchmark import benchmark


@pytest.fixture(scope="module")
def scenes():
    pytest.importorskip("skimage")
    with benchmark("scenes") as script:
        yield script


def test_a_camera_at_rest_sees_the_same_picture_at_any_time(scenes):
    scene = scenes.Scene(3, 0.0, scenes.VALIDATION, (64, 96))
    assert np.array_equal(scene.at(-0.5), scene.at(0.4))


def test_the_streak_is_as_long_as_asked_and_time_0_is_the_reference_view(scenes):
    scene = scenes.Scene(5, 12.0, scenes.VALIDATION, (64, 96))
    assert scene.path_length() == pytest.approx(12.0, rel=0.02)
    x, y = np.array([0.0, 40.0, 95.0]), np.array([0.0, 20.0, 63.0])
    for depth in (0.5, 1.0):
        u, v = scene.project(x, y, np.array(0.0), depth)
        assert np.allclose(u, x, atol=1e-9) and np.allclose(v, y, atol=1e-9)


def test_near_planes_move_more_when_the_camera_is_shifted_and_equally_when_it_turns(scenes):
    scene = scenes.Scene(5, 12.0, scenes.VALIDATION, (64, 96))
    x, y, t = np.array(47.5), np.array(31.5), np.array(0.5)
    scene.scale = np.array([0, 0, 0, 1, 0, 0.0])
    near, far = (scene.project(x, y, t, d)[0] - x for d in (0.5, 1.0))
    assert near == pytest.approx(2 * far) and abs(far) > 0.1
    scene.scale = np.array([1, 0, 0, 0, 0, 0.0])
    near, far = (scene.project(x, y, t, d)[1] - y for d in (0.5, 1.0))
    assert near == pytest.approx(far) and abs(far) > 0.1


def test_the_blur_is_the_mean_of_the_instants(scenes):
    scene = scenes.Scene(8, 6.0, scenes.VALIDATION, (48, 64))
    blur, sharp = scene.pair(gain=0.0)
    fine = np.mean([np.clip(scene.at(t), 0, None) for t in (np.arange(384) + 0.5) / 384 - 0.5], axis=0)
    expected = scenes.truth.to_srgb8(np.clip(fine, 0, 1))
    assert np.abs(blur.astype(int) - expected).max() <= 1
    assert np.abs(blur.astype(int) - sharp).mean() > 1
