"""Does the recipe matter? One network from one start, the same frames, exposure, steps and seeds; only the blur's make differs.

    python benchmarks/study.py run --media ../shared/media --work scratch/study [--arms a,b,f] [--seeds 0,1,2,3,4]
    python benchmarks/study.py report [--steps 3000]
    python benchmarks/study.py trial --media ../shared/media --work scratch/study --arm c --set schedule.lr=1e-3

Six arms (study_data.py), each with one stage more than the one before: (a) mean of display-encoded frames, GoPro's recipe;
(b) mean of light, trapezoid rule; (c) light along the motion; (d) noise; (e) lamps above white and a shaking camera; (f) a
camera response drawn per sample. The variance in time of the light is the same in all.

The start is the package's network after a training on equal parts of (a), (b) and (f): a network that deblurs, and whose
last lesson was no arm's own. From scratch, minutes of one core make a network that does not deblur, and tells nothing of data.

`run` trains what the file of results lacks, one run after the other, and adds a line when a run is measured: kill it at
any time, it goes on. A setting that changes has another hash, and older lines then do not count. The test pictures are
touched only when a run is over. `report` draws table and picture from the file alone. `trial` is for choosing settings: it
measures on the validation scenes and writes no line.

Held out (no picture, renderer or clip of theirs was trained on): scenes by scenes.py, and windows of two clips whose
every frame makes a true exposure. REDS (two clips), GoPro (one pair) and Levin (four) are too few to claim from.
"""

from __future__ import annotations

import hashlib
import re
import resource
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import scenes
import truth
from rich.console import Console
from rich.table import Table
from scenes import Pair
from study_data import ARMS, TO_LIGHT, Sources, described, digest, letter, make_arm, scaled
from study_stats import Run, append_run, differences, interval, of_settings, read_runs

from blursynth.video.clip import probe_clip, read_frames
from blursynth.video.intervals import IntervalChecker
from deblur_train.evaluation.align import align, aligned_psnr
from deblur_train.evaluation.metrics import psnr
from deblur_train.evaluation.plot import COLOURS, GRID, INK, save_png, text
from deblur_train.inference.tiles import restore
from deblur_train.media.pictures import ImageError
from deblur_train.models.checkpoint import load_generator

CONFIG = Path(__file__).with_name("study.toml")
RESULTS = Path(__file__).with_name("study") / "runs.jsonl"

SCENES: dict[str, tuple[float, float, int, int]] = {
    "scenes 5 px": (5.0, 1.0, 200, 10),
    "scenes 12 px": (12.0, 1.0, 220, 10),
    "scenes 24 px": (24.0, 1.0, 240, 10),
    "noisy 12 px": (12.0, 8.0, 260, 10),
}
"""Test scenes: streak in px, gain of the noise's variance, first seed, number."""
CLIPS = {"cam03.mp4": 0.25, "demo.mp4": 0.2}
"""Clips that nothing is trained on, and the scale at which their motion is slow enough for frames to make an exposure. The
third one at hand, 05_default_juggle, is too fast for that at any useful scale."""
EXPOSED, SIDE, MOST_STEP, LEAST_PATH = 9, 128, 2.0, 2.0
"""Frames of a clip's true exposure; side of the square that moves most, px; how far its 95th percentile may move from
frame to frame, and must move over the exposure, px."""
CLAIMED = {
    "scenes": ("scenes 5 px", "scenes 12 px", "scenes 24 px"),
    "noisy scenes": ("noisy 12 px",),
    "scenes, registered": tuple(f"scenes {s} px, registered" for s in (5, 12, 24)),
    "clips": tuple(f"clip {Path(c).stem}" for c in CLIPS),
}
"""Groups of sets that differences are claimed from; the sets of a group weigh alike."""
START = "start"
"""What lines of the common start itself, measured and not trained further, have for an arm."""


@dataclass(frozen=True)
class Start:
    """How the network is trained that all runs start from."""

    init: Path = Path(__file__).parents[1] / "deblur_train/weights/nafnet.safetensors"
    sha256: str = "075d7072d52beb675af621451b83e3b7cb05738eb193048f681b003dbef6cfd9"  # of init, as commit f336c4d has it
    arms: tuple[str, ...] = ("a display mean", "b linear mean", "f ours")  # in equal parts
    steps: int = 4000
    lr: float = 5e-4
    seed: int = 100


# What is tested on


