"""Image metrics on whole frames: ``(H, W, 3)`` uint8 RGB, full size, no crop and no colour conversion unless said."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, peak 255, over all channels; infinite for equal images."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255.0**2 / error))


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian window 11 x 11 of sigma 1.5, mean over pixels and channels.

    Equals skimage's with ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255``. Images
    smaller than the window are reflected up to it.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

    def mean(z: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(z, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT)

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    score = ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    h, w = score.shape[:2]
    if h > 10 and w > 10:
        score = score[5:-5, 5:-5]
    return float(score.mean())


def edge_retention(restored: np.ndarray, sharp: np.ndarray) -> float:
    """Intersection over union of the Canny (100, 200) edge maps, 0..1; 1 when neither image has an edge."""
    edges = [cv2.Canny(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY), 100, 200) > 0 for x in (restored, sharp)]
    union = int(np.count_nonzero(edges[0] | edges[1]))
    return 1.0 if union == 0 else int(np.count_nonzero(edges[0] & edges[1])) / union


def lpips_metric(device: str = "cpu") -> Callable[[np.ndarray, np.ndarray], float]:
    """LPIPS (AlexNet) from the ``lpips`` extra. Raises ImportError with the command that installs it."""
    try:
        import lpips
    except ImportError:
        raise ImportError("LPIPS needs an extra: pip install 'blursynth[lpips]'") from None
    import torch

    net = lpips.LPIPS(net="alex", verbose=False).to(device).eval()

    def measure(a: np.ndarray, b: np.ndarray) -> float:
        x, y = (
            torch.from_numpy(z.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None].to(device)
            for z in (a, b)
        )
        with torch.no_grad():
            return float(net(x, y))

    return measure
