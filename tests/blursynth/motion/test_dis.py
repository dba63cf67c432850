"""The inverse search finds motion in both directions, thin things that move far included, and ends in numbers on any frames."""

import cv2
import numpy as np
import pytest

from blursynth.motion.dis import search


def texture(h: int, w: int, seed: int, px: float = 2.0) -> np.ndarray:
    """Grey codes, float32, smooth over some pixels."""
    t = np.random.default_rng(seed).normal(size=(h, w)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(t, (0, 0), px), None, 0, 255, cv2.NORM_MINMAX)


def moved(h: int, w: int, dx: float, dy: float) -> tuple[np.ndarray, np.ndarray]:
    """Two frames, uint8, whose content moves by (dx, dy) and comes in from beyond their rim."""
    wide = texture(h + 80, w + 80, 0)
    m = np.array([[1, 0, dx], [0, 1, dy]], np.float64)
    there = cv2.warpAffine(wide, m, wide.shape[::-1], flags=cv2.INTER_CUBIC)
    return tuple(np.clip(x[40:-40, 40:-40], 0, 255).astype(np.uint8) for x in (wide, there))


@pytest.mark.parametrize("motion", [(0.4, -0.3), (3.0, 1.5), (-12.0, 7.0)])
def test_a_motion_is_found_there_and_back(motion):
    there, back = search(*moved(90, 131, *motion))
    inner = np.s_[16:-16, 16:-16]
    assert np.abs(there[inner] - motion).mean() < 0.05
    assert np.abs(back[inner] + motion).mean() < 0.05


def test_the_way_back_is_the_search_of_the_frames_turned_round():
    a, b = moved(70, 101, 2.5, -1.0)
    there, back = search(a, b)
    turned = search(b, a)
    assert np.array_equal(there, turned[1]) and np.array_equal(back, turned[0])


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_noise_on_a_flat_ground_is_no_motion(dense, seed):
    """A flat area without a feature, whose noise is another in each frame, in frames that move by 0.75 px."""
    a, b = moved(160, 240, 0.75, 0)
    rng = np.random.default_rng(seed)
    for frame in (a, b):
        frame[40:120, 60:180] = 40
        frame[:] = np.clip(np.rint(frame + rng.normal(0, 1, frame.shape)), 0, 255)
    for flow in search(a, b, dense):
        assert np.hypot(*np.moveaxis(flow[44:116, 64:176], 2, 0)).max() < 3


def test_a_thin_thing_that_moves_far_is_found_by_itself():
    """A bar of 5 px moves by 10 px over a ground that moves by 5; large patches see more ground than bar."""
    ground, bar = texture(128, 210, 1, 1.5), texture(128, 5, 2, 1.5)
    a, b = ground[:, 5:197].copy(), ground[:, :192].copy()
    a[20:100, 90:95] = bar[20:100]
    b[20:100, 100:105] = bar[20:100]
    a, b = a.astype(np.uint8), b.astype(np.uint8)

    def found(dense: bool | None) -> float:
        there, _ = search(a, b, dense)
        return float((np.abs(there[28:92, 90:95] - (10, 0)).max(axis=2) < 1.5).mean())

    assert found(True) == found(None) > 0.95  # motion of 5 px is fast
    assert found(False) < 0.9


def test_a_still_pair_stays_still():
    a = texture(64, 71, 3).astype(np.uint8)
    there, back = search(a, a)
    assert np.abs(there).max() < 1e-3 and np.abs(back).max() < 1e-3


@pytest.mark.parametrize("size", [(8, 8), (8, 300), (17, 33), (64, 65), (101, 70)])
@pytest.mark.parametrize("kind", ["noise", "flat", "black and white"])
@pytest.mark.parametrize("dense", [False, True])
def test_any_frames_end_in_numbers(size, kind, dense):
    rng = np.random.default_rng(4)
    a, b = (rng.integers(0, 256, size, dtype=np.uint8) for _ in range(2))
    if kind != "noise":
        a[:], b[:] = (0, 255) if kind == "black and white" else (128, 128)
    for flow in search(a, b, dense):
        assert flow.shape == (*size, 2) and flow.dtype == np.float32
        assert np.isfinite(flow).all() and np.abs(flow).max() < 4 * max(size)


def test_frames_too_small_or_unequal_are_refused():
    a = np.zeros((16, 16), np.uint8)
    with pytest.raises(ValueError, match="one size"):
        search(a, a[:, :12])
    with pytest.raises(ValueError, match="at least 8 px"):
        search(a[:7], a[:7])
