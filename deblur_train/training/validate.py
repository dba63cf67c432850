"""Validation during training: a few whole frames, always beside the blurred input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deblur_train.data.index import Sample, ShardIndex
from deblur_train.data.pictures import DecodeError, ShardReader
from deblur_train.evaluation.metrics import psnr, ssim
from deblur_train.inference.tiles import restore
from deblur_train.models.generator import build_generator
from deblur_train.models.nafnet import NAFNetShape
from deblur_train.models.norm import set_norm_stats
from deblur_train.training.step import Learner


def read_validation_frames(
    index: ShardIndex, wanted: int, say: Callable[[str], None]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(blur, sharp) of up to ``wanted`` samples spread evenly over the validation shards."""
    if not index.samples or wanted == 0:
        return []
    spread = np.unique(
        np.linspace(0, len(index.samples) - 1, min(wanted, len(index.samples))).round().astype(int)
    )
    reader, frames = ShardReader(index.paths), []
    for i in spread:
        sample: Sample = index.samples[int(i)]
        try:
            frames.append(reader.pair(sample))
        except DecodeError as e:
            say(f"warning: {index.paths[sample.shard].name}:{sample.key}: {e}; not validated on")
    reader.close()
    return frames


def validate(
    learner: Learner, frames: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[dict[str, float], list[np.ndarray]]:
    """Mean PSNR (dB) and SSIM of whole frames with the weights to use, beside the blurred input's; and some pictures."""
    generator = build_generator(learner.config.backbone, NAFNetShape(**learner.config.model.shape))
    generator.load_state_dict(learner.weights())
    set_norm_stats(generator, learner.config.run.val_norm_stats, round(1.5 * learner.config.crop))
    generator.to(learner.device).eval()
    rows: list[tuple[float, float, float, float]] = []
    pictures: list[np.ndarray] = []
    for blur, sharp in frames:
        y = restore(generator, blur)
        rows.append((psnr(y, sharp), ssim(y, sharp), psnr(blur, sharp), ssim(blur, sharp)))
        if len(pictures) < 4:
            pictures.append(np.concatenate([blur, y, sharp], axis=1))
    # Equal images have infinite PSNR; 100 dB stands for that in a mean.
    means = np.minimum(np.array(rows), 100.0).mean(0)
    names = ("val_psnr", "val_ssim", "val_psnr_blurred", "val_ssim_blurred")
    return {k: round(float(v), 5) for k, v in zip(names, means, strict=True)}, pictures
