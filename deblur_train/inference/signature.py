"""What an exported file takes and gives, in a form that travels inside the file; and what can go wrong with such files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from blursynth.common.errors import UsageError, UserError

Layout = Literal["NCHW", "NHWC"]
Dtype = Literal["float32", "float16", "uint8"]
Size = tuple[int, int]  # height, width


class ExportError(UserError):
    """A file that could not be exported or run; the message names it, what is wrong and what to do."""


class UnsupportedExport(UsageError):
    """A combination of options that no exporter here can do; the message says what can be done instead."""


@dataclass(frozen=True)
class Signature:
    """What an exported file takes and gives: both ``image`` and ``restored`` have this layout, type and size."""

    layout: Layout = "NCHW"
    dtype: Dtype = "float32"
    size: Size | None = None  # None: any height and width

    def native(self, x: np.ndarray) -> np.ndarray:
        """``(N, 3, H, W)`` float32 RGB in [-1, 1] to what the file takes."""
        if self.layout == "NHWC":
            x = x.transpose(0, 2, 3, 1)
        if self.dtype == "uint8":
            x = np.round((np.clip(x, -1, 1) + 1) * 127.5)
        return np.ascontiguousarray(x, dtype=self.dtype)

    def signed(self, y: np.ndarray) -> np.ndarray:
        """What the file gives to ``(N, 3, H, W)`` float32 RGB in [-1, 1]."""
        x = y.astype(np.float32)
        if self.dtype == "uint8":
            x = x / 127.5 - 1
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2) if self.layout == "NHWC" else x)

    def words(self) -> dict[str, Any]:
        """The signature for the file's metadata."""
        height, width = self.size or ("height", "width")
        shape = ["batch", 3, height, width] if self.layout == "NCHW" else ["batch", height, width, 3]
        if self.size:
            shape[0] = 1
        values = {
            "names": {"input": "image", "output": "restored"},
            "layout": self.layout,
            "shape": shape,
            "dtype": self.dtype,
            "colour": "RGB",
            "range": [0, 255] if self.dtype == "uint8" else [-1, 1],
            "sizes": "fixed"
            if self.size
            else "any height and width of at least 1 pixel; padded and cropped inside",
        }
        if self.dtype != "uint8":
            values["from_uint8"] = "x / 127.5 - 1"
            values["to_uint8"] = "round((y + 1) * 127.5)"
        return values


def signature_from_words(words: dict[str, Any]) -> Signature:
    """The inverse of :meth:`Signature.words`. Raises KeyError, ValueError or TypeError for anything else."""
    layout, dtype, shape = words["layout"], words["dtype"], words["shape"]
    if layout not in ("NCHW", "NHWC") or dtype not in ("float32", "float16", "uint8") or len(shape) != 4:
        raise ValueError("unknown layout, type or shape")
    h, w = (shape[2], shape[3]) if layout == "NCHW" else (shape[1], shape[2])
    return Signature(layout, dtype, (h, w) if isinstance(h, int) and isinstance(w, int) else None)
