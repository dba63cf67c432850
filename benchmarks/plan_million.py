"""`blursynth make --dry-run` over a million samples: seconds and memory of the whole command.

    python benchmarks/plan_million.py [--frames 100000] [--clips 10]

One film of FRAMES small frames, linked CLIPS times, a sample at every frame. The command finds the clips, reads their packet
indices, plans every window and shard, and synthesises one window to foretell time and size. Exit code 1 when it takes more
than 10 s of CPU time or 500 MB.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BLURSYNTH = str(Path(sys.executable).with_name("blursynth"))


def write_film(path: Path, frames: int) -> None:
    """Noise that moves by a pixel a frame, 64x48."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64 + 512, 3), np.uint8)
    with av.open(str(path), "w") as film:
        stream = film.add_stream("mpeg4", rate=240)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = Fraction(1, 240)
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(noise[:, i % 512 :][:, :64]), format="rgb24"
            )
            film.mux(stream.encode(frame))
        film.mux(stream.encode())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--clips", type=int, default=10)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="plan-million-") as tmp:
        src = Path(tmp) / "src"
        src.mkdir()
        write_film(src / "clip0.mp4", a.frames)
        for i in range(1, a.clips):
            os.link(src / "clip0.mp4", src / f"clip{i}.mp4")
        argv = [BLURSYNTH, "make", "--src", str(src), "--out", str(Path(tmp) / "out"), "--interp", "none"]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run([*argv, "--stride", "1", "--dry-run"], capture_output=True, text=True)
        wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(done.stdout + done.stderr, end="")
        print(f"{cpu:.1f} s of CPU time, {wall:.1f} s, {after.ru_maxrss / 1024:.0f} MB at most")
        return 0 if done.returncode == 0 and cpu < 10 and after.ru_maxrss / 1024 < 500 else 1


if __name__ == "__main__":
    sys.exit(main())
