"""Is an exported file still the checkpoint it came from? Differences at several sizes, and PSNR on real frames."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np

from deblur_train.data.index import DataError
from deblur_train.data.pictures import DecodeError
from deblur_train.evaluation.evaluate import PSNR_CAP
from deblur_train.evaluation.metrics import psnr
from deblur_train.evaluation.pair_sources import pairs_from_shards
from deblur_train.inference.runtimes import Runner
from deblur_train.inference.signature import Size

SIZES: tuple[Size, Size] = ((160, 192), (101, 135))  # whole blocks, and a size that is padded and cropped
LARGEST_SIDE = 640  # of a calibration frame; larger ones are cut to their centre
Pair = tuple[np.ndarray, np.ndarray]  # blurred, sharp: (H, W, 3) uint8 RGB


@dataclass(frozen=True)
class RealFrames:
    calibration: list[np.ndarray]  # blurred, (H, W, 3) uint8 RGB
    pairs: list[Pair]  # to measure on, from the val split where there is one
    note: str


def synthetic(size: Size, seed: int = 0) -> np.ndarray:
    """``(1, 3, H, W)`` float32 in [-1, 1]: patches of colour with sharp edges, and noise on them."""
    rng = np.random.default_rng(seed)
    h, w = size
    patches = rng.uniform(-1, 1, (1, 3, h // 16 + 1, w // 16 + 1)).repeat(16, 2).repeat(16, 3)[..., :h, :w]
    return np.clip(patches + rng.normal(0, 0.05, (1, 3, h, w)), -1, 1).astype(np.float32)


def to_input(rgb: np.ndarray) -> np.ndarray:
    """``(H, W, 3)`` uint8 to ``(1, 3, H, W)`` float32 in [-1, 1]."""
    return (rgb.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None]


def to_image(y: np.ndarray) -> np.ndarray:
    """The inverse, rounded."""
    return np.round((np.clip(y[0], -1, 1) + 1) * 127.5).transpose(1, 2, 0).astype(np.uint8)


def fit(rgb: np.ndarray, size: Size) -> np.ndarray:
    """The centre of a frame at exactly ``size``; a frame that is too small is reflected at its borders."""
    for axis, want in enumerate(size):
        have = rgb.shape[axis]
        start = max(have - want, 0) // 2
        rgb = rgb.take(range(start, min(start + want, have)), axis)
        if have < want:
            rgb = np.pad(rgb, [(0, want - have) if a == axis else (0, 0) for a in range(3)], mode="symmetric")
    return rgb


def read_frames(data: str, count: int, size: Size | None) -> RealFrames:
    """``count`` blurred frames to calibrate on (train split) and up to 8 pairs to measure on (val split).

    With one split only, every fourth sample is measured on and the others calibrate. Frames are cut to ``size``, or to
    640 pixels a side. Raises DataError when there are none.
    """
    picked: dict[str, list[Pair]] = {}
    faults: list[str] = []
    for split, limit in (("train", count), ("val", 8)):
        try:
            source = pairs_from_shards(data, split, limit)
        except DataError:
            if picked or split == "train":
                continue
            raise
        found = []
        for i, name in enumerate(source.names):
            try:
                found.append(source.read(i))
            except DecodeError as e:
                faults.append(f"{name}: {e}")
        picked[split] = found
    train, val = picked.get("train", []), picked.get("val", [])
    note = "calibrated on the train split, measured on the val split"
    if not train or not val:
        both = train or val
        train, val = [p for i, p in enumerate(both) if i % 4], both[::4][:8]
        note = "one split only: every fourth sample measured, the others calibrated on"
    if not train or not val:
        why = f"; first fault: {faults[0]}" if faults else ""
        raise DataError(f"{data}: too few samples to calibrate on and to measure on (2 are needed){why}")
    if faults:
        note += f"; {len(faults)} samples left out, first {faults[0]}"
    cut = size or (LARGEST_SIDE, LARGEST_SIDE)

    def smaller(rgb: np.ndarray) -> np.ndarray:
        return fit(rgb, size or (min(rgb.shape[0], cut[0]), min(rgb.shape[1], cut[1])))

    return RealFrames([smaller(blur) for blur, _ in train], [(smaller(a), smaller(b)) for a, b in val], note)


def parity(reference: Runner, exported: Runner) -> list[dict[str, Any]]:
    """Largest difference, in the contract's range of [-1, 1], at two sizes; two pictures where the size is fixed."""
    fixed = exported.signature.size
    rows = []
    for seed, size in enumerate((fixed, fixed) if fixed else SIZES):
        # Both see what the file can take: bytes and half floats round the picture first.
        x = exported.signature.signed(exported.signature.native(synthetic(size, seed)))
        want, got = reference(x), exported(x)
        finite = bool(np.isfinite(got).all()) and got.shape == want.shape
        rows.append(
            {
                "height": size[0],
                "width": size[1],
                "max_abs": float(np.abs(want - got).max()) if finite else float("inf"),
                "psnr_db": min(psnr(to_image(want), to_image(got)), PSNR_CAP) if finite else 0.0,
            }
        )
    return rows


def psnr_change(reference: Runner, exported: Runner, frames: RealFrames) -> dict[str, Any]:
    """PSNR on real pairs through both, and between both; ``loss_db`` is what the export costs."""
    rows = []
    for blur, sharp in frames.pairs:
        x = to_input(blur)
        want, got = to_image(reference(x)), to_image(exported(x))
        rows.append(
            [min(psnr(a, b), PSNR_CAP) for a, b in ((want, sharp), (got, sharp), (got, want), (blur, sharp))]
        )
    reference_db, exported_db, between, blurred = (
        statistics.fmean(column) for column in zip(*rows, strict=True)
    )
    return {
        "frames": len(rows),
        "blurred_db": blurred,
        "fp32_db": reference_db,
        "exported_db": exported_db,
        "loss_db": reference_db - exported_db,
        "against_fp32_db": between,
        "worst_against_fp32_db": min(row[2] for row in rows),
        "note": frames.note,
    }
