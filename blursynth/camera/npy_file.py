"""A small .npy file that may be damaged or hostile: numbers, or ValueError. Nothing in it is unpickled."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def read_npy(path: Path) -> np.ndarray:
    """An array of numbers, float64, of any shape. Raises FileNotFoundError, or ValueError with one line of why."""
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
