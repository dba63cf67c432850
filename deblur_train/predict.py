"""Restore image files: one, several, or whole folders."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console

from .checkpoint import load_generator
from .image_file import EXTENSIONS, ImageError, read_picture, write_picture
from .inference import auto_tile, restore
from .norm import NormStats
from .progress import Meter


@dataclass(frozen=True)
class PredictResult:
    written: list[Path]
    failed: list[str]  # one line for each input that could not be restored


def find_images(inputs: list[str]) -> list[tuple[Path, Path]]:
    """(file, its place below the output folder) of every image. Raises ImageError when an input is not there.

    A folder gives its images, subfolders included, and keeps its structure.
    """
    found: list[tuple[Path, Path]] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
            if not inside:
                raise ImageError(f"{path}: no image in this folder ({', '.join(EXTENSIONS)})")
            found += [(p, p.relative_to(path)) for p in inside]
        elif path.is_file():
            found.append((path, Path(path.name)))
        else:
            raise ImageError(f"{path}: no such file or folder")
    return found


def predict(
    inputs: list[str],
    checkpoint: str,
    out: str,
    tile: int | Literal["auto"] | None = "auto",
    norm_stats: NormStats = "tracked",
    device: str = "cpu",
    console: Console | None = None,
) -> PredictResult:
    """Restore images into the folder ``out``, under their own names. A bad image is counted, the others go on.

    Raises CheckpointError for a bad checkpoint and ImageError when there is nothing to do or a result would land on
    its input or on another result.
    """
    images = find_images(inputs)
    targets = [Path(out) / below for _, below in images]
    for (source, _), target in zip(images, targets, strict=True):
        if target.exists() and target.samefile(source):
            raise ImageError(f"{source}: the result would overwrite it; choose another --out")
    if len(set(targets)) < len(targets):
        twice = next(t for t in targets if targets.count(t) > 1)
        raise ImageError(f"{twice}: two inputs would be written here; restore them into different folders")
    generator = load_generator(checkpoint, norm_stats).to(device)
    written, failed = [], []
    with Meter(console or Console(), "restoring", len(images), unit="image") as meter:
        for (source, _), target in zip(images, targets, strict=True):
            try:
                picture = read_picture(source)
                h, w = picture.rgb.shape[:2]
                side = auto_tile(h, w, torch.device(device)) if tile == "auto" else tile
                write_picture(target, replace(picture, rgb=restore(generator, picture.rgb, side)))
                written.append(target)
            except ImageError as e:
                failed.append(str(e))
                meter.say(f"failed: {e}")
            meter.advance()
    return PredictResult(written, failed)
