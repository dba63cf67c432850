"""Stand-ins for the producer's tests: clips without files, a synthesiser without flow, tasks that misbehave.

A module of its own, so that worker processes can import it.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

from blursynth.recipe import Recipe
from blursynth.run.outcome import Outcome, PlanClip, Run, ShardTask, WindowSpec
from blursynth.run.task import make_shard
from blursynth.sources.find import Clip
from blursynth.video.clip import ClipInfo


def clip(
    name: str,
    frames: int = 90,
    rel: str | None = None,
    size: tuple[int, int] = (64, 48),
    path: str = "/nowhere",
) -> Clip:
    info = ClipInfo(path, "frames", frames, 240.0, size[0], size[1], "image")
    return Clip(name, None, rel or name, None, info)


def frames_folder(path: Path, n: int, size: tuple[int, int] = (64, 48), seed: int = 0) -> Path:
    """A folder of textured frames that move by 1 px a frame: every interval is sound, no two frames are equal."""
    path.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    w, h = size
    texture = cv2.GaussianBlur(rng.integers(0, 256, (h, w + n, 3)).astype(np.uint8), (0, 0), 1.5)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    for i in range(n):
        cv2.imwrite(str(path / f"{i:06d}.png"), texture[:, i : i + w])
    return path


class MeanSynthesizer:
    """Display-domain mean: quick, and a known answer."""

    def __init__(self, recipe: Recipe, rife_weights: str | None = None) -> None:
        self.recipe = recipe

    def sample(self, clip_id, frames, first, fps, rng, stride=None):
        blur = np.rint(np.mean(np.stack(frames).astype(np.float64), 0)).astype(np.uint8)
        sharp = frames[(len(frames) - 1) // 2]
        n = len(frames)
        exposure = {
            "window": n,
            "stride": stride or n,
            "fps_up": 16,
            "interp": "none",
            "profile": "box",
            "shutter_ms": None,
        }
        exposure |= {
            "duty": 1.0,
            "readout_ms": 0.0,
            "substeps": {"mean": 1.0, "max": 1},
            "draw": int(rng.integers(2**31)),
        }
        return SimpleNamespace(
            blur_rgb=blur,
            sharp_rgb=sharp,
            linear16=sharp.astype(np.uint16) * 257,
            exposure=exposure,
            camera={"crf": "srgb", "highlights": None, "noise": None},
            flow=dict.fromkeys(("median_px", "p95_px", "max_px", "fb_error_px", "occluded")),
            quality={"score": None, "flags": []},
            rejected=None,
        )

    def forget(self, clip_id, before):
        pass


class SlowSynthesizer(MeanSynthesizer):
    def sample(self, *args, **kwargs):
        time.sleep(0.05)
        return super().sample(*args, **kwargs)


class FaultySynthesizer(MeanSynthesizer):
    """Fails on windows that start at frame 9."""

    def sample(self, clip_id, frames, first, *args, **kwargs):
        if first == 9:
            raise RuntimeError("boom")
        return super().sample(clip_id, frames, first, *args, **kwargs)


def mean_task(task: ShardTask) -> Outcome:
    return make_shard(task, MeanSynthesizer)


def slow_task(task: ShardTask) -> Outcome:
    return make_shard(task, SlowSynthesizer)


def held_task(task: ShardTask) -> Outcome:
    """Slow, and never through with the shard that HELD_SHARD names: a kill always lands within the run."""
    while task.shard == os.environ["HELD_SHARD"]:
        time.sleep(0.05)
    return slow_task(task)


class HungrySynthesizer(MeanSynthesizer):
    """Asks for memory that its process is not allowed, on clip1."""

    def sample(self, clip_id, *args, **kwargs):
        if clip_id == "clip1":
            np.ones(2**30, np.uint8)
        return super().sample(clip_id, *args, **kwargs)


def hungry_task(task: ShardTask) -> Outcome:
    """In a worker that may grow by 512 MB, as under ``ulimit -v``: what is allocated beyond that really fails."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + 512 * 2**20, before[1]))
    try:
        return make_shard(task, HungrySynthesizer)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def bloated_task(task: ShardTask) -> Outcome:
    """On shard 2, takes more and more memory until someone kills its worker; 3 GB at most."""
    if task.shard == "train-000002":
        held = []
        for _ in range(60):
            held.append(np.ones(50 * 2**20, np.uint8))
            time.sleep(0.05)
        time.sleep(5)
    return make_shard(task, MeanSynthesizer)


def faulty_task(task: ShardTask) -> Outcome:
    return make_shard(task, FaultySynthesizer)


def poison_task(task: ShardTask) -> Outcome:
    """Takes its worker down, every time, on shard 2; all the others are fine."""
    if task.shard == "train-000002":
        os.kill(os.getpid(), signal.SIGKILL)
    return make_shard(task, MeanSynthesizer)


def once_fatal_task(task: ShardTask) -> Outcome:
    """Takes its worker down the first time only, as the OOM killer would."""
    mark = Path(task.out) / ".died-once"
    if task.shard == "train-000002" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return make_shard(task, MeanSynthesizer)


def full_disk_task(task: ShardTask) -> Outcome:
    return Outcome(task.shard, "stop", "no space left")


def echo_task(task: ShardTask) -> Outcome:
    """Touches nothing: for counting what the engine hands out."""
    return Outcome(task.shard, samples=task.samples)


def nap_task(task: ShardTask) -> Outcome:
    time.sleep(0.2)
    return Outcome(task.shard, samples=task.samples)


def empty_tasks(n: int, out: str = ".") -> list[ShardTask]:
    source = PlanClip(clip("c"), "train", "c", "0" * 64)
    return [
        ShardTask(f"train-{i:06d}", "train", out, (Run(source, (WindowSpec(0, 0, 8),)),), Recipe(), "p")
        for i in range(n)
    ]
