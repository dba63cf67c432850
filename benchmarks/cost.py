"""Where the time of a 720p window goes, and how cost and memory grow with pixels, frames and clip length.

    python benchmarks/cost.py where   [--interps dis,deepflow]
    python benchmarks/cost.py growth  [--interp dis]
    python benchmarks/cost.py memory  [--interp dis]
    python benchmarks/cost.py large   [--interp dis]

CPU seconds (user + system) of one thread, so that other programs on the machine disturb little. `where` profiles one
task in process, decoding PNG frames and writing the shard; `growth` and `memory` run the real `blursynth make` as a
process of its own.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import cv2
import numpy as np
import realism
from rich.console import Console
from rich.table import Table

from blursynth.common.memory import keep_freed_memory
from blursynth.pairs.synthesis import Synthesizer
from blursynth.recipe import Recipe
from blursynth.run.task import sample_rng
from blursynth.shards.picture import encode_image
from blursynth.video.stills import read_still

BIN = Path(sys.executable).parent / "blursynth"
ENV = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
SIZES = ((360, 640), (720, 1280), (1080, 1920))
PARTS = {  # a row of the table: the functions (file, name) whose cumulative time it is
    "flow, both directions": [("backend.py", "flows")],
    "integration": [("integrate.py", "add")],
    "frames to linear light": [("light.py", "_place")],
    "light to codes, noise": [("noise.py", "add_noise"), ("integrate.py", "linear")],
    "held-out frame (quality)": [("quality.py", "heldout_db")],
    "flow statistics": [("quality.py", "add"), ("flow_thumb.py", "encode_flow_thumb")],
}


def scene(size: tuple[int, int], count: int = 9) -> list[np.ndarray]:
    """The 720p scene of seed 1 at 6 px/frame, resized; more frames by running to and fro."""
    frames, _ = realism.render(Path("scratch/scenes"), 1, 6.0, (720, 1280))
    there_and_back = [*range(9), *range(7, 0, -1)]
    small = [cv2.resize(f, size[::-1], interpolation=cv2.INTER_AREA) for f in frames]
    return [small[there_and_back[i % 16]] for i in range(count)]


def write_clip(folder: Path, frames: list[np.ndarray]) -> None:
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{i:06d}.png"), frame[..., ::-1])


def run_make(src: Path, interp: str, window: int) -> tuple[float, float]:
    """(CPU seconds, peak memory in MB) of one `blursynth make` with one worker; non-overlapping windows."""
    with tempfile.TemporaryDirectory() as out:
        command = [BIN, "make", "--src", src, "--out", out, "--window", window, "--interp", interp, "--crf", "srgb",
                   "--highlights", "off", "--noise", "off", "--gate", "off", "--val-fraction", "0", "--workers", "1", "--quiet"]  # fmt: skip
        process = subprocess.Popen([str(c) for c in command], env=ENV, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise click.ClickException(f"blursynth make ended with status {status}")
        return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


@click.group(help=__doc__)
def main() -> None:
    cv2.setNumThreads(1)


@main.command()
@click.option("--interps", default="dis,deepflow")
@click.option("--windows", default=3)
def where(interps: str, windows: int) -> None:
    """CPU seconds by part of one 720p nine-frame window at 6 px/frame."""
    keep_freed_memory()  # as a task does
    columns = {}
    with tempfile.TemporaryDirectory() as tmp:
        write_clip(Path(tmp, "c"), scene((720, 1280)))
        files = sorted(Path(tmp, "c").glob("*.png"))
        for interp in interps.split(","):
            recipe = Recipe(interp=interp, crf="srgb", highlights="off", noise="off", gate="off")  # type: ignore[arg-type]
            columns[interp] = profile(recipe, files, windows)
    table = Table(title="720p, nine frames, 6 px/frame: CPU seconds a window, one thread")
    table.add_column("part")
    for interp in columns:
        table.add_column(interp, justify="right")
    for part in next(iter(columns.values())):
        table.add_row(part, *(f"{c[part]:.3f}" for c in columns.values()))
    Console(width=120).print(table)


def profile(recipe: Recipe, files: list[Path], windows: int) -> dict[str, float]:
    maker = Synthesizer(recipe)
    frames = [read_still(p) for p in files]
    warm = maker.sample("warm", frames, 0, 240.0, np.random.default_rng(0))
    encode_image(warm.blur_rgb, "png")  # compiled, and memory to work in fetched, before the clock starts
    decode = encode = 0.0
    watch = cProfile.Profile(time.process_time)
    began = time.process_time()
    for i in range(windows):
        t = time.process_time()
        frames = [read_still(p) for p in files]
        decode += time.process_time() - t
        sample = watch.runcall(maker.sample, f"clip{i}", frames, 0, 240.0, sample_rng(0, str(i)))
        t = time.process_time()
        for picture in (sample.blur_rgb, sample.sharp_rgb):
            encode_image(picture, "png")
        encode += time.process_time() - t
    total = time.process_time() - began
    stats = pstats.Stats(watch).stats  # type: ignore[attr-defined]
    parts = {"decode PNG": decode}
    for part, functions in PARTS.items():
        parts[part] = sum(
            row[3] for (file, _, name), row in stats.items() if (Path(file).name, name) in functions
        )
    parts["encode 2 PNG"] = encode
    parts["rest"] = total - sum(parts.values())
    parts["all"] = total
    return {k: v / windows for k, v in parts.items()}


@main.command()
@click.option("--interp", default="dis")
def growth(interp: str) -> None:
    """CPU seconds a window against pixels (nine frames) and against frames (720p); linear is a constant last column."""
    table = Table(title=f"{interp}: cost of a window, one thread")
    for column in ("size", "frames", "CPU s/window", "ns per pixel and interval"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as tmp:
        cases = [(size, 9) for size in SIZES] + [((720, 1280), n) for n in (5, 17, 33)]
        for case, (size, frames) in enumerate(cases):
            one, many = Path(tmp, f"{case}-one"), Path(tmp, f"{case}-many")
            write_clip(one / "a", scene(size, frames))
            for name, flip in zip("abcd", (1, -1, 1, -1), strict=True):
                # Mirrored: make leaves exact duplicates out. Upside down: no two of them alike either.
                turn = np.s_[::-1] if name in "cd" else np.s_[:]
                write_clip(many / name, [f[turn, ::flip] for f in scene(size, frames)])
            run_make(one, interp, frames)  # compile, warm the file cache
            seconds = (run_make(many, interp, frames)[0] - run_make(one, interp, frames)[0]) / 3
            unit = 1e9 * seconds / (size[0] * size[1] * (frames - 1))
            table.add_row(f"{size[0]}x{size[1]}", str(frames), f"{seconds:.2f}", f"{unit:.0f}")
    Console(width=120).print(table)


@main.command()
@click.option("--interp", default="dis")
@click.option("--lengths", default="45,180,720")
def memory(interp: str, lengths: str) -> None:
    """Peak memory of `make` with one worker against the length of its 360p clip, an H.264 file."""
    frames = scene((360, 640), 16)
    with tempfile.TemporaryDirectory() as tmp:
        for length in map(int, lengths.split(",")):
            clip = Path(tmp, str(length), "clip.mp4")
            clip.parent.mkdir()
            write_video(clip, frames, length)
            click.echo(f"{interp}, {length} frames: peak {run_make(clip, interp, 9)[1]:.0f} MB")


@main.command()
@click.option("--interp", default="dis")
def large(interp: str) -> None:
    """A nine-frame window of 4K beside one of 720p: CPU seconds, and peak memory of `make` with one worker."""
    cost = []
    with tempfile.TemporaryDirectory() as tmp:
        for size in ((720, 1280), (2160, 3840)):
            one, two = (Path(tmp, f"{size[0]}-{n}") for n in (1, 2))
            frames = scene(size)
            write_clip(one / "a", frames)
            write_clip(two / "a", frames)
            write_clip(two / "b", [cv2.flip(f, 1) for f in frames])
            run_make(one, interp, 9)  # compile, warm the file cache
            (first, _), (both, peak) = run_make(one, interp, 9), run_make(two, interp, 9)
            cost.append(both - first)
            click.echo(f"{interp}, {size[1]}x{size[0]}: {cost[-1]:.2f} CPU s a window, peak {peak:.0f} MB")
    click.echo(f"4K over 720p: {cost[1] / cost[0]:.1f} times the time for 9 times the pixels")


def write_video(path: Path, frames: list[np.ndarray], length: int) -> None:
    """Unlike frames, so that no audit takes the loop for duplicates."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 120, options={"crf": "16", "preset": "veryfast"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for i in range(length):
            picture = av.VideoFrame.from_ndarray(frames[i % len(frames)], format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


if __name__ == "__main__":
    main()
