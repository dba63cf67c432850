"""Augmentation of a crop: the only module that knows albumentations."""

from __future__ import annotations

import os
import random
import re
from typing import Any

import cv2
import numpy as np

from deblur_train.config import AugmentKind, NoiseKind

# (b1, b2) of noise b1 * Poisson(x / b1) + N(0, b2) in linear light, each times U(0.5, 1.5) (RSBlur, Rim et al. 2022).
# b2 is a standard deviation as printed there for values in 0..1.
NOISE_LEVELS: dict[str, tuple[float, float]] = {"rsblur": (1e-4, 9.15e-4), "realblur": (8.89e-5, 2.94e-5)}


class Augment:
    """Augments pairs of ``(H, W, 3)`` uint8 RGB crops; every draw comes from the generator it is given.

    ``article``: horizontal flip, brightness/contrast, shift-scale-rotate, the same for both images, and coarse dropout
    on the input only. ``dihedral``: the eight lossless flips and quarter turns. Normalisation by 0.5 happens on the
    device (:func:`deblur_train.inference.tensors.to_device`), where it costs a quarter of the bytes to carry.
    """

    def __init__(self, kind: AugmentKind) -> None:
        self.kind = kind
        if kind == "article":
            self.geometry, self.dropout = _article()

    def __call__(
        self, blur: np.ndarray, sharp: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.kind == "dihedral":
            flip, turns = bool(rng.integers(2)), int(rng.integers(4))
            square = blur.shape[0] == blur.shape[1]
            turns = turns if square else 2 * (turns % 2)
            pair = [np.rot90(x[:, ::-1] if flip else x, turns) for x in (blur, sharp)]
            return pair[0], pair[1]
        if self.kind == "article":
            # Not set_random_seed: that gives every transform the same draws, so that all act or none does.
            state = random.Random(int(rng.integers(2**31)))
            self.geometry.set_random_state(rng, state)
            self.dropout.set_random_state(rng, state)
            both = self.geometry(image=np.ascontiguousarray(blur), sharp=np.ascontiguousarray(sharp))
            return self.dropout(image=both["image"])["image"], both["sharp"]
        return blur, sharp


def _article() -> tuple[Any, Any]:
    # albumentations looks for a newer version over the network at import; 2.0.8 is the last under the MIT licence.
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations as A

    geometry = A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2, p=0.5),
            A.Affine(
                translate_percent=0.0625,
                scale=(0.9, 1.1),
                rotate=(-15, 15),
                border_mode=cv2.BORDER_REFLECT_101,
                p=0.5,
            ),
        ],
        additional_targets={"sharp": "image"},
    )
    dropout = A.Compose(
        [A.CoarseDropout(num_holes_range=(1, 8), hole_height_range=(8, 32), hole_width_range=(8, 32), p=0.3)]
    )
    return geometry, dropout


def redraw_noise(linear: np.ndarray, kind: NoiseKind, crf: str, rng: np.random.Generator) -> np.ndarray:
    """Fresh camera noise on a noise-free linear blur: ``(H, W, 3)`` uint16 linear RGB to uint8 display-encoded RGB."""
    x = linear.astype(np.float32) / 65535.0
    b1, b2 = (b * rng.uniform(0.5, 1.5) for b in NOISE_LEVELS[kind])
    # A Poisson count at these levels is above a thousand for all but black pixels: its normal limit is exact enough.
    x = x + np.sqrt(np.maximum(x, 0) * b1 + b2 * b2) * rng.standard_normal(x.shape, dtype=np.float32)
    return np.round(encode(np.clip(x, 0, 1), crf) * 255).astype(np.uint8)


def encode(linear: np.ndarray, crf: str) -> np.ndarray:
    """Linear light 0..1 to display-encoded 0..1 by ``srgb`` (IEC 61966-2-1), ``gamma2.2`` (any number) or ``display`` (no curve)."""
    if crf in (
        "srgb",
        "pq",
        "hlg",
        "linear",
    ):  # the last three say where the light came from; the codes are sRGB
        return np.where(
            linear <= 0.0031308, 12.92 * linear, 1.055 * np.power(np.maximum(linear, 1e-8), 1 / 2.4) - 0.055
        )
    if re.fullmatch(r"gamma\d+(\.\d+)?", crf):
        return np.power(linear, 1 / float(crf.removeprefix("gamma")))
    if crf == "display":
        return linear
    raise ValueError(
        f"noise cannot be redrawn for the response curve {crf!r}; known: srgb, gamma2.2, display"
    )
