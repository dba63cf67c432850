"""The compiled loop's registers, its two kinds of light, and pictures of any width."""

import hashlib
import os
import re
import subprocess
import sys
from itertools import pairwise

import cv2
import numpy as np
import pytest
from numba import njit

from blursynth.camera.response import load_response
from blursynth.exposure import gpu
from blursynth.exposure import integrate as ex
from blursynth.exposure.shutter import make_shutter
from blursynth.walk import lanes
from blursynth.walk.lanes import U
from blursynth.walk.sample import add_both, add_one, both_flows, sample2, sample4, view
from tests.helpers.places import ROOT

SRGB = load_response("srgb")


def noise_frames(seed: int, h: int, w: int, count: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (h, w + 8 * count, 3), np.uint8), (0, 0), 1)
    picture[h // 3 : h // 3 + 3, w // 2 : w // 2 + 3] = 255  # a lamp
    return [np.ascontiguousarray(picture[:, 3 * i : 3 * i + w]) for i in range(count)]


def flows(seed: int, h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Flows of a few pixels that agree in places only."""
    rng = np.random.default_rng(seed)
    forward = cv2.GaussianBlur(rng.normal(0, 12, (h, w, 2)).astype(np.float32), (0, 0), 3)
    forward += (-3, 0)
    return forward, -forward + (rng.random((h, w, 1)) > 0.7) * np.float32(3)


@njit(error_model="numpy")
def _sampled(first, second, x, y, w, h):
    seen, zero = view(w, h), np.float32(0)
    both = add_both(
        lanes.zeros8(), first, second, seen, lanes.four(x, y, y, x), lanes.four(np.float32(0.25), zero, np.float32(2), zero)
    )  # fmt: skip
    one = add_one(lanes.zeros8(), first, seen, x, y, np.float32(3))
    return lanes.parts(lanes.fold(both)), lanes.parts(lanes.fold(one))


@njit(error_model="numpy")
def _sampled_flows(first, second, x, y, w, h):
    return lanes.parts(both_flows(first, second, view(w, h), lanes.four(x, y, y, x)))


@njit(error_model="numpy")
def _plain4(im, w, h, x, y, s):
    return sample4(im, w, h, x, y, s)


@njit(error_model="numpy")
def _plain2(im, w, h, x, y):
    return sample2(im, w, h, x, y)


def test_samples_of_registers_are_those_of_single_numbers():
    w, h = 7, 5
    rng = np.random.default_rng(0)
    a, b = (rng.random(h * w * 4).astype(np.float16) for _ in range(2))
    wide = [v.astype(np.float32) for v in (a, b)]
    f, g = (rng.normal(size=h * w * 2).astype(np.float32) for _ in range(2))
    places = [(-3.0, 2.5), (0.0, 0.0), (6.0, 4.0), (5.999, 3.2), (2.4, 9.0), (1.5, 1.25), (100.0, -1.0)]
    for x, y in (np.float32(p) for p in places):
        both, one = _sampled(a.view(np.uint16), b.view(np.uint16), x, y, w, h)
        want = np.float32(_plain4(wide[0], w, h, x, y, np.float32(0.25))) + _plain4(
            wide[1], w, h, y, x, np.float32(2)
        )
        assert np.allclose(both, want, atol=1e-6)
        assert np.allclose(one, _plain4(wide[0], w, h, x, y, np.float32(3)), atol=1e-6)
        got = _sampled_flows(f, g, x, y, w, h)
        assert np.allclose(got, (*_plain2(f, w, h, x, y), *_plain2(g, w, h, y, x)), atol=1e-5)


@njit(error_model="numpy")
def _registers(numbers, out):
    a, b = lanes.load8(numbers, U(0)), lanes.load8(numbers, U(8))
    lanes.store8(out, U(0), lanes.evens(a, b))
    lanes.store8(out, U(8), lanes.odds(a, b))
    most = lanes.all8(np.float32(5))
    lanes.store8(out, U(16), lanes.clamp(a, most))
    lanes.store8(out, U(24), lanes.floats(lanes.whole(lanes.clamp(a, most), lanes.whole8(np.int32(3)))))
    return lanes.largest(a), lanes.sum8(a)


def test_registers_do_what_they_say():
    numbers = np.float32([1.5, -2, 9, 0.25, np.nan, 4.75, 3, 2, 10, 11, 12, 13, 14, 15, 16, 17])
    out = np.zeros(32, np.float32)
    largest, total = _registers(np.nan_to_num(numbers, nan=7), out)
    assert (largest, total) == (9, 25.5)
    assert out[:8].tolist() == [1.5, 9, 7, 3, 10, 12, 14, 16]
    assert out[8:16].tolist() == [-2, 0.25, 4.75, 2, 11, 13, 15, 17]
    _registers(numbers, out)
    assert out[16:24].tolist() == [1.5, 0, 5, 0.25, 0, 4.75, 3, 2]
    assert out[24:].tolist() == [1, 0, 3, 0, 0, 3, 3, 2]


@pytest.mark.parametrize("lamp", [0.0, 2.5, "each"])
def test_light_by_its_codes_is_the_light_itself(lamp):
    h, w = 24, 37
    frames = noise_frames(1, h, w)
    above = [np.where(f == 255, np.float32(0.75), 0).astype(np.float32) for f in frames]
    lights = [SRGB.decode(f, a if lamp == "each" else lamp) for f, a in zip(frames, above)]
    coded = [
        ex.Coded(f, SRGB.table(), a.astype(np.float16)) if lamp == "each" else ex.Coded(f, SRGB.table(lamp))
        for f, a in zip(frames, above)
    ]
    smooth = [ex.quasi(v) for v in lights]
    for light, c, s in zip(lights, coded, smooth):
        assert np.abs(c.smooth() - s).max() < 2e-3 * max(1, light.max())
        assert np.array_equal(c.plain(), light.astype(np.float16))
    got = []
    for kind in (lights, coded):
        e = ex.Exposure(h, w, make_shutter(h, 2), 16)
        for i, s in enumerate(pairwise(c.smooth() for c in coded)):
            e.add(i, tuple(kind[i : i + 2]), s, *flows(i, h, w))
        got.append(e.linear())
    assert np.array_equal(*got)


@pytest.mark.parametrize("size", [(2, 2), (5, 3), (9, 8), (7, 9), (16, 15), (23, 41)])
def test_a_picture_of_any_size_agrees_with_the_torch_path(size):
    h, w = size
    lights = [SRGB.decode(f) for f in noise_frames(2, h, w)]
    shutter = make_shutter(h, 2, 0.7)
    a, b = ex.Exposure(h, w, shutter, 16), gpu.Exposure(h, w, shutter, 16, "cpu")
    there = [gpu.to_device(v, "cpu") for v in lights]
    for i in range(2):
        flow = flows(i, h, w)
        a.add(i, tuple(lights[i : i + 2]), tuple(map(ex.quasi, lights[i : i + 2])), *flow)
        b.add(i, tuple(there[i : i + 2]), tuple(map(gpu.quasi, there[i : i + 2])), *flow)
    assert abs(a.steps - b.steps) <= 8
    assert np.median(np.abs(a.linear() - b.linear())) < 2e-4  # float16's rounding
    assert np.mean(np.abs(a.linear() - b.linear()) > 2e-3) < 0.01


@pytest.mark.parametrize("path", [None, np.array([[0.0, 0, 0], [2.0, 1, 0]])])
@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_a_flow_that_is_no_number_is_refused(fault, path):
    h, w = 16, 20
    light = SRGB.decode(noise_frames(3, h, w)[0])
    forward, backward = flows(0, h, w)
    backward[7, 19, 1] = fault
    e = ex.Exposure(h, w, make_shutter(h, 1), 16, path)
    with pytest.raises(ValueError, match="flow of interval 0 is not finite"):
        e.add(0, (light, light), (light, light), forward, backward)


def test_compiled_code_is_kept_by_the_source_it_came_from():
    """Numba keeps a function's machine code by the hash of its own file, with all it calls in it. So every file that
    keeps code with the room's functions in it carries the room's hash: a change in one file changes them all."""
    mark = re.compile(r'^WALK = "(\w*)".*\n', re.M)
    room = sorted((ROOT / "blursynth/walk").glob("*.py"))
    text = "".join(mark.sub("", path.read_text(encoding="utf-8")) for path in room)
    want = hashlib.sha256(text.encode()).hexdigest()[:12]
    keepers = [
        path
        for path in sorted((ROOT / "blursynth").rglob("*.py"))
        if "blursynth.walk" in (source := path.read_text(encoding="utf-8")) and "@compiled" in source
    ]
    assert len(keepers) >= 4
    for path in keepers:
        found = mark.findall(path.read_text(encoding="utf-8"))
        assert found == [want], f'{path}: set WALK = "{want}"'


@njit(error_model="numpy")
def _both_ways(row, out):
    a, b = lanes.load8(row, U(0)), lanes.load8(row, U(8))
    even, odd = lanes.evens(a, b), lanes.odds(a, b)
    lanes.store8(out, U(0), lanes.woven_low(even, odd))
    lanes.store8(out, U(8), lanes.woven_high(even, odd))
    lanes.store4by2(out, U(20), U(16), lanes.load4by2(row, U(9), U(1)))
    return lanes.parts(lanes.sums(a, b, even, odd)), lanes.parts(lanes.fold(lanes.over(a, b)))


def test_registers_are_summed_divided_taken_apart_and_woven():
    row, out = np.random.default_rng(5).random((2, 24)).astype(np.float32)
    sums, quotients = _both_ways(row, out)
    row = row[:16]
    assert np.array_equal(out, np.concatenate([row, row[1:5], row[9:13]]))
    assert np.allclose(sums, [part.sum() for part in (row[:8], row[8:], row[::2], row[1::2])])
    quotient = row[:8] / row[8:]
    assert np.allclose(quotients, quotient[:4] + quotient[4:])


@pytest.mark.slow
def test_registers_are_there_when_only_a_part_comes_out_of_the_cache(tmp_path):
    """As after a first run that was stopped while it compiled."""
    (tmp_path / "loops.py").write_text(
        "import numpy as np\nfrom blursynth.common.compiled import compiled\nfrom blursynth.walk import lanes\n\n"
        "@compiled\ndef plain(x):\n    return x + 1\n\n"
        "@compiled\ndef registers(x):\n    return lanes.sum8(lanes.all8(x))\n\n"
        "def both(x):\n    return plain(x), registers(x)\n"
    )
    for call in ("print(plain(np.float32(1)))", "print(*both(np.float32(1)))"):
        run = subprocess.run(
            [sys.executable, "-c", f"from loops import *; {call}"], cwd=tmp_path, capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["2.0", "8.0"]
