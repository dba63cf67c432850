"""Augmentation of a crop, and its noise drawn anew: the only module that knows albumentations."""

from __future__ import annotations

import os
import random
from functools import cache
from typing import Any

import cv2
import numpy as np

from blursynth.camera.noise import add_noise, parse_noise
from blursynth.camera.response import CameraError, Response, jpeg, load_response
from deblur_train.config import AugmentKind
from deblur_train.data.index import DataError

MCU = 16
"""Side of the squares that a 4:2:0 JPEG is made of."""


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


def redraw_noise(
    linear: np.ndarray,
    window: tuple[slice, slice],
    kind: str,
    crf: str,
    quality: int | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """A crop of a blur with fresh camera noise, as `make` puts it in: uint8 RGB by the response curve ``crf``.

    linear: the noise-free linear blur, ``(H, W, 3)`` uint16. window: the crop's rows and columns. quality: of the
    camera's JPEG, which keeps its place on the picture's grid. Raises DataError for a curve that cannot be had here.
    """
    rows, columns = window
    y, x = (rows.start % MCU, columns.start % MCU) if quality is not None else (0, 0)
    around = linear[rows.start - y : rows.stop, columns.start - x : columns.stop]
    light = around.astype(np.float32) / np.float32(65535)
    blur, _ = add_noise(light, _response(crf), parse_noise(kind), (), rng, 1.0)
    if quality is not None:
        blur = jpeg(blur, quality)
    return blur[y:, x:]


@cache
def _response(crf: str) -> Response:
    try:
        return load_response(crf)
    except CameraError as e:
        raise DataError(
            f"noise cannot be drawn anew: {e}; the shards were made with this response curve: train where it is, or "
            "set data.noise to off"
        ) from None
