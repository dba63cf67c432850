"""What a GPU gives, in one run of under four minutes: agreement, integration against its floor, RIFE, training steps.

    python benchmarks/gpu.py --out FOLDER [--device cuda] [--quick]

Writes FOLDER/gpu.json after every part and prints a table; a part that cannot run says why and the others go on. It
runs from a checkout that is not installed. --device cpu --quick tries the script itself at tiny sizes.

- Agreement: a disc crosses a panning texture, flows known; the exposure by numba on the CPU and by torch on the
  device, with and without camera shake, in sRGB codes. At most 1 code apart is the aim.
- Integration: pairs a second of nine frames, their light and flows given, brought to the device and integrated. The
  floor is the bytes that must move (both lights, both pre-filtered lights and flows of an interval read once, the sum
  read and written) over the bandwidth of a copy on the device. Decoding and optical flow run on CPU cores beside it.
- RIFE: the same with RIFE between frames, where its weights are installed.
- Training: steps of `Learner` on one synthetic batch that lies on the device, float32 eager against bf16 with channels
  last, and compiled. The first loss of each must agree with float32's.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import click  # noqa: E402
import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

FRAMES = 9
SIZES = {"720p": (720, 1280), "1080p": (1080, 1920), "4K": (2160, 3840)}
QUICK_SIZES = {"small": (48, 80)}
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
LIMIT_S = 225.0  # no part begins a compilation after this many seconds, less what one may take
COMPILE_S = 60.0


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


def agreement(device: str, size: tuple[int, int]) -> dict[str, Any]:
    """Differences in codes of the integrators on the CPU and on the device."""
    from blursynth.exposure import gpu, integrate
    from blursynth.exposure.shake import draw_path
    from blursynth.exposure.shutter import make_shutter

    h, w = size
    lights, flows = scene(h, w)
    found = {}
    for name, px in (("no shake", 0.0), ("shake 15 px", 15.0)):
        path = draw_path(np.random.default_rng(0), px, w, h) if px else None
        shutter = make_shutter(h, 4, 0.9)
        ours = integrate.Exposure(h, w, shutter, 16, path)
        there = gpu.Exposure(h, w, shutter, 16, device, path)
        placed = [gpu.to_device(v, device) for v in lights[:5]]
        for i, (forward, backward) in enumerate(flows[:4]):
            pair = lights[i], lights[i + 1]
            ours.add(i, pair, (integrate.quasi(pair[0]), integrate.quasi(pair[1])), forward, backward)
            near = placed[i], placed[i + 1]
            there.add(i, near, (gpu.quasi(near[0]), gpu.quasi(near[1])), forward, backward)
        apart = np.abs(codes(ours.linear()) - codes(there.linear()))
        found[name] = {
            "worst_codes": float(apart.max()),
            "share_within_1": float((apart <= 1).mean()),
            "mean_codes": float(apart.mean()),
        }
    return found


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


def repeat(call: Callable[[], object], seconds: float, device: str) -> float:
    """Median seconds of a call, after one that is not counted."""
    call()
    sync(device)
    times: list[float] = []
    stop = time.perf_counter() + seconds
    while len(times) < 2 or time.perf_counter() < stop:
        began = time.perf_counter()
        call()
        sync(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def integration(
    device: str, sizes: dict[str, tuple[int, int]], copy: float, seconds: float
) -> dict[str, Any]:
    """Pairs a second and times the floor, by size."""
    from blursynth.exposure import gpu
    from blursynth.exposure.shutter import make_shutter

    found = {}
    for name, (h, w) in sizes.items():
        lights, flows = scene(h, w)

        def expose(placed: list[torch.Tensor] | None, h=h, w=w, lights=lights, flows=flows) -> None:
            exposure = gpu.Exposure(h, w, make_shutter(h, FRAMES - 1), 16, device)
            there = placed or [gpu.to_device(v, device) for v in lights]
            smooth = [gpu.quasi(v) for v in there]
            for i, (forward, backward) in enumerate(flows):
                exposure.add(i, (there[i], there[i + 1]), (smooth[i], smooth[i + 1]), forward, backward)
            exposure.linear()

        whole = repeat(lambda: expose(None), seconds, device)
        placed = [gpu.to_device(v, device) for v in lights]
        flows = [tuple(torch.as_tensor(f, device=device) for f in pair) for pair in flows]  # type: ignore[misc]

        def resident(flows=flows, placed=placed, h=h, w=w) -> None:
            exposure = gpu.Exposure(h, w, make_shutter(h, FRAMES - 1), 16, device)
            smooth = [gpu.quasi(v) for v in placed]
            for i, (forward, backward) in enumerate(flows):
                exposure.add(i, (placed[i], placed[i + 1]), (smooth[i], smooth[i + 1]), forward, backward)
            sync(device)

        inside = repeat(resident, seconds, device)
        floor = (FRAMES - 1) * h * w * (4 * 16 + 2 * 8 + 2 * 16) / copy
        found[name] = {
            "pairs_per_s": 1 / whole,
            "pairs_per_s_resident": 1 / inside,
            "floor_ms": floor * 1e3,
            "times_floor_resident": inside / floor,
            "times_floor": whole / floor,
        }
        if device == "cuda":
            torch.cuda.empty_cache()
    return found


def rife(device: str, sizes: dict[str, tuple[int, int]], seconds: float) -> dict[str, Any]:
    """Pairs a second with RIFE between frames, by size."""
    from blursynth.exposure import gpu
    from blursynth.exposure.rife import Rife, RifeExposure, find_weights
    from blursynth.exposure.shutter import make_shutter

    net = Rife(find_weights(None), device)
    found = {}
    for name, (h, w) in sizes.items():
        lights, flows = scene(h, w)
        frames = [codes(v).round().astype(np.uint8) for v in lights]

        def expose(h=h, w=w, lights=lights, flows=flows, frames=frames) -> None:
            exposure = RifeExposure(net, frames, make_shutter(h, FRAMES - 1), 16)
            there = [gpu.to_device(v, device) for v in lights]
            smooth = [gpu.quasi(v) for v in there]
            for i, (forward, backward) in enumerate(flows):
                exposure.add(i, (there[i], there[i + 1]), (smooth[i], smooth[i + 1]), forward, backward)
            exposure.linear()

        found[name] = {"pairs_per_s": 1 / repeat(expose, seconds, device)}
    return found


def wake(net: torch.nn.Module) -> None:
    """A net that starts as the identity would agree with anything: NAFNet's residual weights are not left at zero."""
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith((".beta", ".gamma")):
                p.fill_(0.3)


