"""Flows point from the first frame to the second, in pixels, the same whatever ran before."""

import cv2
import numpy as np
import pytest

from blursynth.motion import flow


def moving(dx: int, dy: int, h: int = 120, w: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """Two RGB frames whose content moves by (dx, dy)."""
    t = np.random.default_rng(0).integers(0, 256, (h + 64, w + 64, 3)).astype(np.uint8)
    t = cv2.GaussianBlur(t, (0, 0), 2.0)
    t = cv2.normalize(t, None, 0, 255, cv2.NORM_MINMAX)
    return t[32 : 32 + h, 32 : 32 + w].copy(), t[32 - dy : 32 - dy + h, 32 - dx : 32 - dx + w].copy()


@pytest.mark.parametrize("kind", ["dis", "deepflow", "deepflow-opencv"])
def test_sign_and_size(kind):
    a, b = moving(5, -3)
    pair = flow.estimate_pair(kind, a, b)
    inner = np.s_[20:-20, 20:-20]
    assert np.allclose(np.median(pair.forward[inner], (0, 1)), (5, -3), atol=0.15)
    assert np.allclose(np.median(pair.backward[inner], (0, 1)), (-5, 3), atol=0.15)


def test_fast_deepflow_is_as_close_to_the_truth_as_opencvs():
    a, b = moving(4, 2)
    error = {
        k: np.linalg.norm(flow.estimate_pair(k, a, b).forward[16:-16, 16:-16] - (4, 2), axis=2).mean()
        for k in ("deepflow", "deepflow-opencv")
    }
    assert error["deepflow"] < max(0.05, 1.1 * error["deepflow-opencv"]), error


def test_still_pair_moves_by_exactly_nothing():
    a, _ = moving(0, 0)
    assert not flow.estimate_pair("dis", a, a.copy()).forward.any()


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 300), (63, 65)])
def test_small_frames_work(size):
    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(2))
    f = flow.estimate_pair("dis", a, b).forward
    assert f.shape == (*size, 2) and np.isfinite(f).all()


def test_half_scale_keeps_pixels_of_the_full_frame():
    a, b = moving(6, 4)
    f = flow.estimate_pair("dis", a, b, scale=0.5).forward
    assert f.shape == (120, 160, 2)
    assert np.allclose(np.median(f[20:-20, 20:-20], (0, 1)), (6, 4), atol=0.3)


def test_same_pair_same_flow():
    a, b = moving(3, 1)
    first = flow.estimate_pair("dis", a, b).forward
    flow.estimate_pair("dis", b, a)
    assert np.array_equal(first, flow.estimate_pair("dis", a, b).forward)


def test_unknown_flow_is_named():
    with pytest.raises(ValueError, match="farneback"):
        flow.estimate_pair("farneback", *moving(1, 1))


def test_missing_contrib_build_says_how_to_repair(monkeypatch):
    monkeypatch.setattr(cv2, "optflow", object())
    with pytest.raises(RuntimeError, match="pip install --force-reinstall"):
        flow.estimate_pair("deepflow-opencv", *moving(1, 1))


@pytest.mark.parametrize("size, scale", [((360, 640), 1.0), ((360, 640), 0.5), ((40, 50), 1.0)])
def test_a_pair_as_solved_holds_less_and_gives_the_same_flows(size, scale):
    rng = np.random.default_rng(0)
    a = cv2.GaussianBlur(rng.integers(0, 256, (*size, 3), np.uint8), (0, 0), 3)
    b = np.roll(a, 2, 1)
    solved = flow.solve_pair("dis", a, b, scale)
    full, whole = solved.full(), flow.estimate_pair("dis", a, b, scale)
    assert full.forward.shape == (*size, 2) and full.forward.any()
    assert np.array_equal(full.forward, whole.forward) and np.array_equal(full.backward, whole.backward)
    if size[0] == 360:
        assert solved.solved[0].nbytes <= full.forward.nbytes / 4


def test_a_still_pair_as_solved_is_exactly_still():
    a = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)
    full = flow.solve_pair("dis", a, a.copy()).full()
    assert full.forward.shape == full.backward.shape == (360, 640, 2)
    assert not full.forward.any() and not full.backward.any()
