"""Scores mean what they say; gates reject what they name."""

import cv2
import numpy as np
import pytest

from blursynth.motion.flow import PairFlow
from blursynth.pairs import quality
from tests.blursynth.motion.test_flow import moving


def uniform(dx: float, dy: float) -> np.ndarray:
    f = np.empty((64, 80, 2), np.float32)
    f[:] = (dx, dy)
    return f


def stats(forward: tuple[float, float], backward: tuple[float, float], *frames: np.ndarray) -> dict:
    s = quality.FlowStats()
    s.add(PairFlow(uniform(*forward), uniform(*backward)), *frames)
    return s.summary()


def noise_frame() -> np.ndarray:
    rgb = np.random.default_rng(0).integers(0, 256, (16, 20, 3)).astype(np.uint8)
    return cv2.resize(rgb, (80, 64), interpolation=cv2.INTER_NEAREST)


def test_consistent_flows_have_no_error():
    s = quality.FlowStats()
    s.add(PairFlow(uniform(3, 4), uniform(-3, -4)), noise_frame(), noise_frame()[::-1])
    got = s.summary()
    assert (got["median_px"], got["p95_px"], got["max_px"]) == (5.0, 5.0, 5.0)
    assert got["fb_error_px"] == 0 and got["occluded"] == 0
    assert np.allclose(s.mean_flow(), (3, 4))


def test_contradicting_flows_count_where_it_shows():
    textured = noise_frame()
    got = stats((3, 0), (3, 0), textured, textured)
    assert got["occluded"] > 0.6 and 0.6 * 6 < got["fb_error_px"] < 6
    # Wherever the flows lead in a flat area, all looks the same: sky, road, wall.
    flat = np.full_like(textured, 180)
    assert stats((3, 0), (3, 0), flat, flat) | {"occluded": 0.0, "fb_error_px": 0.0} == stats(
        (3, 0), (3, 0), flat, flat
    )
    half = textured.copy()
    half[:32] = 180
    assert np.isclose(stats((3, 0), (3, 0), half, half)["occluded"], got["occluded"] / 2, atol=0.06)
    # Grain of a few codes is no texture.
    grain = np.clip(flat + np.random.default_rng(1).normal(0, 5, flat.shape), 0, 255).astype(np.uint8)
    assert stats((3, 0), (3, 0), grain, grain[::-1])["occluded"] < 0.01
    # Content that is gone from the second frame shows by itself.
    assert stats((3, 0), (3, 0), flat, np.full_like(flat, 60))["occluded"] == 1.0


def test_a_wild_vector_does_not_outweigh_the_rest():
    textured = noise_frame()
    assert stats((30, 0), (30, 0), textured, textured)["fb_error_px"] <= quality.FAR


def test_heldout_frame_of_a_translation_is_predicted():
    a, c = moving(6, 2)
    m, _ = moving(0, 0)
    _, m = moving(3, 1)
    assert quality.heldout_db(a, m, c) > 30
    assert quality.heldout_db(a, 255 - m, c) < 15


def test_score_falls_with_every_fault():
    good = {"occluded": 0.0, "fb_error_px": 0.1}
    assert quality.score(good, 40.0) > 0.99
    assert quality.score(good | {"occluded": 0.5}, 40.0) < 0.51
    assert quality.score(good | {"fb_error_px": 1.0}, 40.0) < 0.51
    assert quality.score(good, 15.0) == 0


def test_gates():
    gates = quality.parse_gate("occluded<0.2,heldout_db>25")
    assert quality.failed_gate(gates, {"occluded": 0.1, "heldout_db": 30.0}) is None
    assert quality.failed_gate(gates, {"occluded": 0.3, "heldout_db": 30.0}) == "gate:occluded"
    assert quality.failed_gate(gates, {"occluded": 0.1, "heldout_db": 20.0}) == "gate:heldout_db"
    assert quality.failed_gate(gates, {"occluded": 0.1, "heldout_db": None}) is None
    assert quality.parse_gate("off") == [] and quality.parse_gate("default")
    with pytest.raises(quality.GateError, match="nonsense"):
        quality.parse_gate("nonsense<3")