def training(device: str, quick: bool, seconds: float, late: Callable[[], bool]) -> dict[str, Any]:
    """Steps a second of each mode, for the FPN with its GAN and for NAFNet."""
    from deblur_train.config import load_config
    from deblur_train.training.step import Learner, tune

    found: dict[str, Any] = {}
    batch, crop = (2, 64) if quick else (32, 256)
    for config_name, backbone in (("nafnet", "nafnet"), ("modern", "mobilenet")):
        base = load_config(str(ROOT / "pipelines" / f"train-{config_name}.toml"), {"backbone": backbone})
        base = base.model_copy(update={"model": base.model.model_copy(update={"near_identity": False})})
        rows: dict[str, Any] = {}
        for mode, settings in MODES.items():
            if settings.get("compile") and (
                quick or late() or (backbone == "mobilenet" and len(settings) > 2)
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
                rows[mode] = f"not run: {type(e).__name__}: {str(e).splitlines()[0][:200] if str(e) else ''}"
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


def show(result: dict[str, Any], depth: int = 0) -> None:
    """Nested results as indented lines, leaves of one part in one line."""
    for name, value in result.items():
        pad = "  " * depth
        if isinstance(value, dict) and any(isinstance(v, dict) for v in value.values()):
            click.echo(f"{pad}{name}")
            show(value, depth + 1)
        elif isinstance(value, dict):
            words = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in value.items()]
            click.echo(f"{pad}{name:30} {', '.join(words)}")
        else:
            click.echo(
                f"{pad}{name:30} {value:.4g}" if isinstance(value, float) else f"{pad}{name:30} {value}"
            )


@click.command(help=__doc__)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of gpu.json."
)
@click.option("--device", default="cuda", show_default=True, type=click.Choice(["cuda", "cpu"]))
@click.option("--quick", is_flag=True, help="Tiny sizes, to try the script.")
@click.option("--seconds", default=2.0, show_default=True, help="How long each figure is measured.")
def main(out: Path, device: str, quick: bool, seconds: float) -> None:
    began = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    sizes = QUICK_SIZES if quick else SIZES
    seconds = 0.2 if quick else seconds
    if device == "cpu":
        torch.set_num_threads(1)
    result: dict[str, Any] = {
        "machine": {
            "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "cpu",
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
    }

    def late() -> bool:
        return time.perf_counter() - began > LIMIT_S - COMPILE_S

    def part(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        try:
            result[name] = work()
        except Exception as e:  # one part less is better than no result
            result[name] = f"not run: {type(e).__name__}: {e}"
        result.setdefault("seconds", {})[name] = round(time.perf_counter() - start, 1)
        (out / "gpu.json").write_text(json.dumps(result, indent=1) + "\n")
        click.echo("")
        show({name: result[name]})
        return result[name]

    show(result)
    copy = part("copy_bytes_per_s", lambda: bandwidth(device, quick))
    part("agreement, codes", lambda: agreement(device, next(iter(sizes.values()))))
    part("integration", lambda: integration(device, sizes, copy, seconds))
    part("training", lambda: training(device, quick, seconds, late))
    part("rife", lambda: rife(device, sizes, seconds / 2))
    click.echo(f"\n{time.perf_counter() - began:.0f} s; {out / 'gpu.json'}")


if __name__ == "__main__":
    main()
