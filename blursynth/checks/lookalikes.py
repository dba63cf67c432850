"""Clips of two splits that show the same pictures, found by a perceptual hash of a few frames."""

from __future__ import annotations

from collections import defaultdict

import cv2
import numpy as np

NEAR_BITS = 20  # of 256: re-encoding or scaling a frame moves about 10, another scene about 110
FLAT = 6.0  # code values of spread below which a picture has nothing to recognise it by


def picture_hash(rgb: np.ndarray) -> np.ndarray | None:
    """(32,) uint8: 256 bits, whether the luma grows to the right, over 16 x 16 places; None for a flat picture."""
    grey = (
        cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        if rgb.dtype == np.uint8
        else (rgb.mean(2) / 257).astype(np.uint8)
    )
    small = cv2.resize(grey, (17, 16), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.std() < FLAT:
        return None
    return np.packbits(small[:, 1:] > small[:, :-1])


def near_duplicates(
    hashes: dict[str, dict[str, list[np.ndarray]]], sources: dict[str, dict[str, str]]
) -> list[str]:
    """Clips of two splits that show the same pictures: re-encoded, scaled or trimmed copies."""
    train = [(sha, h) for sha, hs in hashes.get("train", {}).items() for h in hs]
    val = [(sha, h) for sha, hs in hashes.get("val", {}).items() for h in hs]
    if not train or not val:
        return []
    train_bits = np.stack([h for _, h in train])
    close: dict[tuple[str, str], int] = defaultdict(int)
    for sha, h in val:
        distance = np.bitwise_count(train_bits ^ h).sum(1)
        for i in np.flatnonzero(distance <= NEAR_BITS):
            if train[i][0] != sha:  # equal bytes are told as a leak
                close[train[i][0], sha] += 1
    return [
        f"near-duplicate: {sources['train'][t]} in train and {sources['val'][v]} in val share {n} pictures"
        for (t, v), n in sorted(close.items())
    ]
