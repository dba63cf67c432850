"""Optical flow as colours (the Middlebury wheel), and the tiny quantised flow a sample carries along.

The wheel: hue is direction (right red, down yellow, left cyan, up blue-violet, in image axes, y down),
saturation is speed, white is rest. Baker et al., "A Database and Evaluation Methodology for Optical Flow", IJCV 2011.
"""

from __future__ import annotations

import base64
import binascii
from functools import cache
from typing import Any

import cv2
import numpy as np

THUMB_PX = 32  # long side of a flow thumbnail: about 1 KB in a sample's JSON, enough to see what moves where
_MAX_THUMB_BYTES = 64 * 1024  # decoding is bounded: the JSON may come from anywhere
_MAX_THUMB_SIDE = 1024


@cache
def _wheel() -> np.ndarray:
    """(55, 3) float32 RGB, 0..1: the colours around the wheel, starting at right = red."""
    # Segment lengths and the colour each one starts from; the uneven lengths even out perceived hue steps.
    segments = [(15, 0, 1, +1), (6, 1, 0, -1), (4, 1, 2, +1), (11, 2, 1, -1), (13, 2, 0, +1), (6, 0, 2, -1)]
    rows = []
    for length, full, moving, direction in segments:
        ramp = np.floor(255 * np.arange(length) / length)
        part = np.zeros((length, 3))
        if direction > 0:
            part[:, full], part[:, moving] = 255, ramp
        else:  # the other channel stays full while this segment's colour fades
            part[:, full], part[:, moving] = 255, 255 - ramp
        rows.append(part)
    return (np.concatenate(rows) / 255).astype(np.float32)


def flow_colours(flow: np.ndarray, full_px: float) -> np.ndarray:
    """Colours of a flow field.

    Args:
        flow: (H, W, 2) float, (dx, dy) in pixels, y down.
        full_px: speed in the same unit at which a colour is fully saturated; faster vectors are drawn darker.
    Returns:
        (H, W, 3) uint8 RGB. Unknown vectors (not finite) are black.
    Raises:
        ValueError: when ``flow`` is not (H, W, 2) or ``full_px`` is not positive.
    """
    if flow.ndim != 3 or flow.shape[2] != 2:
        raise ValueError(f"flow must be (H, W, 2), got {flow.shape}")
    if not full_px > 0:
        raise ValueError(f"full_px must be positive, got {full_px}")
    known = np.isfinite(flow).all(axis=2)
    v = np.where(known[..., None], flow, 0).astype(np.float32) / np.float32(full_px) + np.float32(
        0
    )  # + 0: no -0.0
    radius = np.hypot(v[..., 0], v[..., 1])
    wheel = _wheel()
    # atan2 of the negated vector puts "right" at -pi, the wheel's first entry.
    position = (np.arctan2(-v[..., 1], -v[..., 0]) / np.pi + 1) / 2 * (len(wheel) - 1)
    k = np.floor(position).astype(np.int32)
    f = (position - k)[..., None]
    hue = (1 - f) * wheel[k % len(wheel)] + f * wheel[(k + 1) % len(wheel)]
    r = radius[..., None]
    rgb = np.where(r <= 1, 1 - r * (1 - hue), hue * 0.75)
    rgb[~known] = 0
    return np.floor(255 * rgb).astype(np.uint8)


def flow_rim(flow: np.ndarray) -> float:
    """The speed drawn fully saturated, in the flow's unit: the 99.8th percentile, but at least 1 so that rest stays pale."""
    speed = np.hypot(flow[..., 0], flow[..., 1])
    speed = speed[np.isfinite(speed)]
    return max(1.0, float(np.percentile(speed, 99.8))) if speed.size else 1.0


