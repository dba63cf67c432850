"""Camera noise on the integrated light."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .camera import CameraError, Response


def parse_noise(text: str) -> str:
    """Raises CameraError."""
    if text != "off":
        raise CameraError(f"noise {text!r} is not off")
    return text


def add_noise(
    linear: np.ndarray,
    response: Response,
    noise: str,
    frames: Sequence[np.ndarray],
    rng: np.random.Generator,
    effective_frames: float,
) -> tuple[np.ndarray, dict[str, Any] | None]:
    """Encode linear light (H, W, 3), with the camera's noise, to uint8 codes; also what was drawn, for the JSON."""
    return response.encode(linear), None
