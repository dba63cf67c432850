"""Image metrics on whole frames: ``(H, W, 3)`` uint8 or uint16 RGB, full size, no crop and no colour conversion unless said."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from blursynth.common.extras import install_extra
from blursynth.shards.picture import to_8_bits

SSIM_RADIUS = 5  # px, of its window


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, peak that of the type, over all channels; infinite for equal images."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(_peak(a) ** 2 / error))


LUMA = (65.481, 128.553, 24.966)  # of R, G, B in 0..1: ITU-R BT.601 in 16..235, as MATLAB's rgb2ycbcr has it


def luma(image: np.ndarray) -> np.ndarray:
    """Y of BT.601, ``(H, W)`` float64 in 16..235 and not rounded, as BasicSR's ``rgb2ycbcr(y_only=True)`` of floats."""
    return image.astype(np.float64) / _peak(image) @ np.array(LUMA) + 16


def psnr_y(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB of ``luma`` alone, peak 255, as BasicSR's ``test_y_channel`` without a cropped border."""
    error = float(np.mean((luma(a) - luma(b)) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def _peak(image: np.ndarray) -> float:
    return 65535.0 if image.dtype == np.uint16 else 255.0


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian window 11 x 11 of sigma 1.5, mean over pixels and channels.

    Equals skimage's with ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False`` and the type's range. Images
    smaller than the window are reflected up to it.
    """
    score = ssim_map(a.astype(np.float64), b.astype(np.float64), _peak(a))
    if min(score.shape[:2]) > 2 * SSIM_RADIUS:
        score = score[SSIM_RADIUS:-SSIM_RADIUS, SSIM_RADIUS:-SSIM_RADIUS]
    return float(score.mean())


def ssim_map(x: np.ndarray, y: np.ndarray, peak: float) -> np.ndarray:
    """SSIM at each pixel and channel of two float64 images in 0..``peak``; same shape."""
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2

    def mean(z: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(z, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT)

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    return ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))


def edge_retention(restored: np.ndarray, sharp: np.ndarray) -> float:
    """Intersection over union of the Canny (100, 200) edge maps, 0..1; 1 when neither image has an edge."""
    grey = [cv2.cvtColor(to_8_bits(x), cv2.COLOR_RGB2GRAY) for x in (restored, sharp)]
    edges = [cv2.Canny(x, 100, 200) > 0 for x in grey]
    union = int(np.count_nonzero(edges[0] | edges[1]))
    return 1.0 if union == 0 else int(np.count_nonzero(edges[0] & edges[1])) / union


def lpips_metric(device: str = "cpu") -> Callable[[np.ndarray, np.ndarray], float]:
    """LPIPS (AlexNet) from the ``lpips`` extra. Raises ImportError with the command that installs it."""
    try:
        import lpips
    except ImportError:
        raise ImportError(f"LPIPS needs the package lpips: {install_extra('lpips')}") from None
    import torch

    net = lpips.LPIPS(net="alex", verbose=False).to(device).eval()

    def measure(a: np.ndarray, b: np.ndarray) -> float:
        x, y = (
            torch.from_numpy(z.astype(np.float32) / (_peak(z) / 2) - 1).permute(2, 0, 1)[None].to(device)
            for z in (a, b)
        )
        with torch.no_grad():
            return float(net(x, y))

    return measure
