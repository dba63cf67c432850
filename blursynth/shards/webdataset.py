"""(blur, sharp) pairs for any training loop: shards through a plain webdataset pipeline.

webdataset reads the tars; the order is our own. Its shard shuffle gives the same order in every epoch, its node splitter
raises on more than one rank, and its shuffle buffer draws anew in every run: here order and crops follow from the seed.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from blursynth.shards.picture import decode_image, decode_mask, to_8_bits
from blursynth.shards.schema import FORMATS
from blursynth.shards.shard import ShardError

if TYPE_CHECKING:
    import webdataset as wds

LABELS = ("flow", "mask")
MOST_WORKERS = 1024


def webdataset_pairs(
    urls: str | Path | Sequence[str | Path],
    crop: int | None = None,
    shuffle: int = 64,
    *,
    seed: int = 0,
    labels: Sequence[str] = (),
    split: str = "train",
    handler: Callable[[Exception], bool] | None = None,
) -> wds.DataPipeline:
    """A ``wds.DataPipeline`` of (blur, sharp), each ``(H, W, 3)`` uint8 RGB, display-encoded.

    One pass over it is one epoch; the next pass has another order and other crops, with DataLoader's workers too, whether
    they persist or not. The samples of a pass are a function of (seed, number of the pass, ranks, workers); a sample's
    crop is one of (seed, number of the pass, key) alone. Each reader (a rank's worker) has as many shards of its own as the
    others; shards that are left over are read by all readers, which share their samples. So the parts are equal where the
    shards are; ranks that must take equal steps add ``.repeat().with_epoch(steps)``.

    Args:
        urls: a folder of shards, a tar, a pattern (``train-{000000..000007}.tar``, ``data/train-*.tar``), or several;
            whatever webdataset opens (``https://``, ``pipe:aws s3 cp ... -``) is as good.
        crop: edge of a square cut out of every pair, at a random place (the middle with ``shuffle=0``); None: whole frames.
        shuffle: samples, not yet decoded, that a reader holds to draw from; 0: shards and samples in their order.
        labels: of "flow" (``(H, W, 2)`` float16, px) and "mask" (``(H, W)`` uint8, 0 or 255), which then follow in each tuple.
        split: which shards of a folder.
        handler: what becomes of a damaged sample or shard, as webdataset has it; default ``wds.warn_and_continue``.

    Raises:
        ShardError: no shard is there. While reading: a frame smaller than the crop, or a sample without a label asked for.
    """
    import webdataset as wds

    if unknown := set(labels) - set(LABELS):
        raise ValueError(f"labels: {sorted(unknown)} is none of {', '.join(LABELS)}")
    handler = handler or wds.warn_and_continue
    places = _expand([urls] if isinstance(urls, str | Path) else urls, split)
    return wds.DataPipeline(
        _Shards(places, seed, shuffle > 0),
        partial(_samples, handler=handler),
        partial(_shuffled, size=shuffle, seed=seed),
        partial(_pairs, crop=crop, seed=seed if shuffle else None, labels=tuple(labels), handler=handler),
    )


def _expand(urls: Sequence[str | Path], split: str) -> list[str]:
    from webdataset.shardlists import expand_urls

    found: list[str] = []
    for url in map(str, urls):
        if Path(url).is_dir():
            found += sorted(map(str, Path(url).glob(f"{split}-*.tar")))
        elif "*" in url and ":" not in url:
            found += sorted(glob.glob(url))  # noqa: PTH207  # an absolute pattern
        else:
            found += expand_urls(url)
    if not found:
        raise ShardError(
            f"{', '.join(map(str, urls))}: holds no {split}-*.tar shard; make some with 'blursynth make'"
        )
    return found


@dataclass(frozen=True)
class _Part:
    """A shard to read, and which of its samples are this reader's."""

    url: str
    epoch: int
    reader: int
    every: int  # of the samples of a pass, numbers ``reader``, ``reader + every``...; 1: all


class _Shards:
    """The shards of this reader (a rank's worker), in the order of this pass."""

    def __init__(self, urls: list[str], seed: int, shuffle: bool) -> None:
        self.urls, self.seed, self.shuffle = urls, seed, shuffle
        # Passes begun, a number for each worker, in memory that a worker shares with the process that started it: workers
        # that live for one pass only would all take theirs for the first.
        self.passes = multiprocessing.RawArray("q", MOST_WORKERS)

    def __call__(self) -> Iterator[_Part]:
        from webdataset.utils import pytorch_worker_info

        rank, ranks, worker, workers = pytorch_worker_info()
        epoch = self.passes[worker % MOST_WORKERS]
        self.passes[worker % MOST_WORKERS] += 1
        urls = self.urls
        if self.shuffle:
            urls = [urls[i] for i in np.random.default_rng([self.seed, 0, epoch]).permutation(len(urls))]
        reader, readers = rank * workers + worker, ranks * workers
        own = len(urls) // readers * readers
        yield from (_Part(u, epoch, reader, 1) for u in urls[reader:own:readers])
        yield from (_Part(u, epoch, reader, readers) for u in urls[own:])


def _samples(
    parts: Iterable[_Part], handler: Callable[[Exception], bool]
) -> Iterator[tuple[_Part, dict[str, Any]]]:
    from webdataset.tariterators import tarfile_samples

    number = 0
    for part in parts:
        for sample in tarfile_samples([{"url": part.url}], handler=handler):
            if part.every == 1:
                yield part, sample
                continue
            if number % part.every == part.reader:
                yield part, sample
            number += 1


def _shuffled(
    samples: Iterable[tuple[_Part, dict[str, Any]]], size: int, seed: int
) -> Iterator[tuple[_Part, dict[str, Any]]]:
    """A buffer of ``size`` samples, one drawn for each that comes in."""
    held: list[tuple[_Part, dict[str, Any]]] = []
    rng: np.random.Generator | None = None
    for item in samples:
        if size < 2:
            yield item
            continue
        rng = rng or np.random.default_rng([seed, 1, item[0].epoch, item[0].reader])
        if len(held) < size:
            held.append(item)
            continue
        at = int(rng.integers(size))
        drawn, held[at] = held[at], item
        yield drawn
    while held and rng:
        yield held.pop(int(rng.integers(len(held))))


def _pairs(
    samples: Iterable[tuple[_Part, dict[str, Any]]],
    crop: int | None,
    seed: int | None,
    labels: tuple[str, ...],
    handler: Callable[[Exception], bool],
) -> Iterator[tuple[np.ndarray, ...]]:
    """Decode, and cut the same square out of all; ``seed`` None: out of the middle."""
    for part, sample in samples:
        key, where = str(sample["__key__"]), f"{sample.get('__url__', part.url)}: {sample['__key__']}"
        try:
            images = [_picture(sample, role, where) for role in ("blur", "sharp")]
            if images[0].shape != images[1].shape:
                raise ShardError(f"{where}: blur is {images[0].shape[:2]}, sharp is {images[1].shape[:2]}")
            given = [_label(sample, name, where) for name in labels]
            border = _border(sample)
        except (ShardError, ValueError) as e:
            if handler(e):
                continue
            break
        if absent := [name for name, x in zip(labels, given) if x is None]:
            raise ShardError(f"{where}: has no {absent[0]}; make the shards with --labels {','.join(labels)}")
        arrays = [*images, *(x for x in given if x is not None)]
        if any(x.shape[:2] != images[0].shape[:2] for x in arrays):
            raise ShardError(f"{where}: a label has another size than the pictures")
        if crop is not None:
            cut = _window(images[0].shape, crop, border, seed, part.epoch, key, where)
            arrays = [np.ascontiguousarray(x[cut]) for x in arrays]
        yield tuple(arrays)


def _picture(sample: dict[str, Any], role: str, where: str) -> np.ndarray:
    for ext in FORMATS:
        if data := sample.get(f"{role}.{ext}"):
            return to_8_bits(decode_image(data, f"{where}.{role}.{ext}"))
    raise ShardError(f"{where}: lacks its {role} picture")


def _label(sample: dict[str, Any], name: str, where: str) -> np.ndarray | None:
    if name == "flow":
        return np.load(io.BytesIO(data), allow_pickle=False) if (data := sample.get("flow.npy")) else None
    return decode_mask(data, f"{where}.mask.png") if (data := sample.get("mask.png")) else None


def _border(sample: dict[str, Any]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom px that shake may have filled with reflected light: no crop takes them. The border of a
    film's tile is that of the whole frame, of which the tile stays clear."""
    try:
        meta = json.loads(sample["json"])
        shake = None if meta.get("tile") else meta["exposure"].get("shake")
        left, top, right, bottom = map(int, shake["border"]) if shake else (0, 0, 0, 0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise ShardError(f"{sample['__key__']}.json: cannot be read ({type(e).__name__}: {e})") from None
    return left, top, right, bottom


def _window(
    shape: tuple[int, ...],
    size: int,
    border: tuple[int, int, int, int],
    seed: int | None,
    epoch: int,
    key: str,
    where: str,
) -> tuple[slice, slice]:
    if min(shape[:2]) < size:
        raise ShardError(f"{where}: {shape[1]}x{shape[0]} is smaller than a crop of {size}; lower crop")
    left, top, right, bottom = border
    digest = hashlib.sha256(f"{seed}\0{epoch}\0{key}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    at = []
    for length, before, after in ((shape[0], top, bottom), (shape[1], left, right)):
        lo, hi = (before, length - after - size) if before + after + size <= length else (0, length - size)
        at.append((lo + hi) // 2 if seed is None else int(rng.integers(lo, hi + 1)))
    return slice(at[0], at[0] + size), slice(at[1], at[1] + size)
