"""The stream of training crops: a pure function of (seed, batch number), whatever the number of workers.

Order. `order.py` gives all samples as one endless row. Rank r's *lane* l takes places q, q + Q, q + 2Q... of it, with
q = r * lanes + l and Q = ranks * lanes: every lane goes on for ever, and all ranks take equal steps by construction.

Crops. A lane holds ``frames_in_flight`` decoded frames and takes ``crops_per_frame`` crops of each, all in a shuffled
order, so that decoding is paid once for many crops while a batch still mixes frames. Batch b comes from lane
b mod lanes. A worker serves whole lanes (their number must divide by the workers'), so nothing is decoded twice.

Position. The number of the next batch says everything; a resumed run recomputes its place by arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from deblur_train.config import AugmentKind
from deblur_train.data.augment import Augment, redraw_noise
from deblur_train.data.index import DataError, ShardIndex
from deblur_train.data.order import Mixture, ShardSet
from deblur_train.data.pictures import DecodeError, inside_border


class Batch(TypedDict):
    blur: Tensor  # (N, 3, crop, crop) uint8 RGB, channels last
    sharp: Tensor  # likewise
    number: int
    faults: list[str]  # samples that could not be decoded and were passed over since this worker's last batch
    error: str  # why there are no more batches; empty while there are


@dataclass(frozen=True)
class CropOptions:
    batch_size: int
    crop: int
    crops_per_frame: int = 8
    frames_in_flight: int = 8
    lanes: int = 8
    augment: AugmentKind = "article"
    noise: str = "off"


@dataclass
class Frame:
    blur: np.ndarray
    sharp: np.ndarray
    linear: np.ndarray | None
    crf: str
    jpeg: int | None
    left: int  # crops still to be taken


class Lane:
    """One of the independent rows of crops: which chunk of frames it is in, and those of them that are decoded."""

    def __init__(self, number: int, seed: int, options: CropOptions) -> None:
        self.number, self.seed, self.options = number, seed, options
        self.chunk = -1
        self.order = np.empty(0, dtype=np.int64)
        self.frames: dict[int, Frame] = {}

    def find(self, crop: int) -> tuple[int, int]:
        """(which frame of the lane, which crop of that frame) the lane's crop number ``crop`` is."""
        o = self.options
        size = o.frames_in_flight * o.crops_per_frame
        chunk, at = divmod(crop, size)
        if chunk != self.chunk:
            self.chunk, self.frames = chunk, {}
            self.order = np.random.default_rng([self.seed, 1, self.number, chunk]).permutation(size)
        slot, shot = divmod(int(self.order[at]), o.crops_per_frame)
        return chunk * o.frames_in_flight + slot, shot

    def take(self, number: int, decode: Callable[[], Frame]) -> Frame:
        """The lane's frame ``number``, decoded when it is first asked for and forgotten with its last crop."""
        frame = self.frames.get(number) or self.frames.setdefault(number, decode())
        frame.left -= 1
        if frame.left == 0:
            del self.frames[number]
        return frame


