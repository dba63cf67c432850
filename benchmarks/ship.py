"""The model that comes with the package: its data, its training, its measure and its file, by public commands alone.

    python benchmarks/ship.py --data --train --measure --media ../shared/media --work scratch/ship
    python benchmarks/ship.py --measure --model deblur_train/weights/nafnet.safetensors --media ../shared/media

--data makes the pairs with `blursynth make`: sharp photographs under random camera shakes, with noise from none to strong,
JPEG and camera responses drawn per sample; films of pictures that move over each other; real clips. A set that is complete is left alone.
--train starts `deblur-train fit` at low priority on one core, or goes on where it stopped, to the bit: kill it at any time.
Every --every minutes it keeps the averaged weights in half precision: WORK/snapshots/STEP.safetensors, for the curve, and
WORK/kept.safetensors, one file of 5.3 MB that may be committed; a machine that has nothing else goes on with `--init` of it.
On a GPU it takes minutes (--cores 0: no limit), on one core ten hours and more.
--curve FILE.png draws what training bought: every snapshot on the validation scenes, by strength of blur, against crops seen.
--measure prints PSNR above the blurred input: validation scenes (what settings are chosen by), test scenes, REDS, GoPro,
Levin, and how far a sharp picture is from itself.
--ship FILE writes the mean of the weights of --model in half precision, the correction scaled by --scale: chosen on the
validation scenes, where a network trained for hours corrects too much of what is sharp already.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import scenes
import study
import torch
import truth
from joblib import Parallel, delayed
from rich.console import Console
from rich.table import Table
from study_data import training_scene

from deblur_train.config import load_config
from deblur_train.evaluation.plot import panel, save_png, text
from deblur_train.inference.tiles import restore
from deblur_train.models.checkpoint import CheckpointError, load_generator, read_state, save_generator

CONFIG = Path(__file__).with_name("ship.toml")
CLIPS = ("bikes.mp4", "max-heromode.mp4", "solidWhiteRight.mp4")
"""Trained on; the other clips of the media are held out."""
COMMON = "--tile 320 --seed 1 --val-fraction 0.05"
MOVING = (
    "--interp dis --shake 0-12 --shake-about centre --noise restore+iso --highlights auto --crf gamma1.8-2.6 "
    "--tile 256 --seed 1 --val-fraction 0"
)
STILLS = f"--stills --shake-about centre --crf gamma1.8-2.6 {COMMON}"
SETS: dict[str, tuple[str, str, float]] = {
    "mild": ("stills", f"--shake 1-10 --noise off --jpeg 80-100 {STILLS}", 2),
    "mild-noisy": ("stills", f"--shake 1-10 --noise iso {STILLS}", 2),
    "strong": ("stills", f"--shake 8-30 --noise off --highlights auto {STILLS}", 2),
    "strong-noisy": ("stills", f"--shake 8-30 --noise iso --highlights auto --jpeg 80-100 {STILLS}", 2),
    "layers": ("stills", f"--shake 2-30 --layers 1-3 --noise iso --highlights auto {STILLS}", 3),
    "sharp": ("stills", f"--shake 0-1 --noise iso {STILLS}", 1),
    "scenes": ("scenes", f"--fps 240 --window 3-5 {MOVING}", 2),
    "film": ("film", f"--window 9 --stride 3 --blur-px 3-25 {MOVING}", 1),
}
"""Name: sources, options of `blursynth make`, share of the crops."""
STREAKS = (5.0, 12.0, 24.0)
MAX_BYTES = 6_000_000
Sets = dict[str, list[scenes.Pair]]


def run(
    *words: str | Path,
    cores: int = 0,
    meanwhile: Callable[[], None] = lambda: None,
    every: float | None = None,
) -> None:
    """One command of this environment, printed first; its failure ends everything.

    cores: run at low priority on that many of the last cores; 0: as this process. meanwhile: called every so many seconds.
    """
    text = [str(w) for w in words]
    click.echo(f"$ {shlex.join(text)}")
    module = {"blursynth": "blursynth.cli", "deblur-train": "deblur_train.cli"}[text[0]]
    command, env = [sys.executable, "-m", module, *text[1:]], dict(os.environ)
    if cores:
        own = sorted(os.sched_getaffinity(0))[-cores:]
        command = ["nice", "-n", "10", "taskset", "-c", ",".join(map(str, own)), *command]
        env["OMP_NUM_THREADS"] = str(cores)
    with subprocess.Popen(command, env=env) as process:
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    code = process.wait(every)
                    break
                meanwhile()
        except KeyboardInterrupt:
            code = process.wait()  # it has had the same signal, and saves
    if code:
        sys.exit(code)


def write_scene(stills: list[np.ndarray], folder: Path, seed: int) -> None:
    """Five frames of pictures that move over each other, as a film."""
    folder.mkdir(parents=True, exist_ok=True)
    scene = training_scene(np.random.default_rng([7, seed]), stills, (360, 640))
    for t, frame in enumerate(scene.frames(5)):
        cv2.imwrite(str(folder / f"{t:06d}.png"), frame)


def make_data(
    media: Path, work: Path, samples: int, scene_count: int, workers: int, names: list[str]
) -> None:
    """The sets, each in its folder; samples: of all sets of stills together."""
    film, scene = work / "film", work / "scenes"
    film.mkdir(parents=True, exist_ok=True)
    for name in CLIPS:
        if not (film / name).exists():
            (film / name).symlink_to((media / "video" / name).resolve())
    pictures = sorted((media / "stills").glob("*.jpg"))
    if "scenes" in names and not (scene / f"{scene_count - 1:04d}").exists():
        light = [truth.to_linear(cv2.imread(str(p))) for p in pictures]
        Parallel(workers)(delayed(write_scene)(light, scene / f"{i:04d}", i) for i in range(scene_count))
    each = max(1, samples // len(pictures) // sum(kind == "stills" for kind, _, _ in SETS.values()))
    for name in names:
        kind, options, _ = SETS[name]
        src = {"stills": media / "stills", "film": film, "scenes": scene}[kind]
        count = ["--per-still", str(each)] if kind == "stills" else []
        words = [*shlex.split(options), *count, "--workers", str(workers)]
        run("blursynth", "make", src, "--out", work / "data" / name, *words)


def train(
    work: Path, steps: int | None, init: Path | None, every: float, cores: int, extra: tuple[str, ...]
) -> None:
    out = work / "run"
    names = [n for n in SETS if (work / "data" / n).is_dir()]
    words: list[str | Path] = ["--out", out, *extra]
    if (out / "last.pt").exists():  # the run knows its data and settings
        words += ["--resume"]
    else:
        words += [w for n in names for w in ("--shards", work / "data" / n)]
        words += ["--config", CONFIG]
        if "--mix" not in extra:
            words += ["--mix", ",".join(f"{SETS[n][2]:g}" for n in names)]
        words += ["--init", init] if init else []
    words += ["--steps", str(steps)] if steps else []
    run("deblur-train", "fit", *words, cores=cores, meanwhile=lambda: keep(work), every=60 * every)
    keep(work)


def keep(work: Path) -> None:
    """The averaged weights of the last save, in half precision, beside the run."""
    try:
        state, info = read_state(work / "run" / "last.safetensors")
    except CheckpointError:  # nothing saved yet
        return
    half = {k: v.half() for k, v in state.items()}
    extra = {k: info[k] for k in ("crop", "step") if k in info} | {"trained_by": "benchmarks/ship.py"}
    (work / "snapshots").mkdir(exist_ok=True)
    for path in (work / "snapshots" / f"{int(info['step']):07d}.safetensors", work / "kept.safetensors"):
        save_generator(path, "nafnet", half, extra)


def pair_sets(media: Path, work: Path, test: bool) -> Sets:
    """Validation scenes, or what models are judged on: test scenes of other pictures and seeds, and the field's pairs."""
    if not test:
        return {
            f"{kind} {s:g} px": scenes.kept_pairs(
                work / f"val-{kind}-{s:g}.npz", scenes.VALIDATION, s, seeds, gain
            )
            for kind, gain, seeds in (("val", 1.0, range(6)), ("val noisy", 8.0, range(20, 24)))
            for s in STREAKS
        }
    sets = {
        f"test {s:g} px": scenes.kept_pairs(work / f"test-{s:g}.npz", scenes.TEST, s, range(100, 112))
        for s in STREAKS
    }
    return sets | study.test_sets(media)


