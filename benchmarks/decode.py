"""Reading film: this reader, which checks every frame, against a plain PyAV loop and, where it is installed, decord.

    python benchmarks/decode.py CLIP [CLIP...] [--rounds 3]

Each in a process of its own, in turn; CPU seconds for a whole clip (least of the rounds), peak memory, and the ratio to the
plain loop. The plain loop conceals damage and checks nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

WAYS = {
    "plain": """
import av
n = 0
with av.open(path) as c:
    c.streams.video[0].thread_type = "NONE"
    for frame in c.decode(video=0):
        n += frame.to_ndarray(format="rgb24").shape[0] > 0
""",
    "ours": """
from blursynth.video.clip import probe_clip, read_frames
info = probe_clip(path)
n = sum(f.rgb is not None for f in read_frames(info, 0, info.frames - 1))
""",
    "decord": """
from blursynth.video.clip import decode_with, probe_clip, read_frames
info = decode_with(probe_clip(path), "decord")
n = sum(f.rgb is not None for f in read_frames(info, 0, info.frames - 1))
""",
}
FRAME = """
import resource, sys, time
path = sys.argv[1]
began = time.process_time()
{way}
print(n, time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    ways = [w for w in WAYS if w != "decord" or find_spec("decord")]
    for clip in args.clips:
        best: dict[str, tuple[float, float, int]] = {}
        for _ in range(args.rounds):
            for way in ways:
                code = FRAME.format(way=WAYS[way])
                out = subprocess.run(
                    [sys.executable, "-c", code, str(clip)], capture_output=True, check=True, text=True
                )
                frames, seconds, mb = out.stdout.split()
                best[way] = min(best.get(way, (1e9, 0.0, 0)), (float(seconds), float(mb), int(frames)))
        for way, (seconds, mb, frames) in best.items():
            ratio = seconds / best["plain"][0]
            print(f"{clip.name:26} {way:7} {frames:5} frames {seconds:6.2f} s {mb:5.0f} MB  x{ratio:.2f}")


if __name__ == "__main__":
    main()