def held_out_scenes(cache: Path) -> dict[str, list[Pair]]:
    """Rendered once (seconds each), then read from the cache."""
    return {
        name: scenes.kept_pairs(
            cache / f"test-{name.replace(' ', '-')}-{first}-{count}.npz",
            scenes.TEST, streak, range(first, first + count), gain,
        )
        for name, (streak, gain, first, count) in SCENES.items()
    }  # fmt: skip


def exposures_of_clip(clip: Path, scale: float) -> Iterator[Pair]:
    """True exposures of all frames of a clip's slow windows, with the scenes' camera noise; the sharp one is the centre
    frame. Of each window the square of SIDE px that moves most."""
    info, first = probe_clip(clip), 0
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    while first + EXPOSED <= info.frames:
        checker, frames, broken = IntervalChecker(), [], False
        for frame in read_frames(info, first, first + EXPOSED - 1):
            broken |= checker.push(frame) == "cut" or frame.rgb is None
            if frame.rgb is not None:
                frames.append(scaled(frame.rgb, scale))
        first += EXPOSED
        if broken:
            continue
        grey = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames]
        steps = np.stack([np.hypot(*np.moveaxis(flow.calc(a, b, None), 2, 0)) for a, b in pairwise(grey)])
        y, x = busiest(steps.sum(0))
        part = np.s_[y : y + SIDE, x : x + SIDE]
        moved = np.percentile(steps[:, *part].reshape(len(steps), -1), 95, axis=1)
        if moved.max() > MOST_STEP or moved.sum() < LEAST_PATH:
            continue
        weight = np.ones(EXPOSED)
        weight[[0, -1]] = 0.5
        light = np.average([TO_LIGHT[f[part]] for f in frames], 0, weight)
        noise = np.random.default_rng([first, 23]).standard_normal(light.shape)
        blur = truth.to_srgb8(light + noise * np.sqrt(scenes.SHOT_NOISE * light + scenes.READ_NOISE))
        yield blur, np.ascontiguousarray(frames[EXPOSED // 2][part])


def busiest(motion: np.ndarray) -> tuple[int, int]:
    """Corner of the square of SIDE px with the greatest sum; motion: float (H, W)."""
    total = cv2.integral(motion.astype(np.float64))
    sums = total[SIDE:, SIDE:] - total[:-SIDE, SIDE:] - total[SIDE:, :-SIDE] + total[:-SIDE, :-SIDE]
    y, x = np.unravel_index(sums.argmax(), sums.shape)
    return int(y), int(x)


def test_sets(media: Path) -> dict[str, list[Pair]]:
    """The field's pairs at hand: REDS, GoPro, Levin."""

    def read(p: Path) -> np.ndarray:
        return np.ascontiguousarray(cv2.imread(str(p))[..., ::-1])

    pairs = media / "pairs"
    reds = sorted(pairs.glob("reds_180p/*/blur/*.png"))
    sharp = read(pairs / "levin/gt/im1.png")
    return {
        "REDS": [(read(p), read(p.parents[1] / "sharp" / p.name)) for p in reds],
        "GoPro": [(read(pairs / "gopro/Flower_blur1.png"), read(pairs / "gopro/Flower_sharp1.png"))],
        "Levin": [(read(p), sharp) for p in sorted(pairs.glob("levin/im1_kernel*_img.png"))],
    }


def all_tests(media: Path, work: Path) -> dict[str, list[Pair]]:
    clips = {
        f"clip {Path(c).stem}": list(exposures_of_clip(media / "video" / c, k)) for c, k in CLIPS.items()
    }
    if empty := [name for name, pairs in clips.items() if not pairs]:
        raise click.ClickException(f"{', '.join(empty)}: no window is slow enough for a true exposure")
    return held_out_scenes(work / "tests") | clips | test_sets(media)


def validation_scenes(cache: Path) -> dict[str, list[Pair]]:
    """What settings are chosen by: without noise, with a good camera's, with eight times that."""
    return {
        f"val {s:g} px, noise x{gain:g}": scenes.kept_pairs(
            cache / f"val-{s:g}-{gain:g}-{first}.npz", scenes.VALIDATION, s, range(first, first + 6), gain
        )
        for s, gain, first in ((5.0, 0.0, 40), (5.0, 1.0, 0), (12.0, 1.0, 0), (24.0, 1.0, 0), (12.0, 8.0, 20))
    }


def score(image: np.ndarray, sharp: np.ndarray, shift: int) -> float:
    """PSNR in dB less an 8-pixel border, the best over shifts of up to ``shift`` px (Levin's kernels are off centre)."""
    m = 8 + shift
    inner = sharp[m:-m, m:-m]
    h, w = sharp.shape[:2]
    return max(
        float(psnr(image[m + y : h - m + y, m + x : w - m + x], inner))
        for y in range(-shift, shift + 1)
        for x in range(-shift, shift + 1)
    )


def score_in(name: str, image: np.ndarray, sharp: np.ndarray) -> float:
    """`score` as the set of that name needs it."""
    return score(image, sharp, 6 if name == "Levin" else 0)


def registered(picture: np.ndarray, sharp: np.ndarray) -> float:
    """PSNR after RealBlur's registration; where it finds none, as they stand."""
    try:
        return aligned_psnr(align(picture, sharp))
    except ImageError:
        return psnr(picture, sharp)


def scores(answers: dict[str, list[np.ndarray]], sets: dict[str, list[Pair]]) -> dict[str, list[float]]:
    """PSNR in dB of the answer to every blurred picture; of scenes also registered to the sharp one: a sharp picture is
    one instant of the exposure, and which point of a crooked streak that is cannot be seen."""
    found = {}
    for s, pairs in sets.items():
        both = [(picture, sharp) for picture, (_, sharp) in zip(answers[s], pairs, strict=True)]
        found[s] = [score_in(s, picture, sharp) for picture, sharp in both]
        if s in SCENES:
            found[f"{s}, registered"] = [registered(picture, sharp) for picture, sharp in both]
    return found


# Training and measuring


def start_of(sources: Sources, config: str, start: Start) -> str:
    """Hash of all that the common start depends on, but for the code."""
    parts = [described(sources, arm) for arm in start.arms]
    training = training_of(config) | {"steps": start.steps, "seed": start.seed}
    training["schedule"] = training.get("schedule", {}) | {"lr": start.lr}
    return digest([start.sha256, parts, training])


def config_of(steps: int | None) -> str:
    """study.toml, with another number of steps where one is given."""
    text = CONFIG.read_text()
    return text if steps is None else re.sub(r"(?m)^steps = \d+$", f"steps = {steps}", text, count=1)


def training_of(config: str) -> dict[str, Any]:
    return {k: v for k, v in tomllib.loads(config).items() if k not in ("name", "cite")}


def settings_of(sources: Sources, config: str, start: Start) -> dict[str, str]:
    """A hash for each arm of all that its runs depend on, but for the seed and the code."""
    common = [
        training_of(config),
        start_of(sources, config, start),
        [SCENES, scenes.TEST, CLIPS, EXPOSED, SIDE, MOST_STEP, LEAST_PATH],
    ]
    return {letter(arm): digest([described(sources, arm), *common]) for arm in sources.arms}


def pixels(sets: dict[str, list[Pair]]) -> str:
    """Hash of all test pictures: a package that changes one of them changes it."""
    found = hashlib.sha256()
    for pairs in sets.values():
        for image in (im for pair in pairs for im in pair):
            found.update(np.ascontiguousarray(image).tobytes())
    return found.hexdigest()[:12]


def commit() -> str:
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(words, capture_output=True, text=True).stdout.strip() or "unknown"


def train(
    data: list[Path], run: Path, config: str, seed: int, init: Path, extra: tuple[str, ...] = ()
) -> float:
    """One run of the real command, resumed where it stopped; CPU seconds of this part of it, 0 of one that was over."""
    if (run / "finished").exists():
        return 0.0
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    file = run.with_suffix(".toml")
    run.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(config)
    words = [w for d in data for w in ("--shards", d)] + [
        "--config",
        file,
        "--out",
        run,
        "--seed",
        seed,
        *extra,
    ]
    if (run / "last.pt").exists():
        words += ["--resume"]
    else:
        shutil.rmtree(run, ignore_errors=True)
        words += ["--init", init]
    log = run.with_suffix(".log")
    with log.open("ab") as out:
        code = subprocess.run(
            [sys.executable, "-m", "deblur_train.cli", "fit", *map(str, words)], stdout=out, stderr=out
        ).returncode
    if code:
        raise click.ClickException(f"{run}: training failed: {log.read_text().strip().splitlines()[-1]}")
    (run / "finished").touch()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def first_weights(start: Start, work: Path) -> Path:
    """What the start starts from: the package's weights may change, the study's do not."""
    if hashlib.sha256(start.init.read_bytes()).hexdigest() == start.sha256:
        return start.init
    held = work / "init.safetensors"
    if not held.exists():
        name = f"f336c4d:{start.init.relative_to(start.init.parents[2])}"
        found = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "show", name], capture_output=True
        ).stdout
        if hashlib.sha256(found).hexdigest() != start.sha256:
            raise click.ClickException(
                f"{held}: the study's first weights are missing, and git has no {name} here: "
                "get that file from a whole clone of the repository and put it there"
            )
        held.write_bytes(found)
    return held


