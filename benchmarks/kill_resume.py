"""Kill `blursynth make` with SIGKILL at random moments, resume, compare every byte with a straight run.

    python benchmarks/kill_resume.py [--trials 20] [--kills 2] [--interp none] [--workers 2] [--seed 0]

Each trial starts the real command, kills its whole process group KILLS times at random moments, lets it
finish, and compares. Prints a row a trial and "N of TRIALS byte-identical".
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

BLURSYNTH = str(Path(sys.executable).with_name("blursynth"))


def make_source(folder: Path, clips: int = 3, frames: int = 150, size: tuple[int, int] = (160, 120)) -> None:
    """Textured frames that move by 1 px a frame."""
    w, h = size
    for c in range(clips):
        (folder / f"clip{c}").mkdir(parents=True)
        texture = np.random.default_rng(c).integers(0, 256, (h, w + frames, 3)).astype(np.uint8)
        texture = cv2.normalize(cv2.GaussianBlur(texture, (0, 0), 1.5), None, 0, 255, cv2.NORM_MINMAX)
        for i in range(frames):
            cv2.imwrite(str(folder / f"clip{c}" / f"{i:06d}.png"), texture[:, i : i + w])


def digests(out: Path) -> dict[str, str]:
    skip = {"run.jsonl", ".blursynth"}
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in out.iterdir() if p.name not in skip}


def keys(out: Path) -> list[str]:
    found = []
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            found += [m.name.removesuffix(".json") for m in tar if m.name.endswith(".json")]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--interp", default="none")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    rng = random.Random(a.seed)
    with tempfile.TemporaryDirectory(prefix="kill-resume-") as tmp:
        root = Path(tmp)
        make_source(root / "src")

        def argv(out: Path) -> list[str]:
            return [
                BLURSYNTH,
                "make",
                "--src",
                str(root / "src"),
                "--out",
                str(out),
                "--interp",
                a.interp,
                "--shard-samples",
                "3",
                "--workers",
                str(a.workers),
                "--quiet",
            ]

        began = time.time()
        subprocess.run(argv(root / "whole"), check=True, stdout=subprocess.DEVNULL)
        length = time.time() - began
        want, want_keys = digests(root / "whole"), keys(root / "whole")
        shards = len(list((root / "whole").glob("*-0*.json")))
        print(f"straight run: {len(want_keys)} samples in {shards} shards, {length:.1f} s")
        equal = lost = doubled = kills = 0
        for trial in range(a.trials):
            out, moments = root / f"t{trial}", []
            for _ in range(a.kills):
                # At a drawn share of what is left, so that every kill lands within the run; or while it starts.
                have = len(list(out.glob("*-0*.json")))
                until = rng.randint(min(have, shards - 1), shards - 1)
                process = subprocess.Popen(
                    argv(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
                )
                while process.poll() is None and len(list(out.glob("*-0*.json"))) < until:
                    time.sleep(0.005)
                time.sleep(rng.uniform(0, 4.0 if until == have else 0.3))
                if process.poll() is None:
                    moments.append(len(list(out.glob("*-0*.json"))))
                    kills += 1
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            subprocess.run(argv(out), check=True, stdout=subprocess.DEVNULL)
            got = keys(out)
            same = digests(out) == want
            equal += same
            lost += len(set(want_keys) - set(got))
            doubled += len(got) - len(set(got))
            print(
                f"trial {trial:2d}: killed with {' and '.join(map(str, moments))} of {shards} shards: {'equal' if same else 'DIFFERS'}",
                flush=True,
            )
        print(f"{equal} of {a.trials} byte-identical; {kills} kills; {lost} samples lost, {doubled} doubled")
        return 0 if equal == a.trials and not lost and not doubled else 1


if __name__ == "__main__":
    sys.exit(main())
