"""Bad inputs, given to the real commands: what each ends with, and its one line.

    python benchmarks/bad_inputs.py [--only WORD] [--markdown]

Fails (exit code 1) on a traceback, on death by a signal, on an exit code other than the expected ones, on an error of more
or less than one line, on silence, and on anything written outside of the folder that a command was given.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import torch
from kill_resume import make_source

from deblur_train.models.checkpoint import save_generator
from deblur_train.models.generator import build_generator
from tests.helpers.films import moving, write_video
from tests.helpers.hostile import TRICKS, png, png_bomb

BIN = Path(sys.executable).parent
TIMEOUT_S = 300


@dataclass
class Case:
    """``spoil(folder)`` lays the bad input down in a folder of its own and returns the command's arguments."""

    name: str
    command: str  # "blursynth make", "deblur-train fit"...
    spoil: Callable[[Path], list[str]]
    codes: tuple[int, ...] = (1, 2)


class Base:
    """Sound material to spoil: a source, a film, a data set, a checkpoint."""

    def __init__(self, root: Path) -> None:
        self.root = root
        make_source(root / "src", clips=2, frames=40, size=(96, 64))
        self.film = write_video(root / "film.mp4", moving(30)).read_bytes()
        argv = [BIN / "blursynth", "make", "--src", root / "src", "--out", root / "data", "--interp", "none"]
        subprocess.run([*argv, "--workers", "1", "--quiet"], check=True, stdout=subprocess.DEVNULL)
        generator = build_generator("mobilenet-dsc")
        save_generator(root / "good.safetensors", "mobilenet-dsc", generator.state_dict(), {"crop": "64"})
        torch.save({"model": generator.state_dict()}, root / "good.pth")

    def data(self, at: Path) -> Path:
        return Path(shutil.copytree(self.root / "data", at / "data"))

    def make(self, src: Path | str, at: Path, *more: str) -> list[str]:
        return [
            "--src",
            str(src),
            "--out",
            str(at / "out"),
            "--interp",
            "none",
            "--workers",
            "1",
            "--quiet",
            *more,
        ]


def vouch(tar: Path) -> None:
    """The sidecar of a tar says that its bytes are as they should be."""
    side = tar.with_suffix(".json")
    facts = json.loads(side.read_text())
    facts |= {"bytes": tar.stat().st_size, "sha256": hashlib.sha256(tar.read_bytes()).hexdigest()}
    side.write_text(json.dumps(facts))


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


