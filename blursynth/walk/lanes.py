"""The names of registers.py, which is loaded with numba, when a loop is compiled: not for code that comes out of its cache."""

from __future__ import annotations

from typing import Any

import numpy as np

U: Any = np.uintp
"""Index type: numba wraps negative signed indices, which would cost more than the fetch itself."""


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    from blursynth.walk import registers

    return getattr(registers, name)
