"""Errors that a person can act on: one base class that carries its exit code, and "did you mean"."""

from __future__ import annotations

import difflib
from collections.abc import Container, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(Exception):
    """What a command tells in one line and ends with ``exit_code``; the message names the file, what is wrong, what to do.

    1: something failed, the same command may work another time. 2 (``UsageError``): the request itself must change.
    """

    exit_code = 1

    def __init__(self, message: str = "", exit_code: int | None = None) -> None:
        super().__init__(message)
        if exit_code is not None:
            self.exit_code = exit_code


class UsageError(UserError):
    """A request that cannot be carried out as it stands."""

    exit_code = 2


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """What to put behind "unknown NAME": the closest known name, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {near[0]!r}?)" if near else f"; known: {', '.join(names)}"


def plain_message(text: str) -> str:
    """Pydantic's message without its jargon."""
    return text.removeprefix("Value error, ").replace("Input should be", "must be")


def explain_validation(e: ValidationError, where: str = "", said: Container[str] = ()) -> str:
    """One line for a person out of pydantic's report. Keys that the caller ``said`` are named as options, others as keys
    of the file ``where``."""
    parts = []
    for err in e.errors():
        key = ".".join(str(p) for p in err["loc"])
        given = repr(err["input"])
        got = f", got {given}" if key and given not in err["msg"] else ""
        shown = key if key.isprintable() else ascii(key)
        blamed = (
            [f"--{shown.replace('_', '-')}"] if key in said else [where if key or not said else "", shown]
        )
        parts.append(": ".join([*filter(None, blamed), plain_message(err["msg"])]) + got)
    return "; ".join(parts)
