"""What it costs, and what it brings, that a large shard is made in pieces: `make` with and without them, in turn.

    python benchmarks/pieces.py FILM --samples 48 --interp none --workers 1 --rounds 3

Prints seconds (wall and CPU, all processes) of both and their ratios. The shards are compared: equal bytes, or it fails.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

WHOLE = "import blursynth.run.plan as p; p.piece_windows = lambda *_: 10**9\n"
CODE = "from blursynth import make\nmake({src!r}, {out!r}, interp={interp!r}, window={window!r}, max_samples={samples}, workers={workers}, quiet=True)\n"


def timed(code: str) -> tuple[float, float]:
    """Wall and CPU seconds of a Python process and its children."""
    wall, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-c", code], check=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - wall, cpu


def digests(out: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.glob("*-0*"))}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("src")
    p.add_argument("--samples", type=int, default=48)
    p.add_argument("--window", default="5")
    p.add_argument("--interp", default="none")
    p.add_argument("--workers", type=int, default=1)
    p.add_argument("--rounds", type=int, default=3)
    a = p.parse_args()
    times: dict[str, list[tuple[float, float]]] = {"whole": [], "pieces": []}
    with tempfile.TemporaryDirectory() as tmp:
        for n in range(a.rounds):
            for how in times:
                out = Path(tmp) / f"{how}{n}"
                code = CODE.format(
                    src=a.src,
                    out=str(out),
                    interp=a.interp,
                    window=a.window,
                    samples=a.samples,
                    workers=a.workers,
                )
                times[how].append(timed((WHOLE if how == "whole" else "") + code))
            assert digests(Path(tmp) / f"whole{n}") == digests(Path(tmp) / f"pieces{n}")
    ratios = [[b[i] / a[i] for a, b in zip(times["whole"], times["pieces"])] for i in (0, 1)]
    for how, t in times.items():
        print(f"{how:7} wall {median(x[0] for x in t):6.2f} s   CPU {median(x[1] for x in t):6.2f} s")
    print(f"pieces / whole: wall {median(ratios[0]):.3f}, CPU {median(ratios[1]):.3f}; {a.samples} samples, "
          f"{a.interp}, {a.workers} workers, median of {a.rounds}")  # fmt: skip


if __name__ == "__main__":
    main()