def gains(model: torch.nn.Module, sets: Sets, register: bool = False) -> dict[str, np.ndarray]:
    """PSNR above the blurred input's, dB, of every pair; `sharp`: PSNR of a sharp picture against itself.

    `NAME, registered`: the same with the blurred and the restored picture registered to the sharp one first. A sharp
    picture is one instant of the exposure, and which point of a crooked streak that is cannot be seen.
    """
    found: dict[str, np.ndarray] = {}
    for s, pairs in sets.items():
        restored = [(restore(model, blur), blur, sharp) for blur, sharp in pairs]
        judges = {s: partial(study.score_in, s)} | (
            {f"{s}, registered": study.registered} if register else {}
        )
        for name, db in judges.items():
            found[name] = np.array([db(r, sharp) - db(blur, sharp) for r, blur, sharp in restored])
    clean = [sharp for s, pairs in sets.items() if not s.startswith("val noisy") for _, sharp in pairs[:2]]
    found["sharp"] = np.array([study.score(restore(model, x), x, 0) for x in clean])
    return found


def measure(models: list[Path], media: Path, work: Path, test: bool) -> dict[str, Any]:
    sets = pair_sets(media, work, test)
    table = Table(title="PSNR above the blurred input, dB: mean (least); sharp: PSNR from itself")
    for column in ("model", *sets, "sharp"):
        table.add_column(column, justify="right")
    result = {}
    for path in models:
        found = gains(load_generator(path, "tracked"), sets, register=True)
        result[str(path)] = {s: {"mean": float(v.mean()), "least": float(v.min())} for s, v in found.items()}
        words = {s: f"{v.mean():+.2f} ({v.min():+.2f})" for s, v in found.items()}
        sharp = f"{found['sharp'].mean():.1f} ({found['sharp'].min():.1f})"
        table.add_row(path.stem, *(words[s] for s in sets), sharp)
        table.add_row("registered", *(words[f"{s}, registered"] for s in sets), "")
    Console(width=200).print(table)
    return result


