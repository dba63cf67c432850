"""Light above white: what a clipped source pixel had, and a blurred streak shows.

A source pixel at code 255 has lost its energy, so its streak comes out grey where a camera's is white. RSBlur (Rim et
al. 2022) adds alpha * M to the blur, M the mean over sub-frames of [pixel is clipped]. The exposure is linear in
the frames, so raising the light of code 255 by alpha before integration is the same thing, through the same
interpolation, at no cost.
"""

from __future__ import annotations

RSBLUR_ALPHA = (0.25, 1.75)
"""RSBlur's range of alpha, in units of white."""


def parse_highlights(text: str) -> tuple[float, float] | None:
    """'off' -> None; 'rsblur' -> (0.25, 1.75); 'A' -> (A, A); 'LO-HI' -> (LO, HI). Raises ValueError."""
    if text == "off":
        return None
    if text == "rsblur":
        return RSBLUR_ALPHA
    try:
        parts = [float(p) for p in text.split("-")]
    except ValueError:
        parts = []
    if len(parts) not in (1, 2) or not 0 <= parts[0] <= parts[-1] <= 100:
        raise ValueError(f"{text!r} is not off, rsblur, A or LO-HI (light above white, 0 to 100)")
    return parts[0], parts[-1]


def draw_highlight(text: str, u: float) -> float:
    """alpha of one sample from a uniform draw u in [0, 1); 0 when off."""
    span = parse_highlights(text)
    return 0.0 if span is None else span[0] + u * (span[1] - span[0])
