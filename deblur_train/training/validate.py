"""Validation during training: a few whole frames, always beside the blurred input."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from deblur_train.config import RunConfig
from deblur_train.data.index import ShardIndex
from deblur_train.data.pictures import DecodeError, ShardReader, inside_border, spread_over
from deblur_train.evaluation.metrics import psnr, ssim
from deblur_train.evaluation.plot import contact_sheet
from deblur_train.inference.tiles import restore
from deblur_train.models.generator import build_generator
from deblur_train.models.nafnet import NAFNetShape
from deblur_train.models.norm import set_norm_stats
from deblur_train.training.step import Learner

STRIP = 480, 360  # px, width and height at most of a picture in a strip


class Shown(NamedTuple):
    """A frame before and after, and as it should be; all ``(H, W, 3)`` uint8 RGB of one size."""

    blurred: np.ndarray
    restored: np.ndarray
    sharp: np.ndarray


def strips(shown: list[Shown]) -> np.ndarray:
    """A row a frame, blurred | restored | sharp: the frame's middle, pixel for pixel, for a smaller picture hides blur."""
    width = min(STRIP[0], max(s.sharp.shape[1] for s in shown))
    height = min(STRIP[1], max(s.sharp.shape[0] for s in shown))
    rows = []
    for s in shown:
        caption = f"PSNR {psnr(s.blurred, s.sharp):.2f} -> {psnr(s.restored, s.sharp):.2f} dB"
        rows.append((caption, [_middle(p, width, height) for p in s]))
    return contact_sheet(rows, ["blurred", "restored", "sharp"], width)


def _middle(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """The middle of a picture at exactly this size; beyond a smaller picture it is black."""
    h, w = image.shape[:2]
    top, left = max(0, h - height) // 2, max(0, w - width) // 2
    cut = image[top : top + height, left : left + width]
    return cv2.copyMakeBorder(
        cut, 0, height - cut.shape[0], 0, width - cut.shape[1], cv2.BORDER_CONSTANT, value=(0, 0, 0)
    )


def read_validation_frames(
    index: ShardIndex, wanted: int, say: Callable[[str], None]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(blur, sharp) of up to ``wanted`` samples spread evenly over the validation shards, clear of light from outside
    the frame."""
    reader, frames = ShardReader(index.paths), []
    for sample in spread_over(index, wanted):
        try:
            blur, sharp = reader.pair(sample)
            frames.append((inside_border(blur, sample.border), inside_border(sharp, sample.border)))
        except DecodeError as e:
            say(f"warning: {index.paths[sample.shard].name}:{sample.key}: {e}; not validated on")
    reader.close()
    return frames


def measure_of(frames: list[tuple[np.ndarray, np.ndarray]], run: RunConfig, crop: int) -> str:
    """A name for what ``validate`` measures: equal ones may be compared. Empty without frames."""
    if not frames:
        return ""
    digest = hashlib.sha256(f"{run.val_norm_stats} {crop if run.val_norm_stats == 'local' else ''}".encode())
    for picture in (p for pair in frames for p in pair):
        digest.update(str(picture.shape).encode() + np.ascontiguousarray(picture).data)
    return digest.hexdigest()


def validate(
    learner: Learner, frames: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[dict[str, float], list[Shown]]:
    """Mean PSNR (dB) and SSIM of whole frames with the weights to use, beside the blurred input's; and the
    first 4 pictures."""
    generator = build_generator(learner.config.backbone, NAFNetShape(**learner.config.model.shape))
    generator.load_state_dict(learner.weights())
    set_norm_stats(generator, learner.config.run.val_norm_stats, round(1.5 * learner.config.crop))
    generator.to(learner.device).eval()
    rows: list[tuple[float, float, float, float]] = []
    shown: list[Shown] = []
    for blur, sharp in frames:
        y = restore(generator, blur)
        rows.append((psnr(y, sharp), ssim(y, sharp), psnr(blur, sharp), ssim(blur, sharp)))
        if len(shown) < 4:
            shown.append(Shown(blur, y, sharp))
    # Equal images have infinite PSNR; 100 dB stands for that in a mean.
    means = np.minimum(np.array(rows), 100.0).mean(0)
    names = ("val_psnr", "val_ssim", "val_psnr_blurred", "val_ssim_blurred")
    return {k: round(float(v), 5) for k, v in zip(names, means, strict=True)}, shown