def curve(media: Path, work: Path, out: Path) -> None:
    """Gain over the blurred input on the validation scenes of every snapshot, as a picture and a file beside it."""
    sets = pair_sets(media, work, False)
    rows: dict[str, dict[str, float]] = {}
    book = work / "curve.json"
    if book.exists():
        rows = json.loads(book.read_text())
    for path in sorted((work / "snapshots").glob("*.safetensors")):
        if path.stem not in rows:
            found = gains(load_generator(path, "tracked"), sets, register=True)
            rows[path.stem] = {k: float(v.mean()) for k, v in found.items()}
            book.write_text(json.dumps(rows, indent=1))
            click.echo(f"{path.stem}: " + ", ".join(f"{k} {v:+.2f}" for k, v in rows[path.stem].items()))
    config = load_config(str(work / "run" / "config.toml"), {})
    x = np.array([int(k) for k in rows]) * config.batch_size / 1000
    panels = []
    for what, kind, end in (
        ("clean scenes", "val ", ""),
        ("clean scenes, registered", "val ", ", registered"),
        ("noisy scenes", "val noisy ", ""),
    ):
        lines = {
            f"{s:g} px": (x, np.array([row[f"{kind}{s:g} px{end}"] for row in rows.values()]))
            for s in STREAKS
        }
        panels.append(panel(f"{what}: gain, dB, by 1000 crops of {config.crop} px", lines))
    save_png(out, np.vstack(panels))


def write_shipped(models: list[Path], out: Path, scale: float) -> None:
    """The file that comes with the package: the mean of the models' weights in half precision, the last convolution times
    ``scale``, at most 6 MB. Models that went on from each other lie in one basin: their mean is a network between them."""
    read = [read_state(m) for m in models]
    state = {k: sum(s[k].float() for s, _ in read) / len(read) for k in read[0][0]}
    state = {k: v * scale if k.startswith("ending.") else v for k, v in state.items()}
    extra = {k: v for k, v in read[0][1].items() if k in ("crop", "step")}
    extra |= {"trained_by": "benchmarks/ship.py", "correction_scale": f"{scale:g}", "licence": "MIT"}
    save_generator(out, "nafnet", {k: v.half() for k, v in state.items()}, extra)
    if out.stat().st_size > MAX_BYTES:
        raise click.ClickException(f"{out}: {out.stat().st_size} bytes, more than {MAX_BYTES}")