def make_start(media: Path, work: Path, sources: Sources, config: str, start: Start, workers: int) -> Path:
    """Weights of the common start, trained once."""
    run = work / f"start-{start_of(sources, config, start)}"
    data = [make_arm(media, work, arm, sources, workers) for arm in start.arms]
    words = ("--steps", str(start.steps), "--set", f"schedule.lr={start.lr:g}")
    train(data, run, config, start.seed, first_weights(start, work), words)
    return run / "last.safetensors"


def measured(file: Path, sets: dict[str, list[Pair]]) -> dict[str, Any]:
    """The fields of a Run that a network's answers give."""
    net = load_generator(str(file), "tracked")
    answers = {s: [restore(net, blur) for blur, _ in pairs] for s, pairs in sets.items()}
    blurred = scores({s: [blur for blur, _ in pairs] for s, pairs in sets.items()}, sets)
    restored = scores(answers, sets)
    sharp = [score(restore(net, y), y, 0) for name in SCENES if name in sets for _, y in sets[name][:2]]
    return {
        "blurred": {s: round(float(np.mean(v)), 4) for s, v in blurred.items()},
        "gains": {s: np.subtract(restored[s], blurred[s]).round(4).tolist() for s in restored},
        "sharp": round(float(np.mean(sharp)), 3) if sharp else 0.0,
    }


