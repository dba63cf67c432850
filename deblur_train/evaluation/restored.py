"""Pictures that another method made, as answers to measure: found by the names of the pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from blursynth.shards.picture import to_8_bits
from deblur_train.data.index import DataError
from deblur_train.media.pictures import EXTENSIONS, ImageError, files_below, read_picture

Answer = Callable[[str, np.ndarray], np.ndarray]
"""(name of a pair, its blurred picture) to the restored one, of the same shape and type."""


def answers_from_folder(folder: str | Path, names: Sequence[str]) -> Answer:
    """Each pair's picture: at ``folder/NAME.*``, or anywhere below it under the last part of its name, where that is one
    file and one pair's. Raises DataError where no pair has one; the answer raises ImageError for a pair without."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of restored pictures")
    whole: dict[str, list[Path]] = defaultdict(list)
    last: dict[str, list[Path]] = defaultdict(list)
    for path in files_below(folder, _refuse):
        if path.suffix.lower() in EXTENSIONS:
            whole[path.relative_to(folder).with_suffix("").as_posix()].append(path)
            last[path.stem].append(path)
    asked = [n.rpartition("/")[2] for n in names]
    found = {name: paths[0] for name, paths in whole.items()}
    for name, stem in zip(names, asked):
        if name not in found and len(last[stem]) == 1 and asked.count(stem) == 1:
            found[name] = last[stem][0]
    if not any(n in found for n in names):
        raise DataError(f"{folder}: no picture has the name of a pair, such as {names[0]}.png")

    def answer(name: str, blur: np.ndarray) -> np.ndarray:
        if name not in found:
            raise ImageError(f"no picture of that name in {folder}")
        if len(several := whole.get(name, ())) > 1:
            raise ImageError(f"{folder} holds several of that name: {', '.join(p.name for p in several)}")
        rgb = read_picture(found[name]).rgb
        if rgb.shape != blur.shape:
            h, w = blur.shape[:2]
            raise ImageError(
                f"{found[name].name} ({rgb.shape[1]}x{rgb.shape[0]}) is not of the pair's size ({w}x{h})"
            )
        if rgb.dtype == blur.dtype:
            return rgb
        return to_8_bits(rgb) if blur.dtype == np.uint8 else rgb.astype(np.uint16) * 257

    return answer


def _refuse(e: OSError) -> None:
    raise DataError(f"{e.filename}: cannot be listed: {e.strerror}")
