"""Scores mean what they say; gates reject what they name."""

import numpy as np
import pytest

from blursynth.pairs import quality
from tests.blursynth.exposure.test_flow import moving


def uniform(dx: float, dy: float) -> np.ndarray:
    f = np.empty((64, 80, 2), np.float32)
    f[:] = (dx, dy)
    return f


def test_consistent_flows_have_no_error():
    s = quality.FlowStats()
    s.add(uniform(3, 4), uniform(-3, -4))
    got = s.summary()
    assert (got["median_px"], got["p95_px"], got["max_px"]) == (5.0, 5.0, 5.0)
    assert got["fb_error_px"] == 0 and got["occluded"] == 0
    assert np.allclose(s.mean_flow(), (3, 4))


def test_contradicting_flows_are_occluded():
    s = quality.FlowStats()
    s.add(uniform(3, 0), uniform(3, 0))
    assert s.summary()["fb_error_px"] == 6.0 and s.summary()["occluded"] == 1.0


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
    assert quality.score(good | {"fb_error_px": 4.0}, 40.0) < 0.51
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
