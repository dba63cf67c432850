"""Camera response: linear light to 8-bit codes and back.

A response is known by the linear light of each code, per channel (RGB), normalised so that code 255 is 1.0.
Encoding rounds in the display domain, which is the same as comparing light with the light of code + 1/2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from blursynth.common.compiled import compiled
from blursynth.common.errors import UsageError

SLOTS = 4096
"""Entries of the table that starts the search for a code."""


HDR = frozenset({"pq", "hlg", "linear"})
"""Curves of film that holds more than SDR: its codes are sRGB once it is read (`hdr.split_at_white`)."""


class CameraError(UsageError, ValueError):
    """A response curve or camera setting that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Response:
    """name; light: float32 (256, 3), linear light of each code, RGB; edges: float32 (255, 3), light at code + 1/2."""

    name: str
    light: np.ndarray
    edges: np.ndarray

    def decode(self, rgb: np.ndarray, highlight: float | np.ndarray = 0.0) -> np.ndarray:
        """uint8 (H, W, 3) codes -> float32 (H, W, 4) linear light, the fourth channel one (the exposure's weight).

        highlight: light above white, in units of white, that clipped samples had: one number for all at code 255, or
        float32 (H, W, 3) to add (`highlights.Highlights.excess` gives either).
        """
        table = self.table(0.0 if isinstance(highlight, np.ndarray) else highlight)
        light = cv2.LUT(cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA), table[None])
        if isinstance(highlight, np.ndarray):
            light[..., :3] += highlight
        return light

    def table(self, highlight: float = 0.0) -> np.ndarray:
        """float32 (256, 4): light of each code, RGB and a one, with `highlight` added to that of code 255."""
        table = np.ones((256, 4), np.float32)
        table[:, :3] = self.light
        table[255, :3] += np.float32(highlight)
        return table

    def encode(self, linear: np.ndarray) -> np.ndarray:
        """float (H, W, 3) linear light -> uint8 (H, W, 3) codes; light outside 0..1 is clipped, NaN is black."""
        if linear.ndim != 3 or linear.shape[2] != 3:
            raise ValueError(f"linear light must be (H, W, 3), got {linear.shape}")
        return _encode(np.ascontiguousarray(linear, np.float32), self._above, self._starts, self._hops)

    @cached_property
    def _above(self) -> np.ndarray:
        """(256, 3): the light from which a code is too low; never for 255."""
        return np.concatenate([self.edges, np.full((1, 3), np.inf, np.float32)])

    @cached_property
    def _starts(self) -> np.ndarray:
        """(SLOTS + 1, 3) uint8: the least code whose light may fall in each slot of 0..1."""
        slots = np.arange(SLOTS + 1, dtype=np.float32) / SLOTS
        codes = [np.searchsorted(self.edges[:, c], slots, side="right") for c in range(3)]
        return np.stack(codes, 1).astype(np.uint8)

    @cached_property
    def _hops(self) -> int:
        """The most codes that a slot's light can lie above the slot's start."""
        return int(np.diff(self._starts.astype(int), axis=0).max())


@dataclass(frozen=True)
class Curve:
    """What a setting of ``crf`` stands for: one response, or a range of gammas that each sample draws its own from."""

    response: Response
    gammas: tuple[float, float] | None = None

    def draw(self, u: float) -> Response:
        """The response of one sample, from a uniform draw u in [0, 1)."""
        if self.gammas is None:
            return self.response
        low, high = self.gammas
        return load_response(f"gamma{low + u * (high - low):.3f}")  # rounded: its name says all of it


def parse_curve(name: str) -> Curve:
    """A response of `load_response`, auto (srgb, unless the film says more) or gammaLO-HI. Raises CameraError."""
    if name == "auto":
        return Curve(load_response("srgb"))
    both = name.removeprefix("gamma").split("-")
    if not name.startswith("gamma") or len(both) != 2:
        return Curve(load_response(name))
    try:
        low, _ = (load_response(f"gamma{g}") for g in both)
    except CameraError:
        raise CameraError(
            f"crf {name!r}: a range of gammas needs two numbers from 0.1 to 10, as in gamma1-2.6"
        ) from None
    if float(both[0]) > float(both[1]):
        raise CameraError(f"crf {name!r}: the first gamma is larger than the second")
    return Curve(low, (float(both[0]), float(both[1])))


def translate(rgb: np.ndarray, source: Response, camera: Response) -> np.ndarray:
    """uint8 (H, W, 3) codes of one response as the codes that another gives the same light."""
    table = camera.encode(source.light[:, None, :])
    return cv2.LUT(rgb, np.ascontiguousarray(table.transpose(1, 0, 2)))


