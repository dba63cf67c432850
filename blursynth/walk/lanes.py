"""The names of registers.py, shuffles.py and loads.py, loaded with numba when a loop is compiled: not for code out of its cache."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

U: Any = np.uintp
"""Index type: numba wraps negative signed indices, which would cost more than the fetch itself."""


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    new = "blursynth.walk.registers" not in sys.modules
    from blursynth.walk import loads, registers, shuffles

    if new:  # while a loop compiles: numba looks for new functions only before the first
        from numba.core.registry import cpu_target

        cpu_target.typing_context.refresh()
    for module in (registers, shuffles, loads):
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
