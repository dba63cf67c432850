"""A video through `deblur-train predict`: frames per second, is memory flat, where the time goes, and the plain loop beside it.

    python benchmarks/predict_video.py [--clip CLIP] [--frames 247] [--backbone mobilenet-dsc] [--temporal 1]
    python benchmarks/predict_video.py --memory      bytes a pixel of each generator, for deblur_train/inference/memory.py

Each way runs in a process of its own, in turn: `ours` is predict's pipeline (decode, network, smoothing and encoding in
threads; memory kept between frames); `held` is ours without threads; `plain` is the loop one would write first: decode,
network, encode, with the allocator as it is. CPU seconds a frame are printed too: they tell more on a shared machine.
OpenMP threads wait passively in all of them: on a busy machine spinning would double the CPU time of the last two.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

CLIP = Path(__file__).resolve().parents[2] / "shared/media/video/05_default_juggle.mp4"
WAYS = ("ours", "held", "plain")


def rss_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def restorer_for(backbone: str):
    import torch

    from deblur_train import build_generator
    from deblur_train.inference.restorer import Restorer
    from deblur_train.models.base import start_near_identity

    torch.manual_seed(0)
    generator = build_generator(backbone)
    start_near_identity(generator, 0.3)
    return Restorer(generator, tile=None)


def one_way(way: str, clip: Path, frames: int, backbone: str, temporal: int, out: Path) -> dict[str, object]:
    from blursynth.common.memory import keep_freed_memory
    from deblur_train.media.video_in import Shot, VideoReader
    from deblur_train.prediction import videos as predict_video

    if way != "plain":
        keep_freed_memory(2**31 - 1, one_arena=True)
    if way != "ours":
        predict_video.ahead = _in_turn  # the same stages, one after the other
    restore = restorer_for(backbone)
    spent = {"decode": 0.0, "network": 0.0}
    count = 0

    def timed(rgb: np.ndarray) -> np.ndarray:
        began = time.perf_counter()
        done = restore(rgb)
        spent["network"] += time.perf_counter() - began
        return done

    class Short(VideoReader):
        def __iter__(self):
            left, items = frames, super().__iter__()
            while left:
                began = time.perf_counter()
                item = next(items, None)
                spent["decode"] += time.perf_counter() - began
                if item is None:
                    return
                left -= isinstance(item, Shot)
                yield item

    predict_video.VideoReader = Short  # type: ignore[misc]
    samples: list[tuple[int, float]] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            samples.append((count, rss_mb()))

    def progress(expected: int) -> None:
        nonlocal count
        count += 1

    watcher = threading.Thread(target=watch)
    watcher.start()
    cpu, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    result = predict_video.restore_video(clip, out / f"{way}.mp4", timed, temporal, progress=progress)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    done.set()
    watcher.join()
    quarters = [
        [mb for n, mb in samples if q * result.frames / 4 < n <= (q + 1) * result.frames / 4]
        for q in range(4)
    ]
    return {
        "way": way,
        "frames": result.frames,
        "fps": result.frames / seconds,
        "cpu_s": (after.ru_utime - cpu.ru_utime + after.ru_stime - cpu.ru_stime) / result.frames,
        "system_s": (after.ru_stime - cpu.ru_stime) / result.frames,
        "decode_s": spent["decode"] / result.frames,
        "network_s": spent["network"] / result.frames,
        "peak_mb": [max(q, default=0.0) for q in quarters],
    }


def _in_turn(items, depth: int = 2):
    yield from items


def bytes_a_pixel(backbone: str, height: int, width: int) -> None:
    from blursynth.common.memory import keep_freed_memory

    keep_freed_memory(2**31 - 1, one_arena=True)
    restore = restorer_for(backbone)
    rng = np.random.default_rng(0)
    restore(rng.integers(0, 256, (128, 128, 3)).astype(np.uint8))  # libraries and weights
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    restore(rng.integers(0, 256, (height, width, 3)).astype(np.uint8))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{backbone} {width}x{height}: {(peak - before) * 1024 / (height * width):.0f} bytes a pixel",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clip", type=Path, default=CLIP)
    parser.add_argument("--frames", type=int, default=247)
    parser.add_argument("--backbone", default="mobilenet-dsc")
    parser.add_argument("--temporal", type=int, default=1)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--child", nargs="*", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.child and a.memory:
        bytes_a_pixel(a.child[0], int(a.child[1]), int(a.child[2]))
        return
    if a.child:
        row = one_way(a.child[0], a.clip, a.frames, a.backbone, a.temporal, Path(a.child[1]))
        print(json.dumps(row), flush=True)
        return
    here = [sys.executable, str(Path(__file__).resolve())]
    if a.memory:
        for backbone in ("mobilenet-dsc", "mobilenet", "inception"):
            for height, width in ((720, 1280), (1088, 1920)):
                subprocess.run([*here, "--memory", "--child", backbone, str(height), str(width)], check=True)
        return
    rows = []
    passive = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    with tempfile.TemporaryDirectory(prefix="predict-video-") as out:
        for way in a.ways.split(","):
            common = ["--clip", str(a.clip), "--frames", str(a.frames), "--backbone", a.backbone]
            common += ["--temporal", str(a.temporal), "--child", way, out]
            text = subprocess.run([*here, *common], check=True, stdout=subprocess.PIPE, env=passive).stdout
            row = json.loads(text.splitlines()[-1])
            rows.append(row)
            print(
                f"{row['way']:6} {row['frames']} frames, {row['fps']:.2f} frames/s; a frame: CPU {row['cpu_s']:.3f} s "
                f"(system {row['system_s']:.3f}), decode {row['decode_s']:.3f} s, network {row['network_s']:.3f} s; "
                f"peak MB of each quarter {', '.join(f'{mb:.0f}' for mb in row['peak_mb'])}",
                flush=True,
            )
    first = rows[0]
    for row in rows[1:]:
        print(
            f"{first['way']} / {row['way']}: {first['fps'] / row['fps']:.2f} times the frames a second, "
            f"{first['cpu_s'] / row['cpu_s']:.2f} of the CPU time"
        )


if __name__ == "__main__":
    main()
