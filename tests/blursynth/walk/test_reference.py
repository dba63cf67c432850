"""The compiled loop against the physics written down slowly, on random scenes: odd sizes, lamps, fast and still parts."""

import cv2
import numpy as np
import pytest

from blursynth.camera.response import load_response
from blursynth.exposure import integrate as ex
from blursynth.exposure.shutter import make_shutter
from tests.helpers.slow_exposure import expose

SRGB = load_response("srgb")


def scene(rng: np.random.Generator, count: int) -> tuple[list[ex.Coded], list[np.ndarray]]:
    """Frames by their codes, and the same as linear light (H, W, 3)."""
    h, w = (int(n) for n in rng.integers(2, 24, 2))
    lamp = float(rng.choice([0, 1, 8, 100]))
    coded, lights = [], []
    for _ in range(count):
        codes = cv2.GaussianBlur(rng.integers(0, 256, (h, w, 3), np.uint8), (0, 0), 0.8)
        kind = rng.choice(["as it is", "lamp", "black", "white"], p=[0.5, 0.3, 0.1, 0.1])
        if kind == "lamp":
            codes = codes // 3
            codes[rng.integers(h), rng.integers(w)] = 255
        elif kind != "as it is":
            codes[:] = 0 if kind == "black" else 255
        above = None
        if lamp == 0 and rng.random() < 0.5:  # a film's own light above white, and no recipe's
            above = ((rng.random(codes.shape) < 0.1) * rng.choice([1e-6, 0.01, 40])).astype(np.float16)
            above[codes < 255] = 0
        table = SRGB.table(lamp)
        coded.append(ex.Coded(codes, table, above))
        light = np.stack([table[codes[..., c], c] for c in range(3)], 2).astype(float)
        lights.append(light if above is None else light + above)
    return coded, lights


def motion(rng: np.random.Generator, h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Flows that agree, contradict each other in places, lie still in places, or lead far out of the picture."""
    px = rng.choice([0, 5e-4, 0.4, 3, 12, 100])
    forward = px * rng.standard_normal((h, w, 2) if rng.random() < 0.3 else 2) * np.ones((h, w, 2))
    backward = -forward
    if rng.random() < 0.5:
        backward = backward + (rng.random((h, w, 1)) < 0.3) * rng.normal(0, 3, 2)
    if rng.random() < 0.3:
        still = rng.random((h, w, 1)) < 0.5
        forward, backward = forward * still, backward * still
    return forward.astype(np.float32), backward.astype(np.float32)


@pytest.mark.parametrize("shaken", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_the_loop_is_the_physics(seed, shaken):
    rng = np.random.default_rng([seed, shaken])
    intervals = int(rng.integers(1, 4))
    coded, lights = scene(rng, intervals + 1)
    h, w = lights[0].shape[:2]
    flows = [motion(rng, h, w) for _ in range(intervals)]
    duty, readout, most = (
        float(rng.choice([1, 0.6, 0.1])),
        float(rng.choice([0, 0.4])),
        int(rng.choice([1, 4, 16])),
    )
    path = (
        np.cumsum(rng.normal(0, 1, (int(rng.integers(2, 7)), 3)), 0) * rng.choice([0.1, 2, 9])
        if shaken
        else None
    )
    shutter = make_shutter(h, intervals, duty, readout)
    exposure = ex.Exposure(h, w, shutter, most, path)
    for i, flow in enumerate(flows):
        pair = coded[i], coded[i + 1]
        exposure.add(i, pair, (pair[0].smooth(), pair[1].smooth()), *flow)
    got, want = exposure.linear(), expose(lights, flows, shutter.start, shutter.stop, most, path)
    # Float32 places; and where a way is a whole number of steps, rounding decides whether it takes one more.
    off = np.abs(got - want) / np.maximum(want, max(1, np.max(lights) / 50))
    assert np.mean(off.max(2) > 1e-3) < 0.01 and off.max() < 0.05