def parse_jpeg(text: str) -> tuple[int, int] | None:
    """'off' -> None; 'Q' -> (Q, Q); 'LO-HI' -> (LO, HI), qualities of 1 to 100. Raises ValueError."""
    if text == "off":
        return None
    parts = text.split("-")
    if not all(p.isdecimal() for p in parts) or len(parts) > 2:
        raise ValueError("must be off, a JPEG quality Q or a range LO-HI (1 to 100)")
    low, high = int(parts[0]), int(parts[-1])
    if not 1 <= low <= high <= 100:
        raise ValueError("must be off, a JPEG quality Q or a range LO-HI (1 to 100)")
    return low, high


def jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    """uint8 (H, W, 3) RGB after a camera's JPEG (4:2:0) of this quality, 1 to 100."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    flags += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), flags)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert done and decoded is not None
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


@compiled
def _encode(linear, above, starts, hops):
    h, w = linear.shape[0], linear.shape[1]
    out = np.empty((h, w, 3), np.uint8)
    for y in range(h):
        for x in range(w):
            for c in range(3):
                v = linear[y, x, c]
                v = v if v > 0 else np.float32(0)  # NaN too: it must not become an index
                v = v if v < 1 else np.float32(1)
                code = np.intp(starts[int(v * np.float32(SLOTS)), c])
                for _ in range(hops):  # no branch: whether light is above the edge is a coin's toss
                    code += v >= above[code, c]
                out[y, x, c] = code
    return out


def load_response(name: str) -> Response:
    """srgb (IEC 61966-2-1), gammaX (GoPro's blur_gamma is gamma2.2), display (no curve), or FILE.npy; pq, hlg and linear
    have srgb's codes (`HDR`).

    Raises CameraError naming what is wrong.
    """
    code = np.arange(256, dtype=np.float64)
    half = code[:-1] + 0.5
    if name == "srgb" or name in HDR:
        return _response(name, _srgb(code / 255), _srgb(half / 255))
    if name == "display":
        return _response(name, code / 255, half / 255)
    if name.startswith("gamma"):
        try:
            gamma = float(name.removeprefix("gamma"))
        except ValueError:
            gamma = 0.0
        if not 0.1 <= gamma <= 10:
            raise CameraError(f"crf {name!r}: gamma needs a number from 0.1 to 10, as in gamma2.2")
        return _response(name, (code / 255) ** gamma, (half / 255) ** gamma)
    if name.endswith(".npy"):
        return _from_file(Path(name))
    raise CameraError(
        f"crf {name!r} is not auto, srgb, pq, hlg, linear, gamma2.2, a range as gamma1-2.6, display or a FILE.npy"
    )


def _srgb(v: np.ndarray) -> np.ndarray:
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def _response(name: str, light: np.ndarray, edges: np.ndarray) -> Response:
    wide = [np.repeat(x[:, None], 3, 1) if x.ndim == 1 else x for x in (light, edges)]
    return Response(name, wide[0].astype(np.float32), wide[1].astype(np.float32))


def _from_file(path: Path) -> Response:
    """A measured curve: (256,), (256, 3) RGB, or REDS's crf.npy (256, 1, 3) BGR.

    REDS's rule (Nah et al. 2019): its codes above 250 are unreliable and continue linearly with the slope
    (c[251] - c[249]) / 2.
    """
    try:
        table = read_npy(path)
    except FileNotFoundError:
        raise CameraError(
            f"crf {path}: no such file; give the path of the curve (REDS's own is its crf.npy), or use --crf srgb"
        ) from None
    except ValueError as e:
        raise CameraError(f"crf {path}: {e}") from None
    if table.shape == (256, 1, 3):
        table = table[:, 0, ::-1].copy()
        slope = (table[251] - table[249]) / 2
        table[251:] = table[250] + slope * np.arange(1, 6)[:, None]
    elif table.shape == (256,):
        table = np.repeat(table[:, None], 3, 1)
    elif table.shape != (256, 3):
        raise CameraError(
            f"crf {path}: shape {table.shape}, need (256,), (256, 3) RGB or (256, 1, 3) BGR (REDS)"
        )
    if not np.all(np.isfinite(table)) or np.any(np.diff(table, axis=0) <= 0):
        raise CameraError(f"crf {path}: the curve must rise from each code to the next")
    table = (table - table[:1]) / (table[-1:] - table[:1])  # code 0 is no light, code 255 is white
    return _response(path.name, table, (table[:-1] + table[1:]) / 2)


def read_npy(path: Path) -> np.ndarray:
    """A small .npy file that may be damaged or hostile: an array of numbers, float64, of any shape. Nothing in it is
    unpickled. Raises FileNotFoundError, or ValueError with one line of why."""
    try:
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            raise ValueError("holds no array of real numbers")
        return array.astype(np.float64)
    except FileNotFoundError:
        raise
    # A shape of terabytes in the header is a MemoryError, a text file many things.
    except (OSError, ValueError, TypeError, EOFError, MemoryError, LookupError, SyntaxError) as e:
        raise ValueError(f"not a readable .npy array ({' '.join(str(e).split())[:150]})") from None
