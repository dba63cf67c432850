"""The Triton kernel gives what torch and numba give: compiled where there is a CUDA device, else by Triton's interpreter,
on small frames; skipped where triton is not installed (it comes with CUDA builds of torch, and is no dependency)."""

import importlib.util
import subprocess
import sys
from itertools import pairwise, product

import numpy as np
import pytest
import torch

from blursynth.camera.response import load_response
from blursynth.exposure import gpu, integrate
from blursynth.exposure.shake import draw_path
from blursynth.exposure.shutter import make_shutter
from blursynth.motion.flow import PairFlow, estimate_pair
from tests.blursynth.exposure.test_gpu import shutters
from tests.helpers.moving_light import moving_disc
from tests.helpers.places import ROOT

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
SRGB = load_response("srgb")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
H, W = 44, 60


@pytest.fixture(autouse=True)
def kernel(monkeypatch):
    """The kernel's module; the interpreter takes as long for a program of 32 pixels as for one of thousands."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    from blursynth.gpu import triton_walk

    if DEVICE == "cpu":
        monkeypatch.setattr(triton_walk, "TILE", (64, 64))
        monkeypatch.setattr(triton_walk, "PIXELS", (64, 64))
    caches = gpu.check_kernel, gpu._check_prefilter
    for cache in caches:
        cache.cache_clear()
    yield triton_walk
    for cache in caches:
        cache.cache_clear()
    torch.set_num_threads(before)


def crossing(count: int = 3) -> list[np.ndarray]:
    """Frames of a small disc that crosses a texture moving another way, RGB uint8 (H, W, 3)."""
    return moving_disc((7.0, -3.0), count, size=(H, W), centre=(20, 28), radius=11, ground=(-0.5, 0.4))


def expose(frames, flows, shutter, most=16, lamp=0.0, path=None, above=None, kernel=True):
    """What a collector of the device gives, and its count of steps and of the most of one pixel."""
    h, w = frames[0].shape[:2]
    e = gpu.Exposure(h, w, shutter, most, DEVICE, path, kernel)
    lights = [gpu.place(integrate.Coded(f, SRGB.table(lamp), above), DEVICE) for f in frames]
    smooth = [gpu.smooth(v, kernel=kernel) for v in lights]
    for i, f in enumerate(flows):
        e.add(i, (lights[i], lights[i + 1]), (smooth[i], smooth[i + 1]), f.forward, f.backward)
    assert e.integrator == ("triton" if kernel else "torch")
    return e.linear(), e.steps, e.longest


def on_the_cpu(frames, flows, shutter, most=16, lamp=0.0, path=None, above=None):
    h, w = frames[0].shape[:2]
    e = integrate.Exposure(h, w, shutter, most, path)
    lights = [integrate.Coded(f, SRGB.table(lamp), above) for f in frames]
    smooth = [v.smooth() for v in lights]
    for i, f in enumerate(flows):
        e.add(i, (lights[i], lights[i + 1]), (smooth[i], smooth[i + 1]), f.forward, f.backward)
    return e.linear(), e.steps, e.longest


def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(SRGB.encode(a).astype(int) - SRGB.encode(b)).max(2)


@pytest.mark.parametrize(("restored", "profiled", "shaken"), list(product([False, True], repeat=3)))
def test_every_kind_of_interval_passes_its_check(restored, profiled, shaken, capfd):
    assert gpu.check_kernel(DEVICE, restored, profiled, shaken)
    assert capfd.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("shutter", ["box", "triangle, part, rolling", "instant of each row"])
@pytest.mark.parametrize("px", [0, 6])
def test_agrees_with_numba_within_one_code(shutter, px):
    frames = crossing()
    flows = [estimate_pair("dis", a, b) for a, b in pairwise(frames)]
    path = draw_path(np.random.default_rng(5), px, W, H) if px else None
    above = np.zeros((H, W, 3), np.float16)
    above[20:23, 30:33] = 5
    for most, lamp, on_top in ((16, 0.0, None), (3, 0.8, None), (3, 0.0, above)):
        a, steps, longest = on_the_cpu(frames, flows, shutters(H)[shutter], most, lamp, path, on_top)
        b, steps_there, longest_there = expose(frames, flows, shutters(H)[shutter], most, lamp, path, on_top)
        assert abs(steps - steps_there) <= 1e-3 * steps and abs(longest - longest_there) <= 1
        assert np.mean(apart(a, b) > 1) <= 0.001 and np.mean(apart(a, b) > 0) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("size", [(2, 2), (5, 3), (9, 8), (7, 9), (10, 19)])
def test_a_picture_of_any_size_is_torch_s_by_the_tile_that_gpus_take(size, kernel, monkeypatch):
    assert gpu.check_kernel(DEVICE)  # by the large tile: the interpreter takes minutes by this one
    monkeypatch.setattr(kernel, "TILE", (8, 4))
    monkeypatch.setattr(kernel, "PIXELS", (32, 4))
    h, w = size
    rng = np.random.default_rng(h)
    frames = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for _ in range(2)]
    flows = [PairFlow(*(rng.normal(0, 3, (h, w, 2)).astype(np.float32) for _ in range(2)))]
    shutter = make_shutter(h, 1, 0.7)
    a, steps, longest = expose(frames, flows, shutter, kernel=False)
    b, steps_there, longest_there = expose(frames, flows, shutter)
    assert abs(steps - steps_there) <= 8  # a GPU's root may round otherwise
    assert abs(longest - longest_there) <= 1
    assert np.mean(np.abs(a - b) > 1e-5) < 0.02


def test_a_still_pixel_keeps_its_code():
    frame = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    zero = np.zeros((H, W, 2), np.float32)
    for shutter in shutters(H).values():
        got, _, longest = expose([frame] * 3, [PairFlow(zero, zero)] * 2, shutter)
        assert np.array_equal(SRGB.encode(got), frame) and longest == 1


@pytest.mark.parametrize("fault", [np.nan, np.inf])
@pytest.mark.parametrize("kernel_runs", [True, False])
def test_a_flow_that_is_no_number_is_refused(fault, kernel_runs):
    flow = np.zeros((H, W, 2), np.float32)
    flow[7, 19, 1] = fault
    with pytest.raises(ValueError, match="flow of 1 pixels is not finite"):
        expose(crossing(2), [PairFlow(np.zeros_like(flow), flow)], make_shutter(H, 1), kernel=kernel_runs)


@pytest.mark.parametrize("fault", ["breaks", "is off", "is not a number"])
def test_torch_integrates_where_the_kernel_fails_and_one_line_says_so(fault, kernel, monkeypatch, capfd):
    whole = kernel.add_interval

    def add(acc, *rest):
        if fault == "breaks":
            raise RuntimeError("no such instruction\nand a long trace")
        whole(acc, *rest)
        acc[:, 0] *= 1.01 if fault == "is off" else float("nan")

    monkeypatch.setattr(kernel, "add_interval", add)
    frames = crossing(2)
    flows = [estimate_pair("dis", *frames)]
    h, w = frames[0].shape[:2]
    e = gpu.Exposure(h, w, make_shutter(h, 1), 16, DEVICE)
    lights = [gpu.place(integrate.Coded(f, SRGB.table()), DEVICE) for f in frames]
    for _ in range(2):
        e.add(0, tuple(lights), tuple(map(gpu.smooth, lights)), flows[0].forward, flows[0].backward)
    assert e.integrator == "torch"
    said = capfd.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("warning: device") and "torch integrates" in said[0]
    wanted = expose(frames, flows, make_shutter(h, 1), kernel=False)[0]
    assert np.abs(e.linear() - wanted).max() < 1e-4  # the pre-filter stays the kernel's: float16's last digit


def test_without_triton_torch_integrates(monkeypatch, capfd):
    for name in ("blursynth.gpu.triton_walk", "triton"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delattr(sys.modules["blursynth.gpu"], "triton_walk")
    assert not gpu.check_kernel(DEVICE)
    assert "needs the package triton" in capfd.readouterr().err


COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from blursynth.gpu import triton_walk
walk = triton_walk._walk
types = {"acc": "*fp32", "tally": "*i64", "fwd": "*fp32", "bwd": "*fp32", "disputed": "*u8", "start": "*fp32"}
types |= {"stop": "*fp32", "i": "fp32", "fine": "fp32"}
types |= {f"{n}{j}": t for j in "01" for n, t in (("codes", "*u8"), ("table", "*fp32"), ("smooth", "*fp16"))}
types |= {n: "i32" for n in ("w", "h", "kmax", "parts", "places", "rows")}
rest = {"COLUMNS": triton_walk.TILE[0], "ROWS": triton_walk.TILE[1]}
rest |= {n: None for n in walk.arg_names if n not in types and n not in rest}
signature = {n: types.get(n, "constexpr") for n in walk.arg_names}
place = {n: (i,) for i, n in enumerate(walk.arg_names)}
aligned = {place[n]: [["tt.divisibility", 16]] for n, t in types.items() if t.startswith("*")}
source = ASTSource(walk, signature, {place[n]: v for n, v in rest.items()}, aligned)
made = triton.compile(source, target=GPUTarget("cuda", int(sys.argv[1]), 32), options={"num_warps": 1})
print(len(made.asm["cubin"]), made.metadata.shared)
"""


@pytest.mark.slow
@pytest.mark.parametrize("capability", [75, 80, 90])
def test_the_kernel_compiles_for_gpus_that_are_not_here(capability, tmp_path):
    """A warp shares nothing through memory: no shared memory is asked for."""
    run = subprocess.run(
        [sys.executable, "-c", COMPILE, str(capability)], cwd=ROOT, text=True, capture_output=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": ":".join([str(ROOT), *sys.path])},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    size, shared = map(int, run.stdout.split())
    assert size > 4000 and shared == 0