def wanted(arms: list[str], seeds: list[int], found: dict[str, dict[int, Run]]) -> list[tuple[str, int]]:
    """What is still to be trained. Seeds outside: a study cut short has all arms for some seeds."""
    return [(arm, seed) for seed in seeds for arm in arms if seed not in found[letter(arm)]]


def study(
    media: Path, work: Path, results: Path, arms: list[str], seeds: list[int], sources: Sources, config: str,
    start: Start, tests: Callable[[], dict[str, list[Pair]]], workers: int,
) -> None:  # fmt: skip
    """Train and measure what the file of results lacks."""
    settings = settings_of(sources, config, start)
    common = start_of(sources, config, start)
    held = of_settings(read_runs(results), settings | {START: common})
    for arm, seed in wanted(arms, seeds, held):
        name = letter(arm)
        data = make_arm(media, work, arm, sources, workers)
        init = make_start(media, work, sources, config, start, workers)
        run, code = work / settings[name] / f"{name}-{seed}", commit()
        click.echo(f"{arm}, seed {seed}: {run}")
        seconds = train([data], run, config, seed, init)
        sets = tests()
        got = measured(run / "last.safetensors", sets)
        append_run(results, Run(name, seed, settings[name], pixels(sets), code, round(seconds, 1), **got))
        (run / "last.pt").unlink(missing_ok=True)  # the weights stay, for the pictures
        click.echo(f"{arm}, seed {seed}: {summary(got['gains'])}")
        if not held[START]:
            held[START][0] = Run(START, 0, common, pixels(sets), code, 0.0, **measured(init, sets))
            append_run(results, held[START][0])


def summary(gains: dict[str, list[float]]) -> str:
    return ", ".join(f"{s} {np.mean(v):+.2f}" for s, v in gains.items())


# Table and picture


def gains_table(found: dict[str, dict[int, Run]], names: dict[str, str]) -> Table:
    some = next(run for seeds in found.values() for run in seeds.values())
    table = Table(title="PSNR above the blurred input, dB: mean over seeds (spread over seeds)")
    for column in ("trained on", "seeds", *some.gains, "sharp from itself"):
        table.add_column(column, justify="right")
    table.add_row("the blurred input, dB", "", *(f"{v:.2f}" for v in some.blurred.values()), "")
    for arm, seeds in found.items():
        if not seeds:
            continue
        runs = [seeds[s] for s in sorted(seeds)]
        cells = []
        for s in some.gains:
            means = [np.mean(run.gains[s]) for run in runs]
            cells.append(
                f"{np.mean(means):+.2f}" + (f" ({np.std(means, ddof=1):.2f})" if len(runs) > 1 else "")
            )
        table.add_row(names[arm], str(len(runs)), *cells, f"{np.mean([r.sharp for r in runs]):.1f}")
    return table


