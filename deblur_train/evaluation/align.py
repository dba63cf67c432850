"""RealBlur's protocol for pairs that are not quite registered: ECC alignment, then PSNR and SSIM where both are seen."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from deblur_train.evaluation.metrics import SSIM_RADIUS, ssim_map
from deblur_train.media.pictures import ImageError

ITERATIONS = 100  # of ECC, with no other stop, as RealBlur's evaluation has it
SMOOTHING = 5  # px, the Gaussian that ECC sees pictures through; OpenCV's default, which RealBlur leaves


class Aligned(NamedTuple):
    """All ``(H, W, 3)`` float64 in 0..1; ``seen`` is 1 where the picture covers the sharp one, else 0."""

    picture: np.ndarray
    sharp: np.ndarray
    seen: np.ndarray
    homography: np.ndarray  # (3, 3): a place in the sharp picture to the same place in the picture


def align(picture: np.ndarray, sharp: np.ndarray) -> Aligned:
    """Scale the light of ``picture`` to that of ``sharp``, then warp it onto it. Both ``(H, W, 3)`` RGB, uint8 or uint16.

    Rim et al. 2020, "Real-World Blur Dataset for Learning and Benchmarking Deblurring Algorithms": z is scaled by
    sum(x z) / sum(z z), a homography is fitted by 100 iterations of ECC on grey pictures. Raises ImageError when
    ECC finds none.
    """
    x, z = (p.astype(np.float64) / np.iinfo(p.dtype).max for p in (sharp, picture))
    energy = float((z * z).sum())
    z = z * (float((x * z).sum()) / energy) if energy else z
    grey = [cv2.cvtColor(p.astype(np.float32), cv2.COLOR_RGB2GRAY) for p in (x, z)]
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ITERATIONS, 0)
    start, everywhere = np.eye(3, dtype=np.float32), np.full(x.shape[:2], 255, np.uint8)
    try:
        _, found = cv2.findTransformECC(
            grey[0], grey[1], start, cv2.MOTION_HOMOGRAPHY, stop, everywhere, SMOOTHING
        )
    except cv2.error:
        raise ImageError("cannot be aligned: ECC finds no homography") from None
    size = (x.shape[1], x.shape[0])
    inverse = cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(
        z, found, size, flags=cv2.INTER_LINEAR | inverse, borderMode=cv2.BORDER_REFLECT
    )
    seen = cv2.warpPerspective(np.ones_like(x), found, size, flags=cv2.INTER_NEAREST | inverse)
    return Aligned(warped * seen, x * seen, seen, found)


def aligned_psnr(a: Aligned) -> float:
    """dB over the pixels that are seen."""
    count = float(a.seen.sum())
    error = float(((a.sharp - a.picture) ** 2).sum()) / count if count else 0.0
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def aligned_ssim(a: Aligned) -> float:
    """Mean of the SSIM map over the pixels that are seen; the window's radius at the border left out."""
    r = SSIM_RADIUS
    inner = (slice(r, -r), slice(r, -r)) if min(a.seen.shape[:2]) > 2 * r else (slice(None), slice(None))
    seen = a.seen[inner]
    return float((ssim_map(a.sharp, a.picture, 1.0) * a.seen)[inner].sum() / max(float(seen.sum()), 1.0))
