"""What was worked out and may be asked for again, kept in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

ENTRY = 256  # bytes that an entry takes beside its value


class Kept:
    """Values under their keys, up to so many bytes (`nbytes` of each value): what was not asked for longest goes first.

    A value must be a pure function of its key: who asks cannot tell whether it was kept.
    """

    def __init__(self, budget: int):
        self.budget, self.held = budget, 0
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The key's value; made anew where it is not there. One larger than the budget is not kept."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            if key not in self._values and _size(value) <= self.budget:
                self._values[key] = value
                self.held += _size(value)
            while self.held > self.budget:
                self.held -= _size(self._values.popitem(last=False)[1])
        return value


def _size(value: Any) -> int:
    return ENTRY + int(getattr(value, "nbytes", 0))
