"""What a GPU gives, in one run of under ten minutes: tests, agreement, integration against its floor, RIFE, training.

    python benchmarks/gpu.py --out FOLDER [--device cuda] [--quick] [--parts tests,agreement,...]

Each part runs in a process of its own, for a limited time: one that fails or hangs costs the others nothing, and what it
measured before is kept. FOLDER/gpu.json and FOLDER/gpu.md (the table) are written anew after every part. It runs from a
checkout that is not installed; parts that lack a package say so. --device cpu --quick tries the script itself at tiny
sizes, with the kernel by Triton's interpreter where triton is installed: its figures mean nothing.

- machine: bandwidth of a copy on the device, and from the CPU's memory to it.
- tests: the tests of the kernel and of torch's path, on the device.
- agreement: a disc crosses a panning texture, flows known; the exposure by numba on the CPU, and by the kernel and torch on
  the device, in sRGB codes. At most 1 code apart is the aim.
- integration: pairs a second of nine frames whose codes and flows are given, by the kernel and by torch: `whole` brings them
  to the device, integrates and fetches the result; `resident` is the integration alone. The floor is the bytes that must
  move (see `floor_bytes`) over the bandwidth of a copy.
- tiles: the kernel's pixels a program, at the smallest size.
- window: seconds of a sample as `make` computes it, on the CPU and with the device, and of its flows alone, which the CPU
  computes in both.
- steps: training steps on one batch that lies on the device, float32 eager against bf16, channels last, compiled. The first
  loss of each must agree with float32's.
- fit: the same through `fit` with its loader: samples a second, and the share of time that it waits for data.
- rife: pairs a second with RIFE between frames, where its weights are installed.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
if importlib.util.find_spec("blursynth.pipelines") is None:  # a checkout that is not installed
    _folder = ROOT / "pipelines"
    _spec = importlib.util.spec_from_file_location(
        "blursynth.pipelines", _folder / "__init__.py", submodule_search_locations=[str(_folder)]
    )
    assert _spec is not None
    sys.modules["blursynth.pipelines"] = importlib.util.module_from_spec(_spec)

import click  # noqa: E402
import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

FRAMES = 9
SIZES = {"720p": (720, 1280), "1080p": (1080, 1920), "4K": (2160, 3840)}
QUICK_SIZES = {"small": (32, 48)}
PAN, DISC = (9.0, 2.0), (-6.0, 5.0)  # px a frame
MODES: dict[str, dict[str, Any]] = {
    "fp32 eager": {"amp": "off", "channels_last": False, "tf32": False},
    "tf32 channels last": {"amp": "off"},
    "bf16": {"amp": "bf16", "channels_last": False},
    "bf16 channels last": {"amp": "bf16"},
    "bf16 channels last compiled": {"amp": "bf16", "compile": True},
    "bf16 compiled": {"amp": "bf16", "channels_last": False, "compile": True},
}
"""Settings under [run], beside channels_last and tf32 on, deterministic off."""
LIMITS_S = {
    "machine": 30, "tests": 150, "agreement": 60, "integration": 90, "tiles": 40, "window": 60, "steps": 150, "fit": 120,
    "rife": 50,
}  # fmt: skip
"""The parts in turn, and how long each may take."""
TOTAL_S = 570.0
COMPILE_S = 50.0  # what a compilation of a training step may take
TILES = ((8, 4), (16, 2), (32, 1), (8, 8), (16, 4), (8, 16))
KINDS = (("kernel", True), ("torch", False))


class Setup(NamedTuple):
    """How a part runs. save: keeps what it has found so far; ends: the clock's time by which it must end."""

    device: str
    quick: bool
    seconds: float
    sizes: dict[str, tuple[int, int]]
    ends: float
    save: Callable[[dict[str, Any]], None]