def picture(model: Path, sets: Sets, out: Path) -> None:
    """The middle of the first pair of each set: blurred, restored, sharp, with the gain in dB over the whole picture."""
    generator, rows = load_generator(model, "tracked"), []
    for name, pairs in sets.items():
        blur, sharp = pairs[0]
        restored = restore(generator, blur)
        y, x = (max(0, (n - side) // 2) for n, side in zip(blur.shape[:2], (180, 300), strict=True))
        row = np.hstack([im[y : y + 180, x : x + 300] for im in (blur, restored, sharp)])
        row = cv2.copyMakeBorder(
            row, 22, 0, 0, max(0, 900 - row.shape[1]), cv2.BORDER_CONSTANT, value=(255,) * 3
        )
        gain = study.score(restored, sharp, 0) - study.score(blur, sharp, 0)
        for left, words in (
            (4, f"{name.removeprefix('val ')}: blurred"),
            (304, f"restored: {gain:+.2f} dB"),
            (604, "sharp"),
        ):
            text(row, words, left, 15)
        rows.append(row[:, :900])
    quality = [cv2.IMWRITE_JPEG_QUALITY, 90] if out.suffix == ".jpg" else []
    cv2.imwrite(str(out), np.vstack(rows)[..., ::-1], quality)


@click.command(help=__doc__)
@click.option("--data", is_flag=True)
@click.option("--train", "fit", is_flag=True)
@click.option("--measure", "judge", is_flag=True)
@click.option("--test", is_flag=True, help="Measure on the test sets too: once, when all is chosen.")
@click.option("--media", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--work", type=click.Path(path_type=Path), default=Path("scratch/ship"))
@click.option("--samples", default=20000, help="Pairs of the stills, all sets together.")
@click.option("--only", default=",".join(SETS), help="Sets to make.")
@click.option("--scenes", "scene_count", default=300, help="Rendered films of moving pictures.")
@click.option("--workers", type=int, default=os.cpu_count())
@click.option("--steps", type=int)
@click.option(
    "--init", type=click.Path(exists=True, path_type=Path), help="Weights that a new run starts from."
)
@click.option("--every", default=60.0, help="Minutes between two snapshots of the weights.")
@click.option("--cores", default=1, help="That training may use, at low priority; 0: no limit, as for a GPU.")
@click.option("--curve", "figure", type=click.Path(path_type=Path), help="Draw what training bought.")
@click.option(
    "--picture", "look", type=click.Path(path_type=Path), help="Show the first pair of each validation set."
)
@click.option("--model", "models", multiple=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--ship", type=click.Path(path_type=Path), help="Write the mean of --model as the package's file."
)
@click.option("--scale", default=1.0, help="Of the shipped model's correction.")
@click.argument("fit_options", nargs=-1)
def main(
    data: bool, fit: bool, judge: bool, test: bool, media: Path | None, work: Path, samples: int, only: str,
    scene_count: int, workers: int, steps: int | None, init: Path | None, every: float, cores: int, figure: Path | None, look: Path | None,
    models: tuple[Path, ...], ship: Path | None, scale: float, fit_options: tuple[str, ...],
) -> None:  # fmt: skip
    if (data or judge or figure or look) and media is None:
        raise click.UsageError("--media is needed: the folder with stills/, video/ and pairs/")
    if data:
        make_data(media, work, samples, scene_count, workers, only.split(","))  # type: ignore[arg-type]
    if fit:
        train(work, steps, init, every, cores, fit_options)
    if figure:
        curve(media, work, figure)  # type: ignore[arg-type]
    if ship:
        write_shipped(list(models) or [work / "run" / "last.safetensors"], ship, scale)
    if judge:
        files = list(models) or [work / "run" / "last.safetensors"]
        result = measure(files, media, work, False)  # type: ignore[arg-type]
        if test:
            result = {"validation": result, "test": measure(files, media, work, True)}  # type: ignore[arg-type]
        (work / "measure.json").write_text(json.dumps(result, indent=1))
    if look:
        sets = pair_sets(media, work, False) | {"REDS": study.test_sets(media)["REDS"]}  # type: ignore[arg-type]
        picture((models or [work / "run" / "last.safetensors"])[0], sets, look)


if __name__ == "__main__":
    main()
