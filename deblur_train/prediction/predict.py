"""Restore files: pictures, videos, folders and globs of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from blursynth.common.progress import Meter, show_line
from blursynth.common.stop import stop_asked
from blursynth.common.text import counted
from deblur_train import distributed
from deblur_train.inference.restorer import Restorer, Tile, load_restorer
from deblur_train.inference.tiles import RestoreError
from deblur_train.media.codec import Encoding, choose_codec
from deblur_train.media.pictures import (
    CONVERT,
    ImageError,
    how_to_convert,
    lost_in,
    read_picture,
    write_picture,
)
from deblur_train.media.pictures import EXTENSIONS as IMAGES
from deblur_train.models.checkpoint import shipped_checkpoint
from deblur_train.models.norm import NormStats
from deblur_train.prediction.inputs import Input, find_inputs, kind_of
from deblur_train.prediction.videos import restore_video


@dataclass
class PredictResult:
    written: list[Path] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)  # a line for each input not restored
    damaged: list[str] = field(default_factory=list)  # a line for each video not restored from start to end
    images: int = 0
    frames: int = 0  # of videos
    seconds: float = 0.0  # restoring, without loading the checkpoint

    def summary(self) -> str:
        parts = []
        if self.images or not self.frames:
            parts.append(counted(self.images, "image"))
        if self.frames:
            parts.append(
                f"{counted(len(self.written) - self.images, 'video')} ({counted(self.frames, 'frame')})"
            )
        rate = (self.images + self.frames) / max(self.seconds, 1e-9)
        return f"{' and '.join(parts)} restored in {self.seconds:.1f} s, {rate:.3g} frames/s"


@dataclass(frozen=True)
class Options:
    """How results are made: ``temporal`` frames to smooth videos over (odd; 1: none), blurred beside restored, encoding."""

    temporal: int = 1
    side_by_side: bool = False
    encoding: Encoding = field(default_factory=Encoding)


def predict(
    inputs: str | Path | Sequence[str | Path],
    checkpoint: str | Path | None = None,
    out: str | Path = "restored",
    tile: Tile = "auto",
    norm_stats: NormStats = "tracked",
    device: str = "cpu",
    console: Console | None = None,
    options: Options | None = None,
) -> PredictResult:
    """Restore ``inputs`` into the folder ``out``, under their own names; a single one into ``out`` itself where that is the
    name of a picture or a video. A bad file is counted, the others go on. ``checkpoint`` None: the package's own.
    ``tile``: "auto", "off" or the side in px; ``norm_stats``: as in ``load_generator``; ``device``: cpu, cuda or auto.

    Raises CheckpointError for a bad checkpoint, UsageError for a setting that cannot be, and ImageError when there is
    nothing to do or a result would land on its input or on another result; KeyboardInterrupt on Ctrl-C or SIGTERM, with
    nothing half written.
    """
    console, options = console or Console(), options or Options()
    words = [str(i) for i in ([inputs] if isinstance(inputs, str | Path) else inputs)]
    folder = Path(out)
    if not words:
        raise ImageError("no input: give a picture, a video, a folder or a glob")
    found = find_inputs(words, folder)
    targets = _targets(found.found, folder)
    if targets == [folder]:
        folder = folder.parent
    if any(i.kind == "video" for i in found.found):
        choose_codec(options.encoding.codec)  # before hours of work
    restorer = load_restorer(
        checkpoint or shipped_checkpoint(), norm_stats, tile, distributed.choose_device(device)
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ImageError(f"{out}: cannot be made a folder for the results: {e.strerror}") from None
    result = PredictResult()
    for note in found.notes:
        show_line(console, note)
    began = time.monotonic()
    with stop_asked() as asked, Meter("restoring", len(targets), unit="file", console=console) as meter:

        def check() -> None:
            if asked():
                raise KeyboardInterrupt

        for given, target in zip(found.found, targets, strict=True):
            try:
                if given.kind == "image":
                    _image(given.path, target, restorer, options, result, meter)
                else:
                    # A result's suffix may have to be another.
                    taken = {*targets, *result.written, *(i.path for i in found.found)}
                    _video(given.path, target, restorer, options, result, meter, check, taken)
            except (ImageError, RestoreError) as e:
                e = e if isinstance(e, ImageError) else ImageError(f"{given.path}: {e}")
                result.failed.append(str(e))
                meter.say(f"failed: {e}")
            check()
            meter.advance("")
    result.seconds = time.monotonic() - began
    if restorer.warning():
        show_line(console, f"warning: {restorer.warning()}")
    return result


def _targets(found: list[Input], folder: Path) -> list[Path]:
    targets = [folder / i.below for i in found]
    kind = None if folder.is_dir() else kind_of(folder)
    if kind is not None:  # --out names a file
        if len(found) > 1:
            raise ImageError(f"{folder}: {len(found)} results cannot be one file; give a folder")
        if kind != found[0].kind:
            raise ImageError(f"{folder}: the result of {found[0].path} is no {kind}; give a name that fits")
        targets = [folder]
    for given, target in zip(found, targets, strict=True):
        if given.kind == "image" and target.suffix.lower() not in IMAGES:
            extension = target.suffix.lower()
            why = (
                how_to_convert(extension)
                if extension in CONVERT
                else f"not a picture or video by its name; known: {' '.join(IMAGES)}"
            )
            raise ImageError(f"{given.path}: {why}")
    for given, target in zip(found, targets, strict=True):
        if target.exists() and given.path.exists() and target.samefile(given.path):
            raise ImageError(f"{given.path}: the result would overwrite it; choose another --out")
    if len(set(targets)) < len(targets):
        twice = next(t for t in targets if targets.count(t) > 1)
        raise ImageError(f"{twice}: two inputs would be written here; restore them into different folders")
    return targets


def _image(
    source: Path, target: Path, restorer: Restorer, options: Options, result: PredictResult, meter: Meter
) -> None:
    picture = read_picture(source)
    rgb = restorer(picture.rgb)
    alpha = picture.alpha
    if options.side_by_side:
        rgb = np.hstack([picture.rgb, rgb])
        alpha = None if alpha is None else np.hstack([alpha, alpha])
    write_picture(target, replace(picture, rgb=rgb, alpha=alpha))
    result.written.append(target)
    result.images += 1
    for note in filter(None, (picture.note, lost_in(target.suffix.lower(), picture))):
        meter.say(f"{source}: {note}")


def _video(
    source: Path,
    target: Path,
    restorer: Restorer,
    options: Options,
    result: PredictResult,
    meter: Meter,
    check: Callable[[], None],
    taken: set[Path],
) -> None:
    began, frames = time.monotonic(), 0

    def progress(expected: int) -> None:
        nonlocal frames
        frames += 1
        check()
        rate = frames / max(time.monotonic() - began, 1e-9)
        left = f", {max(expected - frames, 0) / rate:.0f} s left" if expected else ""
        meter.tell(f"{source.name}: frame {frames}/{expected or '?'}, {rate:.3g} frames/s{left}")

    done = restore_video(
        source, target, restorer, options.temporal, options.side_by_side, options.encoding, progress, taken
    )
    result.written.append(done.written)
    result.frames += done.frames
    for note in done.notes:
        meter.say(note)
    if done.damage:
        result.damaged.append(done.damage)
        meter.say(f"damaged: {done.damage}")