def texture(seed: int, h: int, w: int) -> np.ndarray:
    """Smooth noise in linear light, float32 (h, w, 3) in [0, 1]."""
    rng = np.random.default_rng(seed)
    total = np.zeros((h, w, 3), np.float32)
    for cell, share in ((96, 0.5), (24, 0.3), (6, 0.2)):
        small = rng.random((h // cell + 2, w // cell + 2, 3), dtype=np.float32)
        total += share * cv2.resize(small, (w, h), interpolation=cv2.INTER_CUBIC)
    return total.clip(0, 1)


def scene(h: int, w: int) -> tuple[list[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]:
    """Linear light (h, w, 4) of the frames (fourth channel one), and both flows of each interval."""
    back, front = texture(1, h, w), texture(2, h, w)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    lights, insides = [], []
    for i in range(FRAMES):
        moved = [
            cv2.remap(t, x - dx * i, y - dy * i, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
            for t, (dx, dy) in ((back, PAN), (front, DISC))
        ]
        centre = w / 2 + DISC[0] * (i - FRAMES // 2), h / 2 + DISC[1] * (i - FRAMES // 2)
        inside = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 < (h / 4) ** 2)[..., None]
        light = np.ones((h, w, 4), np.float32)
        light[..., :3] = np.where(inside, moved[1], moved[0])
        lights.append(light)
        insides.append(inside)
    motion = [np.where(m, np.float32(DISC), np.float32(PAN)).astype(np.float32) for m in insides]
    return lights, [(motion[i], -motion[i + 1]) for i in range(FRAMES - 1)]


def codes(light: np.ndarray) -> np.ndarray:
    """sRGB codes, not rounded, of linear light."""
    v = light[..., :3].clip(0, 1)
    return 255 * np.where(v <= 0.0031308, 12.92 * v, 1.055 * np.maximum(v, 1e-9) ** (1 / 2.4) - 0.055)


def sync(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def bandwidth(device: str, quick: bool) -> float:
    """Bytes a second, read and written, of a copy on the device."""
    a = torch.empty((1 << 20) if quick else (1 << 28), device=device)
    b = torch.empty_like(a)
    rounds = 20
    b.copy_(a)
    sync(device)
    began = time.perf_counter()
    for _ in range(rounds):
        b.copy_(a)
    sync(device)
    return rounds * 2 * a.numel() * 4 / (time.perf_counter() - began)


def repeat(call: Callable[..., object], seconds: float, device: str, *given: Any) -> float:
    """Median seconds of a call, after one that is not counted."""
    call(*given)
    sync(device)
    times: list[float] = []
    stop = time.perf_counter() + seconds
    while len(times) < 2 or time.perf_counter() < stop:
        began = time.perf_counter()
        call(*given)
        sync(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def expose(
    setup: Setup, frames: list[Any], flows: list[Any], size: tuple[int, int], kernel: bool, **more: Any
) -> Any:
    """A collector of the device that has been given all intervals; frames: `Coded`, or already there."""
    from blursynth.exposure import gpu
    from blursynth.exposure.integrate import Coded
    from blursynth.exposure.shutter import make_shutter

    shutter = more.get("shutter") or make_shutter(size[0], FRAMES - 1)
    exposure = gpu.Exposure(*size, shutter, 16, setup.device, more.get("path"), kernel)
    lights = [gpu.place(f, setup.device) if isinstance(f, Coded) else f for f in frames]
    smooth = [gpu.smooth(v, kernel=kernel) for v in lights]
    for i, (forward, backward) in enumerate(flows):
        exposure.add(i, (lights[i], lights[i + 1]), (smooth[i], smooth[i + 1]), forward, backward)
    if kernel and exposure.integrator != "triton":
        raise RuntimeError("torch integrated in the kernel's place: see the warning")
    return exposure


def fetched(*given: Any) -> np.ndarray:
    return expose(*given).linear()


def coded_scene(h: int, w: int) -> tuple[list[Any], list[tuple[np.ndarray, np.ndarray]]]:
    """`scene` as `Coded` frames."""
    from blursynth.camera.response import load_response
    from blursynth.exposure.integrate import Coded

    lights, flows = scene(h, w)
    table = load_response("srgb").table()
    return [Coded(codes(v).round().astype(np.uint8), table) for v in lights], flows


def machine(setup: Setup) -> dict[str, Any]:
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if setup.device == "cuda" else platform.processor() or "cpu",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu_cores": os.cpu_count(),
    }
    try:
        import triton

        found["triton"] = triton.__version__
    except ImportError:
        found["triton"] = "not installed"
    found["copy_gb_per_s"] = bandwidth(setup.device, setup.quick) / 1e9
    there = torch.empty((1 << 16) if setup.quick else (1 << 26), device=setup.device)
    here = torch.empty(there.shape, pin_memory=setup.device == "cuda")
    took = repeat(lambda: there.copy_(here, non_blocking=True), setup.seconds / 4, setup.device)
    return found | {"upload_gb_per_s": here.numel() * 4 / took / 1e9}


def tests(setup: Setup) -> dict[str, Any]:
    files = [f"tests/blursynth/{name}.py" for name in ("gpu/test_triton_walk", "exposure/test_gpu")]
    command = [sys.executable, "-m", "pytest", *files, "-p", "no:cacheprovider"]
    command += ["-k", "still or without" if setup.quick else "not compiles"]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    run = subprocess.run(
        command, cwd=ROOT, text=True, capture_output=True, env=environment, timeout=setup.ends - time.time()
    )
    lines = run.stdout.strip().splitlines()
    return {
        "result": next(
            (v for v in reversed(lines) if "passed" in v or "failed" in v), lines[-1:] or "no output"
        ),
        "exit": run.returncode,
        "failed": [v[:200] for v in lines if v.startswith(("FAILED", "ERROR"))][:20],
        "errors": run.stderr[-500:],
    }


def agreement(setup: Setup) -> dict[str, Any]:
    """Differences in codes of the integrators on the CPU and on the device."""
    from blursynth.exposure import integrate
    from blursynth.exposure.shake import draw_path
    from blursynth.exposure.shutter import make_shutter

    h, w = next(iter(setup.sizes.values()))
    frames, flows = coded_scene(h, w)
    frames, flows = frames[:5], flows[:4]
    found: dict[str, Any] = {}
    for name, px, profile in (
        ("no shake", 0.0, None),
        ("shake 15 px", 15.0, None),
        ("triangle", 0.0, [0, 1, 0]),
    ):
        path = draw_path(np.random.default_rng(0), px, w, h) if px else None
        shutter = make_shutter(h, 4, 0.9, 0.1, None if profile is None else np.array(profile, np.float32))
        ours = integrate.Exposure(h, w, shutter, 16, path)
        smooth = [f.smooth() for f in frames]
        for i, flow in enumerate(flows):
            ours.add(i, (frames[i], frames[i + 1]), (smooth[i], smooth[i + 1]), *flow)
        for kind, kernel in KINDS:
            try:
                began = time.perf_counter()
                there = expose(setup, frames, flows, (h, w), kernel, shutter=shutter, path=path)
                apart = np.abs(codes(ours.linear()) - codes(there.linear()))
                found[f"{name}, {kind}"] = {
                    "worst_codes": float(apart.max()),
                    "share_within_1": float((apart <= 1).mean()),
                    "mean_codes": float(apart.mean()),
                    "steps": f"{there.steps} of {ours.steps}",
                    "first_call_s": time.perf_counter() - began,
                }
            except Exception as e:
                found[f"{name}, {kind}"] = why(e)
            setup.save(found)
    return found


def floor_bytes(h: int, w: int) -> int:
    """Bytes of the device's memory that a pair must move: of each interval both frames' codes and pre-filtered light, both
    flows, the sum read and written; of each frame its codes once more and the pre-filtered light written; the result."""
    interval, frame, result = 2 * 3 + 2 * 8 + 2 * 8 + 2 * 16, 3 + 8, 16 + 12
    return h * w * ((FRAMES - 1) * interval + FRAMES * frame + result)


def integration(setup: Setup) -> dict[str, Any]:
    """Pairs a second and times the floor, by size."""
    from blursynth.exposure import gpu

    device, found = setup.device, {}
    copy = bandwidth(device, setup.quick)
    for name, (h, w) in setup.sizes.items():
        frames, flows = coded_scene(h, w)
        for kind, kernel in KINDS:
            try:
                size, placed = (h, w), [gpu.place(f, device) for f in frames]
                there = [tuple(torch.as_tensor(f, device=device) for f in pair) for pair in flows]
                inside = repeat(expose, setup.seconds, device, setup, placed, there, size, kernel)
                whole = repeat(fetched, setup.seconds, device, setup, frames, flows, size, kernel)
                floor = floor_bytes(h, w) / copy
                found[f"{name}, {kind}"] = {
                    "pairs_per_s": 1 / whole,
                    "pairs_per_s_resident": 1 / inside,
                    "floor_ms": floor * 1e3,
                    "times_floor": whole / floor,
                    "times_floor_resident": inside / floor,
                }
            except Exception as e:
                found[f"{name}, {kind}"] = why(e)
            setup.save(found)
            if device == "cuda":
                torch.cuda.empty_cache()
    return found


def tiles(setup: Setup) -> dict[str, Any]:
    """Milliseconds of a resident pair by the kernel's tile."""
    from blursynth.exposure import gpu
    from blursynth.gpu import triton_walk

    (h, w), found = next(iter(setup.sizes.values())), {}
    frames, flows = coded_scene(h, w)
    placed = [gpu.place(f, setup.device) for f in frames]
    there = [tuple(torch.as_tensor(f, device=setup.device) for f in pair) for pair in flows]
    if setup.quick:
        placed, there = placed[:3], there[:2]
    for tile in ((64, 32),) if setup.quick else TILES:
        triton_walk.TILE = tile
        took = repeat(lambda: expose(setup, placed, there, (h, w), True), setup.seconds / 2, setup.device)
        found[f"{tile[0]}x{tile[1]}"] = {"ms": took * 1e3}
        setup.save(found)
    return found


def window(setup: Setup) -> dict[str, Any]:
    """Seconds of a sample, by where the light is integrated, and of its flows."""
    from itertools import pairwise

    from blursynth.motion.flow import estimate_pair
    from blursynth.pairs.synthesis import Synthesizer
    from blursynth.recipe import Recipe

    cv2.setNumThreads(1)
    h, w = next(iter(setup.sizes.values()))
    frames = [np.ascontiguousarray(f.codes) for f in coded_scene(h, w)[0]]
    found: dict[str, Any] = {}

    def flow_all(interp: str) -> None:
        for a, b in pairwise(frames):
            estimate_pair(interp, a, b)

    for interp in ("dis", "deepflow"):
        row = {"flows_s": repeat(flow_all, 1, "cpu", interp)}
        for device in dict.fromkeys(("cpu", setup.device)):
            synthesizer = Synthesizer(Recipe(interp=interp, device=device, highlights="off", noise="off"))

            def sample(made: Any = synthesizer) -> Any:
                return made.sample("c", frames, 0, None, np.random.default_rng(0))

            row[f"sample_{device}_s"] = repeat(sample, setup.seconds, device)
        found[interp] = row
        setup.save(found)
    return found


def rife(setup: Setup) -> dict[str, Any]:
    """Pairs a second with RIFE between frames, by size."""
    from blursynth.exposure import gpu
    from blursynth.exposure.rife import Rife, find_weights
    from blursynth.exposure.rife_exposure import RifeExposure
    from blursynth.exposure.shutter import make_shutter

    net = Rife(find_weights(None), setup.device)
    found: dict[str, Any] = {}
    for name, (h, w) in setup.sizes.items():
        lights, flows = scene(h, w)
        frames = [codes(v).round().astype(np.uint8) for v in lights]

        def run(
            h: int = h, w: int = w, lights: Any = lights, flows: Any = flows, frames: Any = frames
        ) -> None:
            exposure = RifeExposure(net, frames, make_shutter(h, FRAMES - 1), 16)
            there = [gpu.to_device(v, setup.device) for v in lights]
            smooth = [gpu.quasi(v) for v in there]
            for i, (forward, backward) in enumerate(flows):
                exposure.add(i, (there[i], there[i + 1]), (smooth[i], smooth[i + 1]), forward, backward)
            exposure.linear()

        found[name] = {"pairs_per_s": 1 / repeat(run, setup.seconds / 2, setup.device)}
        setup.save(found)
    return found


def wake(net: torch.nn.Module) -> None:
    """A net that starts as the identity would agree with anything: NAFNet's residual weights are not left at zero."""
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith((".beta", ".gamma")):
                p.fill_(0.3)


def steps(setup: Setup) -> dict[str, Any]:
    """Steps a second of each mode, for the FPN with its GAN and for NAFNet."""
    from deblur_train.config import load_config
    from deblur_train.training.step import Learner, tune

    device, quick, seconds = setup.device, setup.quick, setup.seconds
    found: dict[str, Any] = {}
    batch, crop = (2, 64) if quick else (32, 256)
    for config_name, backbone in (("nafnet", "nafnet"), ("modern", "mobilenet")):
        base = load_config(str(ROOT / "pipelines" / f"train-{config_name}.toml"), {"backbone": backbone})
        base = base.model_copy(update={"model": base.model.model_copy(update={"near_identity": False})})
        rows: dict[str, Any] = {}
        for mode, settings in MODES.items():
            if settings.get("compile") and (
                quick
                or time.time() > setup.ends - COMPILE_S
                or (backbone == "mobilenet" and len(settings) > 2)
            ):
                rows[mode] = "not run: " + ("a quick run" if quick else "time")
                continue
            run = base.run.model_copy(update={"deterministic": False, **settings})
            config = base.model_copy(update={"run": run, "batch_size": batch, "crop": crop})
            try:
                torch.manual_seed(0)
                tune(torch.device(device), run)
                learner = Learner(config, torch.device(device))
                wake(learner.generator)
                learner.start()
                memory = torch.channels_last if run.channels_last else torch.contiguous_format
                g = torch.Generator().manual_seed(0)
                pair = tuple(
                    (torch.rand(batch, 3, crop, crop, generator=g) * 2 - 1)
                    .to(device)
                    .contiguous(memory_format=memory)
                    for _ in range(2)
                )
                if device == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                began = time.perf_counter()
                first = float(learner.step([pair], 1e-5)["loss_g"])  # type: ignore[list-item]
                start_s = time.perf_counter() - began
                step_s = repeat(lambda: learner.step([pair], 1e-5), seconds, device)  # type: ignore[list-item] # noqa: B023
                rows[mode] = {
                    "steps_per_s": 1 / step_s,
                    "crops_per_s": batch / step_s,
                    "first_loss": first,
                    "first_step_s": start_s,
                    "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
                }
            except Exception as e:  # what a card or a compiler cannot do is a result too
                rows[mode] = why(e)
            setup.save(found | {f"{backbone}, batch {batch} of {crop}": rows})
            learner = None  # type: ignore[assignment]
            if device == "cuda":
                torch.cuda.empty_cache()
        plain = rows["fp32 eager"]
        for row in rows.values():
            if isinstance(row, dict) and isinstance(plain, dict):
                row["speedup"] = row["steps_per_s"] / plain["steps_per_s"]
                row["loss_off"] = abs(row["first_loss"] / plain["first_loss"] - 1)
        found[f"{backbone}, batch {batch} of {crop}"] = rows
    return found


def fit_part(setup: Setup) -> dict[str, Any]:
    """Samples a second of `fit` and the share of time that it waits for data, by mode."""
    from rich.console import Console

    from blursynth import pack
    from deblur_train import fit

    found: dict[str, Any] = {}
    size, count, batch, crop, number = (
        ((96, 128), 2, 2, 64, 4) if setup.quick else ((720, 1280), 64, 32, 256, 150)
    )
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        for i in range(count):
            for role, blur in (("blur", 7), ("sharp", 1)):
                (data / role).mkdir(parents=True, exist_ok=True)
                picture = cv2.blur((texture(i, *size) * 255).astype(np.uint8), (blur, 1))
                cv2.imwrite(str(data / role / f"{i:03d}.png"), picture)
        pack(None, data, blur=data / "blur", sharp=data / "sharp", val_fraction=0)
        for mode in ("fp32 eager", "bf16 channels last", "bf16 channels last compiled"):
            if "compiled" in mode and (setup.quick or time.time() > setup.ends - COMPILE_S):
                found[mode] = "not run: " + ("a quick run" if setup.quick else "time")
                continue
            try:
                run = {"log_every": max(1, number // 6), "deterministic": False} | MODES[mode]
                out = Path(scratch) / mode.replace(" ", "-")
                fit(
                    "nafnet", console=Console(file=io.StringIO()), shards=str(data), out=str(out), steps=number,
                    batch_size=batch, crop=crop, device=setup.device, workers=0 if setup.quick else 12, run=run,
                )  # fmt: skip
                laps = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
                laps = [v for v in laps if "wait_share" in v][1:]
                found[mode] = {
                    k: statistics.median(v[k] for v in laps) for k in ("samples_per_s", "wait_share")
                }
            except Exception as e:
                found[mode] = why(e)
            setup.save(found)
    return found


def why(error: BaseException) -> str:
    return f"not run: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"


PARTS: dict[str, Callable[[Setup], dict[str, Any]]] = {
    "machine": machine, "tests": tests, "agreement": agreement, "integration": integration, "tiles": tiles,
    "window": window, "steps": steps, "fit": fit_part, "rife": rife,
}  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """Markdown: a row a leaf group."""
    rows = ["| part | what | figures |", "|---|---|---|"]

    def walk(part: str, names: tuple[str, ...], value: Any) -> None:
        if isinstance(value, dict) and any(isinstance(v, dict) for v in value.values()):
            for name, inner in value.items():
                walk(part, (*names, name), inner)
        elif isinstance(value, dict):
            words = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in value.items()]
            rows.append(f"| {part} | {', '.join(names)} | {'; '.join(words)} |")
        else:
            rows.append(f"| {part} | {', '.join(names)} | {value} |")

    for part, value in result.items():
        walk(part, (), value)
    return "\n".join(rows) + "\n"


def run_part(name: str, file: Path, options: list[str], limit: float) -> Any:
    """What a part found, in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--part", name, "--file", str(file), *options]
    said = ""
    with subprocess.Popen(
        [*command, "--ends", str(time.time() + limit)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            said = process.communicate(timeout=limit)[0]
            ended = f"exit {process.returncode}" if process.returncode else None
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            said, ended = process.communicate()[0], f"stopped after {limit:.0f} s"
    found = json.loads(file.read_text()) if file.exists() else {}
    warnings = [line[:300] for line in said.splitlines() if line.startswith("warning:")]
    if ended:
        found["ended"] = f"{ended}: {(said.strip().splitlines() or [''])[-1][:300]}"
    return found | ({"warnings": warnings} if warnings else {})


@click.command(help=__doc__)
@click.option(
    "--out", default=os.environ.get("OUT"), type=click.Path(path_type=Path, file_okay=False),
    help="Folder of gpu.json and gpu.md; default: $OUT.",
)  # fmt: skip
@click.option("--device", default="cuda", show_default=True, type=click.Choice(["cuda", "cpu"]))
@click.option("--quick", is_flag=True, help="Tiny sizes, to try the script.")
@click.option("--seconds", default=1.5, show_default=True, help="How long each figure is measured.")
@click.option("--parts", default=",".join(LIMITS_S), show_default=True, help="Which parts to run.")
@click.option("--part", type=click.Choice(list(LIMITS_S)), hidden=True)
@click.option("--file", type=click.Path(path_type=Path), hidden=True)
@click.option("--ends", type=float, hidden=True)
def main(
    out: Path | None, device: str, quick: bool, seconds: float, parts: str, part: str | None, file: Path | None,
    ends: float | None,
) -> None:  # fmt: skip
    if part is not None and file is not None and ends is not None:
        return _part(part, file, ends, device, quick, seconds)
    if out is None:
        raise click.UsageError("give --out FOLDER")
    unknown = set(parts.split(",")) - set(LIMITS_S)
    if unknown:
        raise click.UsageError(
            f"--parts: no part {', '.join(sorted(unknown))}; there are {', '.join(LIMITS_S)}"
        )
    began = time.time()
    out.mkdir(parents=True, exist_ok=True)
    options = [
        "--device",
        device,
        "--seconds",
        str(0.1 if quick else seconds),
        *(["--quick"] if quick else []),
    ]
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in [n for n in LIMITS_S if n in parts.split(",")]:
            left = TOTAL_S - (time.time() - began)
            start = time.time()
            if left < 10:
                result[name] = "not run: time"
            else:
                limit = min(LIMITS_S[name] * (4 if quick else 1), left)
                result[name] = run_part(name, Path(scratch) / f"{name}.json", options, limit)
            result.setdefault("seconds", {})[name] = round(time.time() - start, 1)
            (out / "gpu.json").write_text(json.dumps(result, indent=1) + "\n")
            (out / "gpu.md").write_text(table(result))
            click.echo(f"{name}: {time.time() - start:.0f} s")
    click.echo(f"\n{table(result)}\n{time.time() - began:.0f} s; {out / 'gpu.md'}")


def _part(part: str, file: Path, ends: float, device: str, quick: bool, seconds: float) -> None:
    if device == "cpu":
        torch.set_num_threads(1)
        os.environ["TRITON_INTERPRET"] = "1"
        try:
            from blursynth.gpu import triton_walk

            # The interpreter's time goes by programs.
            triton_walk.TILE = triton_walk.PIXELS = (64, 64)
        except ImportError:
            pass

    def save(found: dict[str, Any]) -> None:
        file.write_text(json.dumps(found))

    setup = Setup(device, quick, seconds, QUICK_SIZES if quick else SIZES, ends, save)
    try:
        save(PARTS[part](setup))
    except Exception as e:
        found = json.loads(file.read_text()) if file.exists() else {}
        save(found | {"ended": why(e)})


if __name__ == "__main__":
    main()