def flow_panel(flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Flow colours at ``size`` (width, height): the vectors are interpolated, not the colours. (H, W, 3) uint8 RGB."""
    # Cubic could overshoot a motion edge into a speed that nothing has.
    how = cv2.INTER_AREA if flow.shape[1] > size[0] else cv2.INTER_LINEAR
    resized = cv2.resize(flow, size, interpolation=how).reshape(*size[::-1], 2)
    return flow_colours(resized, flow_rim(flow))


def panel_size(flow: np.ndarray, w: int, h: int) -> tuple[int, int]:
    """(width, height) to draw a flow at inside w x h: its own proportions where they differ, as with a tile's whole frame."""
    aspect = flow.shape[1] / flow.shape[0]
    if (
        abs(aspect * h / w - 1) < 0.15 or min(flow.shape[:2]) < 4
    ):  # a thumbnail's rounding is no other picture
        return w, h
    scale = min(w / flow.shape[1], h / flow.shape[0])
    return max(1, round(flow.shape[1] * scale)), max(1, round(flow.shape[0] * scale))


def wheel_legend(size: int = 160, rim: float = 0.98) -> np.ndarray:
    """The legend: a disc coloured by the vector from its centre.

    Returns (size, size, 4) uint8 RGBA, transparent outside the disc, antialiased at its edge.
    """
    half = (size - 1) / 2
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    vectors = np.stack([x - half, y - half], axis=2) / (half * rim)
    radius = np.hypot(vectors[..., 0], vectors[..., 1])
    inside = vectors / np.maximum(radius, 1)[..., None]
    alpha = np.clip((1 - radius) * half * rim + 0.5, 0, 1)
    return np.dstack([flow_colours(inside * 0.999, 1.0), (alpha * 255).astype(np.uint8)])


def encode_flow_thumb(flow: np.ndarray) -> dict[str, Any]:
    """A flow field as two JSON keys, for the ``flow`` group of a sample.

    Args:
        flow: (H, W, 2) float32, (dx, dy) in px/frame of the full-size picture (not of the thumbnail).
    Returns:
        ``{"thumb": base64 of an 8-bit PNG, "thumb_scale": px per level}``. The PNG is (h, w, 3) uint8 with at most
        32 px on the long side; its channels, in RGB order, are round(127.5 + dx / scale), round(127.5 + dy / scale), 0.
        ``decode_flow_thumb`` gives the area-averaged flow back to within half a level. Vectors that are not finite count as 0.
    Raises:
        ValueError: when ``flow`` is not (H, W, 2) or is empty.
    """
    if flow.ndim != 3 or flow.shape[2] != 2 or flow.size == 0:
        raise ValueError(f"flow must be (H, W, 2) and not empty, got {flow.shape}")
    h, w = flow.shape[:2]
    shrink = min(1.0, THUMB_PX / max(h, w))
    size = (max(1, round(w * shrink)), max(1, round(h * shrink)))
    clean = np.nan_to_num(np.asarray(flow, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    small = (
        cv2.resize(clean, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], 2).astype(np.float64)
    )
    # Four significant digits keep the JSON short; the 1.001 keeps the peak inside 0..255 after that rounding.
    scale = float(f"{max(float(np.abs(small).max()) / 127.0 * 1.001, 1e-4):.4g}")
    levels = np.clip(np.rint(127.5 + small / scale), 0, 255).astype(np.uint8)
    rgb = np.dstack([levels, np.zeros(levels.shape[:2], np.uint8)])
    ok, png = cv2.imencode(".png", np.ascontiguousarray(rgb[..., ::-1]))
    if not ok:  # pragma: no cover - OpenCV always has its PNG encoder
        raise ValueError("OpenCV could not encode the flow thumbnail as PNG")
    return {"thumb": base64.b64encode(png.tobytes()).decode("ascii"), "thumb_scale": scale}


def decode_flow_thumb(group: dict[str, Any]) -> np.ndarray | None:
    """The flow thumbnail of a sample's ``flow`` group.

    Returns (h, w, 2) float32, (dx, dy) in px/frame of the full-size picture; None where there is no usable thumbnail
    (absent, damaged, or larger than a thumbnail has any reason to be). Never raises for bad data.
    """
    text, scale = group.get("thumb"), group.get("thumb_scale")
    if not isinstance(text, str) or len(text) > _MAX_THUMB_BYTES or isinstance(scale, bool):
        return None
    if not isinstance(scale, int | float) or not 0 < scale < 1e4:
        return None
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    # The header's size is looked at before anything is decoded: a small PNG may claim a huge picture.
    if raw[:8] != b"\x89PNG\r\n\x1a\n" or len(raw) < 33:
        return None
    w, h = int.from_bytes(raw[16:20], "big"), int.from_bytes(raw[20:24], "big")
    if not (0 < w <= _MAX_THUMB_SIDE and 0 < h <= _MAX_THUMB_SIDE):
        return None
    try:
        bgr = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    if bgr is None:
        return None
    return ((bgr[..., :0:-1].astype(np.float32) - 127.5) * np.float32(scale)).astype(np.float32)
