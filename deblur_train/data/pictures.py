"""The pictures of indexed samples: read at their offsets, checked, decoded."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from blursynth.common.errors import UserError
from blursynth.shards.picture import image_size, picture_fault, read_rgb, to_8_bits
from deblur_train.data.index import Sample, ShardIndex

AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
HEADER = 64  # bytes that hold the size of a PNG or a WebP


class DecodeError(UserError):
    """An image of a sample that cannot be decoded."""


def _decode(data: bytes, flags: int) -> np.ndarray:
    if fault := picture_fault(data):  # before a decoder prints about it or guesses pixels
        raise DecodeError(fault)
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        bgr = None
    if bgr is None:
        raise DecodeError("image cannot be decoded")
    return bgr


def decode_rgb(data: bytes) -> np.ndarray:
    """PNG or WebP bytes to ``(H, W, 3)`` uint8 RGB, 16 bits rounded, as every reader of shards gives them: an orientation
    in a picture's metadata turns nothing, for its twin may have none. Raises DecodeError."""
    if (rgb := read_rgb(data)) is not None:
        return rgb
    bgr = to_8_bits(_decode(data, AS_STORED))
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=bgr)


def decode_linear16(data: bytes) -> np.ndarray:
    """16-bit PNG bytes to ``(H, W, 3)`` uint16 RGB, linear light. Raises DecodeError."""
    bgr = _decode(data, cv2.IMREAD_UNCHANGED)
    if bgr.dtype != np.uint16 or bgr.ndim != 3 or bgr.shape[2] != 3:
        raise DecodeError("linear image is not 16-bit RGB")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


class ShardReader:
    """Reads the images of indexed samples; keeps the shards open. One for each process (not shared over a fork)."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.files: dict[int, int] = {}

    def read(self, shard: int, span: tuple[int, int]) -> bytes:
        """The bytes at (offset, size) of a shard. Raises DecodeError where they are not there."""
        try:
            if shard not in self.files:
                if len(self.files) >= 64:  # far below any limit on open files
                    os.close(self.files.pop(next(iter(self.files))))
                self.files[shard] = os.open(self.paths[shard], os.O_RDONLY)
            data = os.pread(self.files[shard], span[1], span[0])
        except OSError as e:
            raise DecodeError(f"cannot be read: {e.strerror}") from None
        if len(data) != span[1]:
            raise DecodeError("shard became shorter")
        return data

    def pair(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """(blur, sharp), both ``(H, W, 3)`` uint8 RGB of one size. Raises DecodeError."""
        blur = decode_rgb(self.read(sample.shard, sample.blur))
        sharp = decode_rgb(self.read(sample.shard, sample.sharp))
        if blur.shape != sharp.shape:
            raise DecodeError(
                f"blur is {blur.shape[1]}x{blur.shape[0]} and sharp {sharp.shape[1]}x{sharp.shape[0]}"
            )
        return blur, sharp

    def linear(self, sample: Sample) -> np.ndarray:
        """The noise-free linear blur, ``(H, W, 3)`` uint16 RGB. Raises DecodeError."""
        if sample.linear is None:
            raise DecodeError('sample holds no linear image (shards made with store = "linear16" do)')
        return decode_linear16(self.read(sample.shard, sample.linear))

    def close(self) -> None:
        for fd in self.files.values():
            os.close(fd)
        self.files.clear()


def inside_border(image: np.ndarray, border: tuple[int, int, int, int]) -> np.ndarray:
    """A picture less its border (left, top, right, bottom), a view; all of it where nothing would be left."""
    left, top, right, bottom = _box_inside(image.shape[1], image.shape[0], border)
    return image[top:bottom, left:right]


def _box_inside(w: int, h: int, border: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is left of ``w`` x ``h`` pixels."""
    left, top, right, bottom = border
    return (left, top, w - right, h - bottom) if left + right < w and top + bottom < h else (0, 0, w, h)


def spread_over(index: ShardIndex, most: int) -> list[Sample]:
    """Up to ``most`` samples at even steps, from the first to the last."""
    count = len(index.samples)
    chosen = np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))
    return [index.samples[i] for i in chosen]


def picture_sizes(index: ShardIndex, most: int) -> list[tuple[int, int]]:
    """(width, height) of up to ``most`` blurred pictures spread over the samples, by their headers alone; less the border
    that training leaves out."""
    sizes, reader = [], ShardReader(index.paths)
    for sample in spread_over(index, most):
        with suppress(DecodeError):
            offset, length = sample.blur
            if size := image_size(reader.read(sample.shard, (offset, min(length, HEADER)))):
                left, top, right, bottom = _box_inside(*size, sample.border)
                sizes.append((right - left, bottom - top))
    reader.close()
    return sizes
