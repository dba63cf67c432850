"""Values out of JSON that anyone may have written: what is not of the type asked for counts as absent."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any] | None:
    """A file's JSON object; None when it is missing, unreadable, too large or something else."""
    return parse_json(read_bounded(path))


def read_bounded(path: Path, limit: int = 64 << 20) -> bytes | None:
    """A small file's bytes; None when it is missing, unreadable or too large."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError:
        return None
    return data if len(data) <= limit else None


def parse_json(data: bytes | None) -> dict[str, Any] | None:
    """A JSON object, or None for anything else (also for nesting deep enough to exhaust the stack)."""
    try:
        value = json.loads(data) if data else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def group(of: dict[str, Any], name: str) -> dict[str, Any]:
    """An object within an object; empty when it is absent or something else."""
    value = of.get(name)
    return value if isinstance(value, dict) else {}


def rows(of: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The objects of a list within an object; empty when it is absent or something else."""
    value = of.get(name)
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def texts(value: Any) -> list[str]:
    """A list's values as text; empty for anything else."""
    return [str(v) for v in value] if isinstance(value, list) else []


def counts(value: Any) -> dict[str, int]:
    """The counts above 0 of an object; empty for anything else."""
    return (
        {str(k): n for k, n in value.items() if type(n) is int and n > 0} if isinstance(value, dict) else {}
    )


def real(value: Any) -> float:
    """A finite number as float; NaN for anything else (null, text, bool, infinity, a 400-digit integer)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:
        return math.nan
