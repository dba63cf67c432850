import itertools

import cv2
import numpy as np
import pytest

from deblur_train.prediction.smooth import Smoother
from tests.helpers.train_films import panning, texture


def smooth(frames: list[np.ndarray], before: int = 1, after: int = 1) -> list[np.ndarray]:
    smoother = Smoother(before, after)
    done = [f for frame in frames for f in smoother.push(frame)] + smoother.flush()
    assert len(done) == len(frames)
    return done


def noisy(frames: list[np.ndarray], sigma: float) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [np.clip(np.rint(f + rng.normal(0, sigma, f.shape)), 0, 255).astype(np.uint8) for f in frames]


def rms(a: np.ndarray, b: np.ndarray) -> float:
    inner = (slice(8, -8), slice(8, -8))
    return float(np.sqrt(np.mean((a[inner].astype(float) - b[inner].astype(float)) ** 2)))


def plain_mean(frames: list[np.ndarray]) -> list[np.ndarray]:
    n = len(frames)
    return [np.mean(frames[max(0, i - 1) : min(n, i + 2)], axis=0) for i in range(n)]


@pytest.mark.parametrize(("count", "gain"), [(3, 3**0.5), (5, 5**0.5)])
def test_a_still_video_loses_the_noise_that_averaging_takes(count, gain):
    truth = [texture(128, 160)] * 9
    given = noisy(truth, 5)
    done = smooth(given, count // 2, count // 2)
    assert rms(done[4], truth[4]) < 1.15 * rms(given[4], truth[4]) / gain


@pytest.mark.parametrize("step", [3, 7])
def test_motion_is_followed_not_doubled(step):
    """On a moving texture with noise of its own in each frame: nearer the truth than the frames are, flickering less,
    and far from the ghosts of the plain mean."""
    truth = panning(7, step, 160, 192)
    given = noisy(truth, 5)
    done = smooth(given)
    before, after, ghosts = (
        np.mean([rms(a, b) for a, b in zip(x, truth, strict=True)]) for x in (given, done, plain_mean(given))
    )
    assert after < 0.75 * before and after < 0.3 * ghosts

    def flicker(frames: list[np.ndarray]) -> float:
        """Change from frame to frame that is not the motion's."""
        off = [f.astype(float) - t for f, t in zip(frames, truth, strict=True)]
        steps = [b - a for a, b in itertools.pairwise(off)]
        return float(np.std([x[8:-8, 8:-8] for x in steps]))

    assert flicker(done) < 0.75 * flicker(given)


def test_an_object_that_crosses_leaves_no_ghost():
    """A disc jumps 40 pixels a frame over a still background, more than flow follows: it is neither doubled nor thinned."""
    frames = []
    for i in range(5):
        frame = texture(160, 240, 3)
        cv2.circle(frame, (30 + 40 * i, 80), 14, (250, 20, 20), -1)
        frames.append(frame)
    done = smooth(noisy(frames, 3))
    for a, b in zip(done, frames, strict=True):
        assert rms(a, b) < 3
        assert np.percentile(np.abs(a.astype(int) - b), 99.9) < 25
    assert max(np.abs(x - y).max() for x, y in zip(plain_mean(frames), frames, strict=True)) > 60


def test_a_cut_falls_back_to_the_frame_itself():
    a, b = texture(128, 160, 1), texture(128, 160, 2)
    frames = noisy([a, a, b, b], 2)
    done = smooth(frames)
    for got, given in zip(done, frames, strict=True):
        assert rms(got, given) < 2.5, "nothing of the other scene"


def test_equal_frames_come_back_and_the_window_stays_small():
    """Frames go out in order, as late as the window asks and no later; depth and type stay; memory is bounded."""
    frame = texture(70, 90).astype(np.uint16) * 257
    smoother = Smoother(2, 2)
    counts = [len(smoother.push(frame)) for _ in range(20)]
    assert counts == [0, 0] + [1] * 18 and len(smoother._window) <= 5
    assert len(smoother.flush()) == 2 and not smoother.flush()
    (again,) = Smoother(2, 0).push(frame)
    assert again.dtype == np.uint16
    np.testing.assert_array_equal(again, frame)
    for done in smooth([frame] * 3):
        np.testing.assert_array_equal(done, frame)


@pytest.mark.parametrize("shape", [(1, 1), (5, 200), (17, 17)])
def test_tiny_frames(shape):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (*shape, 3)).astype(np.uint8) for _ in range(3)]
    assert all(f.shape == (*shape, 3) for f in smooth(frames))
    with pytest.raises(ValueError, match="shape"):
        smooth([frames[0], np.zeros((9, 9, 3), np.uint8)])