def compared(found: dict[str, dict[int, Run]]) -> list[tuple[str, str]]:
    """Ours against both means, then each stage against the one before it."""
    there = [arm for arm, seeds in found.items() if seeds and arm != START]
    steps = list(zip(there[1:], there, strict=False))
    last = [("f", arm) for arm in ("a", "b") if "f" in there and arm in there]
    return [p for p in dict.fromkeys([*last, *steps]) if found[p[0]].keys() & found[p[1]].keys()]


Difference = tuple[str, str, int, dict[str, tuple[float, float, float]]]


def all_differences(found: dict[str, dict[int, Run]]) -> list[Difference]:
    """Arm, the arm it is held against, seeds, and by group of sets the mean difference and its interval, dB."""
    rows = []
    for one, other in compared(found):
        by_group = {g: differences(found[one], found[other], sets) for g, sets in CLAIMED.items()}
        count = len(next(iter(by_group.values()))[0])
        rows.append((one, other, count, {g: interval(d) for g, (_, d) in by_group.items()}))
    return rows


def differences_table(rows: list[Difference]) -> Table:
    table = Table(
        title="Paired differences, dB, with 95% intervals over pictures and seeds (one seed: pictures only)"
    )
    for column in ("", "seeds", *CLAIMED):
        table.add_column(column, justify="right")
    for one, other, count, groups in rows:
        cells = (f"{m:+.2f} [{lo:+.2f}, {hi:+.2f}]" for m, lo, hi in groups.values())
        table.add_row(f"{one} - {other}", str(count), *cells)
    return table


def chart(rows: list[Difference], names: dict[str, str]) -> np.ndarray:
    """A bar for each difference and group with its interval; RGB uint8."""
    left, right, line = 330, 760, 17
    height = 70 + len(rows) * (len(CLAIMED) + 1) * line
    canvas = np.full((height, right + 90, 3), 255, np.uint8)
    ends = [v for *_, groups in rows for triple in groups.values() for v in triple] + [0.0]
    low, high = min(ends) - 0.1, max(ends) + 0.1

    def at(v: float) -> int:
        return round(left + (v - low) / (high - low) * (right - left))

    for tick in np.arange(np.ceil(low * 4) / 4, high, 0.25 if high - low < 3 else 0.5):
        cv2.line(canvas, (at(tick), 34), (at(tick), height - 26), INK if abs(tick) < 1e-9 else GRID, 1)
        text(canvas, f"{tick:+.2f}", at(tick) - 18, height - 8, 0.38)
    text(canvas, "PSNR difference, dB, 95% over pictures and seeds", 12, 20, 0.5)
    y = 50
    for one, other, count, groups in rows:
        text(canvas, f"{names[one]} - {names[other]}", 12, y, 0.42)
        text(canvas, f"{count} seed{'s' if count > 1 else ''}", 12, y + line, 0.38, (120, 120, 120))
        for i, (group, (mean, lo, hi)) in enumerate(groups.items()):
            colour = COLOURS[i]
            text(canvas, group, left - 95, y + i * line, 0.38, colour)
            cv2.line(canvas, (at(lo), y + i * line - 4), (at(hi), y + i * line - 4), colour, 2, cv2.LINE_AA)
            cv2.circle(canvas, (at(mean), y + i * line - 4), 4, colour, -1, cv2.LINE_AA)
            text(canvas, f"{mean:+.2f}", right + 20, y + i * line, 0.38, colour)
        y += (len(groups) + 1) * line
    return canvas