class CropStream(IterableDataset):
    """Endless batches of augmented crops from one or several indexes of shards; see the module's text for the order.

    A batch is a dict: ``blur`` and ``sharp``, uint8 RGB (N, 3, crop, crop), display-encoded; its ``number``; ``faults``, samples
    that were passed over; ``error``, why there are no more batches, or "". It is a function of the shards, options, seed,
    rank and its number. Raises ConfigError for weights too unlike to mix by, ValueError unless there is one for each index.
    """

    def __init__(
        self,
        index: ShardIndex | Sequence[ShardIndex],
        options: CropOptions,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        first_batch: int = 0,
        mix: Sequence[float] | None = None,
    ) -> None:
        """``mix``: one weight an index, in samples drawn; equal ones by default."""
        self.indexes = [index] if isinstance(index, ShardIndex) else list(index)
        self.options, self.seed = options, seed
        self.rank, self.ranks, self.first_batch = rank, ranks, first_batch
        self.mixture = Mixture(mix or [1] * len(self.indexes), seed)
        if len(self.mixture.parts) != len(self.indexes):
            raise ValueError(f"{len(self.mixture.parts)} weights for {len(self.indexes)} sets of shards")
        self.sets: list[ShardSet] = []  # opened by the process that decodes
        self.lanes: dict[int, Lane] = {}
        self.fresh_faults: list[str] = []
        self.augment: Augment | None = None

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        number = self.first_batch + worker
        while True:
            try:
                yield self.batch(number)
            except DataError as e:
                # As a value: torch would wrap an exception from a worker in that worker's traceback.
                empty = torch.empty(0)
                yield {
                    "blur": empty,
                    "sharp": empty,
                    "number": number,
                    "faults": self.fresh_faults,
                    "error": str(e),
                }
                return
            number += workers

    def batch(self, number: int) -> Batch:
        """Batch ``number``, from scratch if need be. Raises DataError when no sample can be decoded."""
        if self.augment is None:
            self.sets = [ShardSet(index, self.seed, i) for i, index in enumerate(self.indexes)]
            self.augment = Augment(self.options.augment)
        n = self.options.batch_size
        lane, turn = number % self.options.lanes, number // self.options.lanes
        pairs = [self._crop(lane, turn * n + i) for i in range(n)]
        faults, self.fresh_faults = self.fresh_faults, []
        # (N, H, W, 3) memory seen as (N, 3, H, W) is channels_last already.
        blur, sharp = (torch.from_numpy(np.stack(x)).permute(0, 3, 1, 2) for x in zip(*pairs, strict=True))
        return {"blur": blur, "sharp": sharp, "number": number, "faults": faults, "error": ""}

    def _crop(self, lane: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """The lane's crop number ``n``: (blur, sharp), ``(crop, crop, 3)`` uint8."""
        lanes = self.options.lanes
        q = self.rank * lanes + lane
        own = self.lanes.setdefault(lane, Lane(q, self.seed, self.options))
        number, shot = own.find(n)
        place = number * self.ranks * lanes + q
        frame = own.take(number, lambda: self._decode(place))
        return self._cut(frame, np.random.default_rng([self.seed, 2, place, shot]))

    def _cut(self, frame: Frame, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        size = self.options.crop
        h, w = frame.blur.shape[:2]
        y, x = int(rng.integers(h - size + 1)), int(rng.integers(w - size + 1))
        window = (slice(y, y + size), slice(x, x + size))
        blur, sharp = frame.blur[window], frame.sharp[window]
        if frame.linear is not None:
            blur = redraw_noise(frame.linear, window, self.options.noise, frame.crf, frame.jpeg, rng)
        assert self.augment is not None
        return self.augment(blur, sharp, rng)

    def _decode(self, place: int) -> Frame:
        """The frame at a place of the endless row; a broken one gives way to the next of its set that can be decoded."""
        chosen, at = self.mixture.find(place)
        own = self.sets[chosen]
        for number in own.samples(at):
            sample = own.index.samples[number]
            try:
                pictures = [*own.reader.pair(sample)]
                if self.options.noise != "off":
                    pictures.append(own.reader.linear(sample))
                    if pictures[2].shape != pictures[0].shape:
                        raise DecodeError("linear image has another size")
            except DecodeError as e:
                own.bad.add(number)
                self.fresh_faults.append(f"{own.index.paths[sample.shard].name}:{sample.key}: {e}")
                continue
            blur, sharp, *linear = (
                _at_least(inside_border(x, sample.border), self.options.crop) for x in pictures
            )
            return Frame(
                blur,
                sharp,
                linear[0] if linear else None,
                sample.crf,
                sample.jpeg,
                self.options.crops_per_frame,
            )
        last = self.fresh_faults[-1] if self.fresh_faults else "unknown"
        raise DataError(f"none of the {len(own.shard_of)} samples can be decoded; the last: {last}")


def _at_least(image: np.ndarray, size: int) -> np.ndarray:
    """Reflect a picture that is smaller than the crop up to the crop's size."""
    h, w = image.shape[:2]
    if h >= size and w >= size:
        return image
    mode = cv2.BORDER_REFLECT_101 if min(h, w) > 1 else cv2.BORDER_REPLICATE
    return cv2.copyMakeBorder(image, 0, max(0, size - h), 0, max(0, size - w), mode)
