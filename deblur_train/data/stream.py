"""The stream of training crops: a pure function of (seed, batch number), whatever the number of workers.

Order. The samples of an epoch are the shards in a permutation drawn from (seed, epoch), shuffled within each shard;
the epochs follow each other without end. Rank r's *lane* l takes positions q, q + Q, q + 2Q... of that sequence, with
q = r * lanes + l and Q = ranks * lanes: every lane goes on for ever, and all ranks take equal steps by construction.

Crops. A lane holds ``frames_in_flight`` decoded frames and takes ``crops_per_frame`` crops of each, all in a shuffled
order, so that decoding is paid once for many crops while a batch still mixes frames. Batch b comes from lane
b mod lanes. A worker serves whole lanes (their number must divide by the workers'), so nothing is decoded twice.

Position. The number of the next batch says everything; a resumed run recomputes its place by arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypedDict

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from deblur_train.config import AugmentKind, NoiseKind
from deblur_train.data.augment import Augment, redraw_noise
from deblur_train.data.index import DataError, ShardIndex
from deblur_train.data.pictures import DecodeError, ShardReader


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
    noise: NoiseKind = "off"


@dataclass
class _Frame:
    blur: np.ndarray
    sharp: np.ndarray
    linear: np.ndarray | None
    crf: str
    left: int  # crops still to be taken


class CropStream(IterableDataset):
    """Endless batches of augmented crops from an index of shards; see the module's text for the order."""

    def __init__(
        self,
        index: ShardIndex,
        options: CropOptions,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        first_batch: int = 0,
    ) -> None:
        self.index, self.options, self.seed = index, options, seed
        self.rank, self.ranks, self.first_batch = rank, ranks, first_batch
        self.shard_of = np.array([s.shard for s in index.samples], dtype=np.int32)
        self.orders: dict[int, np.ndarray] = {}
        self.frames: dict[int, tuple[int, dict[int, _Frame]]] = {}  # lane -> (chunk, decoded frames by slot)
        self.plans: dict[int, tuple[int, np.ndarray]] = {}  # lane -> (chunk, order of its crops)
        self.bad: set[int] = set()
        self.fresh_faults: list[str] = []
        self.reader: ShardReader | None = None
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
        if self.reader is None:
            self.reader, self.augment = ShardReader(self.index.paths), Augment(self.options.augment)
        n = self.options.batch_size
        lane, turn = number % self.options.lanes, number // self.options.lanes
        pairs = [self._crop(lane, turn * n + i) for i in range(n)]
        faults, self.fresh_faults = self.fresh_faults, []
        # (N, H, W, 3) memory seen as (N, 3, H, W) is channels_last already.
        blur, sharp = (torch.from_numpy(np.stack(x)).permute(0, 3, 1, 2) for x in zip(*pairs, strict=True))
        return {"blur": blur, "sharp": sharp, "number": number, "faults": faults, "error": ""}

    def _crop(self, lane: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """The lane's crop number ``n``: (blur, sharp), ``(crop, crop, 3)`` uint8."""
        o = self.options
        chunk, at = divmod(n, o.frames_in_flight * o.crops_per_frame)
        q = self.rank * o.lanes + lane
        plan = self.plans.get(lane)
        if plan is None or plan[0] != chunk:
            order = np.random.default_rng([self.seed, 1, q, chunk]).permutation(
                o.frames_in_flight * o.crops_per_frame
            )
            plan = self.plans[lane] = (chunk, order)
            self.frames[lane] = (chunk, {})
        slot, shot = divmod(int(plan[1][at]), o.crops_per_frame)
        frames = self.frames[lane][1]
        position = (chunk * o.frames_in_flight + slot) * self.ranks * o.lanes + q
        frame = frames.get(slot)
        if frame is None:
            frame = frames[slot] = self._decode(position)
        frame.left -= 1
        if frame.left == 0:
            del frames[slot]
        return self._cut(frame, np.random.default_rng([self.seed, 2, position, shot]))

    def _cut(self, frame: _Frame, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        size = self.options.crop
        h, w = frame.blur.shape[:2]
        y, x = int(rng.integers(h - size + 1)), int(rng.integers(w - size + 1))
        window = (slice(y, y + size), slice(x, x + size))
        blur, sharp = frame.blur[window], frame.sharp[window]
        if frame.linear is not None:
            blur = redraw_noise(frame.linear[window], self.options.noise, frame.crf, rng)
        assert self.augment is not None
        return self.augment(blur, sharp, rng)

    def _order(self, epoch: int) -> np.ndarray:
        """Sample numbers of an epoch in their order."""
        if epoch not in self.orders:
            rng = np.random.default_rng([self.seed, 0, epoch])
            shards = rng.permutation(len(self.index.paths))
            place = np.empty(len(shards), dtype=np.int64)
            place[shards] = np.arange(len(shards))
            self.orders = {e: o for e, o in self.orders.items() if e == epoch - 1}
            self.orders[epoch] = np.lexsort((rng.random(len(self.shard_of)), place[self.shard_of]))
        return self.orders[epoch]

    def _decode(self, position: int) -> _Frame:
        """The frame at a position of the endless sequence; a broken one gives way to the next that can be decoded."""
        n = len(self.index.samples)
        epoch, at = divmod(position, n)
        order = self._order(epoch)
        assert self.reader is not None
        for step in range(n):
            number = int(order[(at + step) % n])
            if number in self.bad:
                continue
            sample = self.index.samples[number]
            try:
                blur, sharp = self.reader.pair(sample)
                linear = None
                if self.options.noise != "off":
                    linear = self.reader.linear(sample)
                    if linear.shape != blur.shape:
                        raise DecodeError("linear image has another size")
            except DecodeError as e:
                self.bad.add(number)
                self.fresh_faults.append(f"{self.index.paths[sample.shard].name}:{sample.key}: {e}")
                continue
            pictures = [blur, sharp] if linear is None else [blur, sharp, linear]
            pictures = [_at_least(_within(x, sample.border), self.options.crop) for x in pictures]
            return _Frame(
                pictures[0],
                pictures[1],
                pictures[2] if linear is not None else None,
                sample.crf,
                self.options.crops_per_frame,
            )
        raise DataError(
            f"none of the {n} samples can be decoded; the last: {self.fresh_faults[-1] if self.fresh_faults else 'unknown'}"
        )


def _within(image: np.ndarray, border: tuple[int, int, int, int]) -> np.ndarray:
    """A picture less its border (left, top, right, bottom); all of it where nothing would be left."""
    left, top, right, bottom = border
    h, w = image.shape[:2]
    return image[top : h - bottom, left : w - right] if left + right < w and top + bottom < h else image


def _at_least(image: np.ndarray, size: int) -> np.ndarray:
    """Reflect a picture that is smaller than the crop up to the crop's size."""
    h, w = image.shape[:2]
    if h >= size and w >= size:
        return image
    mode = cv2.BORDER_REFLECT_101 if min(h, w) > 1 else cv2.BORDER_REPLICATE
    return cv2.copyMakeBorder(image, 0, max(0, size - h), 0, max(0, size - w), mode)