def crops(
    work: Path, settings: dict[str, str], sets: dict[str, list[Pair]], names: dict[str, str]
) -> np.ndarray | None:
    """Crops of one pair a set: blurred, the answer of each arm whose first seed is still there, sharp; RGB uint8."""
    files = {a: work / settings[a] / f"{a}-0" / "last.safetensors" for a in settings}
    nets = {a: load_generator(str(f), "tracked") for a, f in files.items() if f.exists()}
    if not nets:
        return None
    rows = []
    for pairs in (p for p in sets.values() if p):
        blur, sharp = pairs[0]
        y, x = (max(0, (n - 160) // 2) for n in blur.shape[:2])
        row = [blur, *(restore(net, blur) for net in nets.values()), sharp]
        rows.append(np.hstack([im[y : y + 160, x : x + 160] for im in row]))
    head = np.full((24, rows[0].shape[1], 3), 255, np.uint8)
    for i, title in enumerate(("blurred", *(names[a] for a in nets), "sharp")):
        text(head, title, 160 * i + 4, 16, 0.42)
    return np.vstack([head, *rows])


@click.group(help=__doc__)
def main() -> None:
    cv2.setNumThreads(1)


def chosen(ctx: click.Context, option: click.Parameter, value: str) -> list[str]:
    by_letter = {letter(arm): arm for arm in ARMS}
    if unknown := [v for v in value.split(",") if v not in by_letter]:
        raise click.BadParameter(f"no arm {', '.join(unknown)}; there are {', '.join(by_letter)}")
    return [by_letter[v] for v in value.split(",")]


MEDIA = click.option("--media", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
WORK = click.option("--work", type=click.Path(path_type=Path), default=Path("scratch/study"))
FILE = click.option("--results", type=click.Path(path_type=Path), default=RESULTS)
STEPS = click.option(
    "--steps", type=int, help="Of each run; another number is another study.  [default: study.toml's]"
)


@main.command()
@MEDIA
@WORK
@FILE
@click.option("--arms", default="a,b,c,d,e,f", callback=chosen)
@click.option("--seeds", default="0,1,2")
@click.option("--workers", default=1, help="Processes that make the data.")
@STEPS
def run(
    media: Path, work: Path, results: Path, arms: list[str], seeds: str, workers: int, steps: int | None
) -> None:
    """Train and measure what the file of results lacks."""
    numbers = [int(s) for s in seeds.split(",")]
    tests = cache(partial(all_tests, media, work))
    study(media, work, results, arms, numbers, Sources(), config_of(steps), Start(), tests, workers)


@main.command()
@FILE
@click.option("--picture", type=click.Path(path_type=Path), help="Write the chart here.")
@click.option("--media", type=click.Path(exists=True, file_okay=False, path_type=Path), help="With --crops.")
@WORK
@click.option(
    "--crops", "sheet", type=click.Path(path_type=Path), help="Write crops of the first seed's runs here."
)
@STEPS
def report(
    results: Path, picture: Path | None, media: Path | None, work: Path, sheet: Path | None, steps: int | None
) -> None:
    """Table and picture of the runs of today's settings."""
    today = Sources(), config_of(steps), Start()
    settings = settings_of(*today)
    names = {START: "the start itself"} | {letter(arm): f"({arm[0]}){arm[1:]}" for arm in ARMS}
    runs = read_runs(results)
    found = of_settings(runs, {START: start_of(*today)} | settings)
    used = sum(len(seeds) for arm, seeds in found.items() if arm != START)
    click.echo(f"{results}: {len(runs)} runs, {used} of today's settings")
    if not used:
        return
    codes = sorted({run.commit for seeds in found.values() for run in seeds.values()})
    click.echo(f"made by the code of commit {', '.join(codes)}")
    rows = all_differences(found)
    console = Console(width=200)
    console.print(gains_table(found, names))
    if rows:
        console.print(differences_table(rows))
        if picture:
            save_png(picture, chart(rows, names))
    if sheet and media:
        image = crops(work, settings, all_tests(media, work), names)
        if image is None:
            raise click.ClickException(f"{work}: no weights of these settings are there any more")
        save_png(sheet, image)


@main.command()
@MEDIA
@WORK
@click.option("--arm", default="c", callback=lambda c, o, v: chosen(c, o, v)[0])
@click.option("--steps", default=500)
@click.option("--set", "changes", multiple=True, help="KEY=VALUE of the training's settings.")
def trial(media: Path, work: Path, arm: str, steps: int, changes: tuple[str, ...]) -> None:
    """A short training, measured on the validation scenes."""
    sources, config = Sources(), CONFIG.read_text()
    data = make_arm(media, work, arm, sources, 1)
    init = make_start(media, work, sources, config, Start(), 1)
    words = [w for change in changes for w in ("--set", change)]
    # Of other data or settings a trial that is over says nothing.
    out = work / "trials" / digest([settings_of(sources, config, Start())[letter(arm)], steps, changes])
    train([data], out, config, 0, init, ("--steps", str(steps), *words))
    click.echo(summary(measured(out / "last.safetensors", validation_scenes(work / "tests"))["gains"]))


if __name__ == "__main__":
    main()
