"""Textures that move by known motions, as light or as frames, and their exposures by fine sums."""

from __future__ import annotations

import numpy as np

from blursynth.camera.response import load_response


def texture(seed: int, h: int = 96, w: int = 128, sigma: float = 1.5) -> np.ndarray:
    """Band-limited linear light in 0.05..0.95, float32 (H, W, 3)."""
    t = np.random.default_rng(seed).random((h, w, 3)).astype(np.float32)
    radius2 = np.fft.fftfreq(h)[:, None] ** 2 + np.fft.fftfreq(w)[None] ** 2
    low = np.exp(-2 * (np.pi * sigma) ** 2 * radius2)[..., None]  # periodic Gaussian blur
    t = np.real(np.fft.ifft2(np.fft.fft2(t, axes=(0, 1)) * low, axes=(0, 1))).astype(np.float32)
    return 0.05 + 0.9 * (t - t.min()) / (t.max() - t.min())


def shifted(light: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """Exact periodic translation by (dx, dy) px: content at x moves to x + d."""
    h, w = light.shape[:2]
    phase = np.exp(-2j * np.pi * (np.fft.fftfreq(h)[:, None] * dy + np.fft.fftfreq(w)[None] * dx))
    return np.real(np.fft.ifft2(np.fft.fft2(light, axes=(0, 1)) * phase[..., None], axes=(0, 1))).astype(
        np.float32
    )


def pad4(light: np.ndarray) -> np.ndarray:
    return np.dstack([light, np.ones(light.shape[:2], np.float32)])


def constant_flow(h: int, w: int, dx: float, dy: float) -> tuple[np.ndarray, np.ndarray]:
    f = np.empty((h, w, 2), np.float32)
    f[:] = (dx, dy)
    return f, -f


def box_exposure(
    light: np.ndarray, dx: float, dy: float, t0: float, t1: float, weight=lambda s: 1.0, n: int = 400
):
    """Reference: fine Riemann sum of exact translations over [t0, t1]."""
    s = (np.arange(n) + 0.5) / n
    w = np.array([weight(v) for v in s])
    return (
        sum(wi * shifted(light, dx * t, dy * t) for wi, t in zip(w, t0 + s * (t1 - t0), strict=True))
        / w.sum()
    )


def moving_disc(
    speed: tuple[float, float], count: int = 3, *, size: tuple[int, int] = (120, 160),
    centre: tuple[int, int] = (60, 60), radius: int = 30, ground: tuple[float, float] = (-0.3, 0.2),
) -> list[np.ndarray]:  # fmt: skip
    """Frames of a textured disc that crosses a texture moving another way, RGB uint8.

    speed: of the disc, px a frame along x and y; size: (H, W) px; centre: (x, y) of the disc in the first frame, px;
    ground: px along x and y by which the texture moves for each px of the disc along x.
    """
    h, w = size
    srgb, back, front = load_response("srgb"), texture(3, h, w), texture(4, h, w)
    y, x = np.mgrid[:h, :w]
    frames = []
    for i in range(count):
        dx, dy = speed[0] * i, speed[1] * i
        inside = ((x - centre[0] - dx) ** 2 + (y - centre[1] - dy) ** 2 < radius**2)[..., None]
        behind = shifted(back, ground[0] * dx, ground[1] * dx)
        frames.append(srgb.encode(np.where(inside, shifted(front, dx, dy), behind)))
    return frames