class Evil:
    """Unpickled, it makes a file whose presence gives it away."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.mark}",)


def sources(b: Base) -> list[Case]:
    """What ``make``, ``audit`` and ``inspect`` are given to read."""

    def films(at: Path, **data: bytes) -> Path:
        for name, content in data.items():
            write(at / "src" / f"{name}.mp4", content)
        return at / "src"

    def frames(at: Path, change: Callable[[list[Path]], None]) -> Path:
        shutil.copytree(b.root / "src" / "clip0", at / "src" / "clip0")
        change(sorted((at / "src" / "clip0").iterdir()))
        return at / "src"

    half = b.film[: len(b.film) // 2]
    rotten = b.film[: len(b.film) // 3] + bytes(3000) + b.film[len(b.film) // 3 + 3000 :]
    bomb, huge = png_bomb(), png(2**31 - 1, 2**31 - 1)

    def spoil_all(data: bytes) -> Callable[[list[Path]], None]:
        return lambda files: [p.write_bytes(data) for p in files] and None

    def spoil_one(data: bytes) -> Callable[[list[Path]], None]:
        return lambda files: files[5].write_bytes(data) and None

    def locked(at: Path) -> list[str]:
        os.mkfifo(at / "pipe.mp4")
        return b.make(at / "pipe.mp4", at)

    made: list[tuple[str, Callable[[Path], Path], tuple[int, ...]]] = [
        ("a path that is not there", lambda at: at / "none", (2,)),
        ("an empty folder", lambda at: (at / "empty").mkdir() or at / "empty", (2,)),
        ("a text file named .mp4", lambda at: films(at, text=b"not a film"), (2,)),
        ("an empty file named .mp4", lambda at: films(at, empty=b""), (2,)),
        ("a film cut in half", lambda at: films(at, cut=half), (0, 1, 2)),
        ("a film with 3,000 bytes of zeros inside", lambda at: films(at, rotten=rotten), (0, 1, 2)),
        ("random bytes named .mp4", lambda at: films(at, noise=np.random.default_rng(0).bytes(100_000)), (2,)),
        ("a sound film beside a text file named .mp4", lambda at: films(at, good=b.film, text=b"no"), (0,)),
        ("frames that are all text", lambda at: frames(at, spoil_all(b"no picture")), (1, 2)),
        ("frames that are decompression bombs", lambda at: frames(at, spoil_all(bomb)), (1, 2)),
        ("one frame that claims 2^31 x 2^31 pixels", lambda at: frames(at, spoil_one(huge)), (0, 1)),
        ("one frame of zero bytes", lambda at: frames(at, spoil_one(b"")), (0, 1)),
        ("a single picture", lambda at: write(at / "x.png", png(4, 4)), (2,)),
    ]  # fmt: skip
    cases = []
    for name, lay, codes in made:
        cases.append(Case(name, "blursynth make", lambda at, lay=lay: b.make(lay(at), at), codes))
        cases.append(
            Case(name, "blursynth audit", lambda at, lay=lay: [str(lay(at))], tuple({0, 1} | set(codes)))
        )
        inspect = lambda at, lay=lay: [str(lay(at)), "--out", str(at / "out" / "p.html")]  # noqa: E731
        cases.append(Case(name, "blursynth inspect", inspect, tuple({0, 1} | set(codes))))
    cases.append(Case("a named pipe", "blursynth make", locked, (1, 2)))
    return cases


def recipes(b: Base) -> list[Case]:
    texts = {
        "a recipe that is no TOML": "window = = 9",
        "a recipe of 100,000 brackets": "a = " + "[" * 100_000,
        "a recipe in UTF-16": "window = 9".encode("utf-16"),
        "a recipe with an unknown key": "windw = 9",
        "a recipe with a wrong type": 'window = ["9"]',
        "a recipe with a number of 400 digits": "window = 1" + "0" * 400,
        "a recipe with nan": "duty = nan",
        "a recipe with a NUL in a path": 'crf = "a\\u0000.npy"',
        "a recipe that names a curve that is not there": 'crf = "none.npy"',
    }
    cases = [
        Case(name, "blursynth make", lambda at, t=t: b.make(b.root / "src", at, "--recipe", str(write(at / "r.toml", t))), (2,))
        for name, t in texts.items()
    ]  # fmt: skip

    def pickled_curve(at: Path) -> list[str]:
        np.save(at / "crf.npy", np.array([Evil(at / "RAN")], dtype=object), allow_pickle=True)
        return b.make(b.root / "src", at, "--crf", str(at / "crf.npy"))

    def empty_curve(at: Path) -> list[str]:
        return b.make(b.root / "src", at, "--crf", str(write(at / "crf.npy", b"")))

    def options(*more: str) -> Callable[[Path], list[str]]:
        return lambda at: b.make(b.root / "src", at, *more)

    cases += [
        Case("a curve that is a pickle with code", "blursynth make", pickled_curve, (2,)),
        Case("a curve of zero bytes", "blursynth make", empty_curve, (2,)),
        Case("a window of 2", "blursynth make", options("--window", "2"), (2,)),
        Case("a gate that is not known", "blursynth make", options("--gate", "what<1"), (2,)),
        Case("an engine that is not known", "blursynth make", options("--engine", "ray://x"), (2,)),
        Case("a scheduler that is not there", "blursynth make", options("--engine", "dask://127.0.0.1:9"), (1,)),
        Case("a URL of an unknown kind", "blursynth make", lambda at: [*b.make(b.root / "src", at), "--out", "what://x/y"], (1, 2)),
        Case("an --out that is a file", "blursynth make", lambda at: [*b.make(b.root / "src", at), "--out", str(write(at / "f", "x"))], (2,)),
        Case("an --out of someone else's shards", "blursynth make", lambda at: (write(at / "out/train-000000.tar", "x"), b.make(b.root / "src", at))[1], (2,)),
    ]  # fmt: skip
    return cases


def shards(b: Base) -> list[Case]:
    """Data sets that are damaged or hostile, read by all that read shards."""

    def hostile(trick: bytes) -> Callable[[Path], None]:
        def spoil(data: Path) -> None:
            for tar in data.glob("*.tar"):
                tar.write_bytes(trick)
                vouch(tar)

        return spoil

    def rewrite(change: Callable[[str, bytes], bytes]) -> Callable[[Path], None]:
        def spoil(data: Path) -> None:
            for tar in data.glob("*.tar"):
                with tarfile.open(tar) as t:
                    members = [(m.name, t.extractfile(m).read()) for m in t]  # type: ignore[union-attr]
                with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as t:
                    for name, content in members:
                        info = tarfile.TarInfo(name)
                        content = change(name, content)
                        info.size = len(content)
                        t.addfile(info, io.BytesIO(content))
                vouch(tar)

        return spoil

    def member(ext: str, data: bytes) -> Callable[[Path], None]:
        return rewrite(lambda name, content: data if name.endswith(ext) else content)

    def meta(**change: object) -> Callable[[Path], None]:
        return rewrite(
            lambda name, content: (
                json.dumps(json.loads(content) | change).encode() if name.endswith(".json") else content
            )
        )

    def every(pattern: str, data: bytes) -> Callable[[Path], None]:
        return lambda folder: [p.write_bytes(data) for p in folder.glob(pattern)] and None

    def truncate(data: Path) -> None:
        for tar in data.glob("*.tar"):
            os.truncate(tar, tar.stat().st_size // 2)

    spoils: dict[str, Callable[[Path], None]] = {
        **{f"tars: {name}": hostile(trick) for name, trick in TRICKS.items()},
        "tars cut in half": truncate,
        "tars of zero bytes": every("*.tar", b""),
        "tars that are text": every("*.tar", b"hello" * 300),
        "pictures that are bombs": member("blur.png", png_bomb()),
        "pictures that claim 2^31 x 2^31 pixels": member("sharp.png", png(2**31 - 1, 2**31 - 1)),
        "pictures cut in half": rewrite(lambda n, c: c[: len(c) // 2] if n.endswith("png") else c),
        "JSON of 100,000 brackets": member(".json", b"[" * 100_000),
        "JSON whose tile is a number": meta(tile=5),
        "JSON whose window ends at frame 10^12": meta(
            source={"dataset": None, "clip": "clip0", "path": "clip0", "sha256": "0" * 64, "fps": 240.0}
            | {"first": 0, "last": 10**12, "target": 4}
        ),
        "JSON of another schema": meta(schema=2),
        "sidecars of 100,000 brackets": every("*-0*.json", b"[" * 100_000),
        "sidecars whose counts are text": every(
            "*-0*.json",
            b'{"schema": 1, "samples": "x", "bytes": 1, "recipe_sha256": "", "plan_sha256": "", "counts": {}}',
        ),
        "dataset.json of 100,000 brackets": every("dataset.json", b"[" * 100_000),
        "recipe.toml of 100,000 brackets": every("recipe.toml", b"a = " + b"[" * 100_000),
        "run.jsonl of 100,000 brackets": every("run.jsonl", b"[" * 100_000),
    }
    cases = []
    for name, spoil in spoils.items():

        def data(at: Path, spoil: Callable[[Path], None] = spoil) -> str:
            folder = b.data(at)
            spoil(folder)
            return str(folder)

        both = (0, 1, 2)
        cases += [
            Case(name, "blursynth verify", lambda at, d=data: [d(at)], (0, 1)),
            Case(name, "blursynth explain", lambda at, d=data: [d(at), "clip0_000000_09"], both),
            Case(name, "blursynth inspect", lambda at, d=data: [d(at), "--out", str(at / "out" / "p.html")], both),
            Case(name, "deblur-train eval", lambda at, d=data: ["--checkpoint", str(b.root / "good.safetensors"), "--shards", d(at)], both),
        ]  # fmt: skip
    for name in (
        "tars cut in half",
        "tars: a size below zero",
        "pictures that are bombs",
        "JSON of 100,000 brackets",
    ):

        def fit(at: Path, spoil: Callable[[Path], None] = spoils[name]) -> list[str]:
            folder = b.data(at)
            spoil(folder)
            tiny = [
                "--backbone",
                "mobilenet-dsc",
                "--steps",
                "1",
                "--batch-size",
                "2",
                "--crop",
                "64",
                "--workers",
                "0",
            ]
            return ["--shards", str(folder), "--out", str(at / "out"), *tiny]

        cases.append(Case(name, "deblur-train fit", fit, (0, 1)))
    for name in ("sidecars of 100,000 brackets", "recipe.toml of 100,000 brackets", "tars cut in half"):

        def again(at: Path, spoil: Callable[[Path], None] = spoils[name]) -> list[str]:
            shutil.copytree(b.root / "data", at / "out")
            spoil(at / "out")
            return b.make(b.root / "src", at)

        cases.append(Case(f"resuming over {name}", "blursynth make", again, (0, 1, 2)))
    return cases  # fmt: skip


def checkpoints(b: Base) -> list[Case]:
    good = (b.root / "good.pth").read_bytes()
    safe = (b.root / "good.safetensors").read_bytes()
    files: dict[str, Callable[[Path], Path]] = {
        "a checkpoint that is not there": lambda at: at / "none.pth",
        "a checkpoint of zero bytes": lambda at: write(at / "w.pth", b""),
        "a checkpoint that is text": lambda at: write(at / "w.pth", "hello"),
        "a checkpoint that is a pickle with code": lambda at: write(at / "w.pth", pickle.dumps(Evil(at / "RAN"))),
        "a PyTorch checkpoint cut in half": lambda at: write(at / "w.pth", good[: len(good) // 2]),
        "a safetensors file cut in half": lambda at: write(at / "w.safetensors", safe[: len(safe) // 2]),
        "a safetensors header of 2^60 bytes": lambda at: write(at / "w.safetensors", (2**60).to_bytes(8, "little") + b"{" * 99),
        "a checkpoint of another model": lambda at: (torch.save({"a": torch.zeros(2)}, at / "w.pth"), at / "w.pth")[1],
        "a folder for a checkpoint": lambda at: at,
    }  # fmt: skip
    data = str(b.root / "data")
    return [
        Case(name, "deblur-train eval", lambda at, f=f: ["--checkpoint", str(f(at)), "--shards", data], (1,))
        for name, f in files.items()
    ]


def training(b: Base) -> list[Case]:
    data = str(b.root / "data")

    def config(text: str) -> Callable[[Path], list[str]]:
        return lambda at: [
            "--shards",
            data,
            "--out",
            str(at / "out"),
            "--config",
            str(write(at / "c.toml", text)),
        ]

    def resume(at: Path) -> list[str]:
        (at / "out").mkdir()
        torch.save({"format": 1, "config": 5}, at / "out" / "last.pt")
        return ["--shards", data, "--out", str(at / "out"), "--resume", "--config", "demo"]

    def none(at: Path) -> list[str]:
        return ["--shards", str(at / "none"), "--out", str(at / "out")]

    return [
        Case("shards that are not there", "deblur-train fit", none, (1,)),
        Case("a config that is no TOML", "deblur-train fit", config("a = = 1"), (2,)),
        Case("a config of 100,000 brackets", "deblur-train fit", config("a = " + "[" * 100_000), (2,)),
        Case("a config with an unknown key", "deblur-train fit", config("stepz = 1"), (2,)),
        Case("a saved run whose config is a number", "deblur-train fit", resume, (1,)),
    ]


def tried(case: Case, at: Path) -> tuple[int, float, str, str]:
    """(exit code, seconds, one line, what is wrong with how it ended)."""
    at.mkdir()
    program, command = case.command.split()
    argv = [str(BIN / program), command, *case.spoil(at)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "TMPDIR": str(at)}
    env["TORCHINDUCTOR_CACHE_DIR"] = str(at.parent / "torch")  # torch makes it at import; not ours
    given = set(at.rglob("*"))
    began = time.monotonic()
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, env=env, cwd=at
        )
    except subprocess.TimeoutExpired:
        return -1, TIMEOUT_S, "", f"no end after {TIMEOUT_S} s"
    lines = [s for s in done.stderr.splitlines() if s.startswith("Error")]
    told = lines or [s for s in (done.stdout + done.stderr).splitlines() if s.strip()]
    wrong = ""
    new = {p.relative_to(at).parts[0] for p in set(at.rglob("*")) - given}
    if "Traceback" in done.stderr + done.stdout:
        wrong, told = "traceback", done.stderr.strip().splitlines()[-1:]
    elif done.returncode not in case.codes:
        wrong = f"exit code {done.returncode}, expected one of {case.codes}"
    elif done.returncode == 2 and len(lines) != 1:
        wrong = f"{len(lines)} error lines"
    elif not told:
        wrong = "silence"
    elif (at / "RAN").exists():
        wrong = "code in the data ran"
    elif new - {"out"}:
        wrong = f"wrote {sorted(new)}"
    return done.returncode, time.monotonic() - began, told[0] if told else "", wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="cases whose name or command holds this")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    a = parser.parse_args()
    failed, ends = 0, Counter[str]()
    with tempfile.TemporaryDirectory(prefix="bad-inputs-") as tmp:
        root = Path(tmp)
        cv2.setNumThreads(1)
        base = Base(root)
        cases = [c for part in (sources, recipes, shards, checkpoints, training) for c in part(base)]
        cases = [c for c in cases if a.only in c.name or a.only in c.command]
        if a.markdown:
            print("| input | command | exit | its line |\n|---|---|---|---|")
        for i, case in enumerate(cases):
            code, seconds, line, wrong = tried(case, root / f"case{i}")
            line = re.sub(r"\S*/case\d+/|\S*/bad-inputs-[^/]*/", "", line.removeprefix("Error: "))[:150]
            failed += bool(wrong)
            ends[str(code)] += 1
            row = (case.name, case.command, str(code), f"WRONG ({wrong}): {line}" if wrong else line)
            print("| " + " | ".join(c.replace("|", "/") for c in row) + " |" if a.markdown else f"{seconds:5.1f} s  " + " | ".join(row), flush=True)  # fmt: skip
            shutil.rmtree(root / f"case{i}")
    inputs = len({c.name for c in cases})
    counts = ", ".join(f"{n} with {code}" for code, n in sorted(ends.items()))
    print(f"\n{inputs} bad inputs, {len(cases)} commands: {counts}; {failed} ended wrong")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
