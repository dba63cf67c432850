"""Loops that numba compiles: numba is imported with the first of them that runs, its compiler is set up only to compile."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache, cached_property
from itertools import count
from pathlib import Path
from typing import Any


class Compiled:
    """A function that becomes machine code at its first call, or comes out of numba's cache on disk.

    Importing numba takes longer than all else that a window needs, and the process that only hands out work, audits or
    packs runs no such loop. Inside another compiled loop this stands for what it wraps.
    """

    def __init__(
        self, function: Callable[..., Any], inline: bool = False, counted: bool = True, nogil: bool = False
    ):
        self._function, self._inline, self._counted, self._nogil = function, inline, counted, nogil
        self.__doc__, self.__name__ = function.__doc__, function.__name__
        self.__module__, self.__qualname__ = function.__module__, function.__qualname__

    @cached_property
    def dispatcher(self) -> Any:
        """numba's own object for it."""
        from numba import config, njit

        # A pixel's four lanes in one register: 1.5x on the loop of an exposure.
        config.SLP_VECTORIZE = 1  # type: ignore[attr-defined]
        if self._inline:
            return njit(inline="always")(self._function)
        if not self._counted:
            return njit(error_model="numpy", _nrt=False)(self._function)  # type: ignore[call-overload]
        made: Any = njit(error_model="numpy", nogil=self._nogil)(self._function)
        try:
            made._cache = _cache(self._function)
        except RuntimeError:  # neither beside the file nor in the user's cache: a container that is read only
            _tell_once()
        return made

    def __call__(self, *args: Any) -> Any:
        return self.dispatcher(*args)

    # What numba asks of a name that it meets inside another loop.

    @property
    def _numba_type_(self) -> Any:
        return self.dispatcher._numba_type_

    @property
    def targetoptions(self) -> Any:
        return self.dispatcher.targetoptions

    @property
    def py_func(self) -> Callable[..., Any]:
        return self._function


def compiled(function: Callable[..., Any]) -> Compiled:
    """A loop of its own, kept on disk beside its file. Where numbers are divided by zero it goes on, as numpy does."""
    return Compiled(function)


def beside_others(function: Callable[..., Any]) -> Compiled:
    """As `compiled`, for several threads at once: it does not hold the interpreter's lock while it runs."""
    return Compiled(function, nogil=True)


def inlined(function: Callable[..., Any]) -> Compiled:
    """A piece of other loops, which take it in where they stand in the same file (the cache knows a loop by its file)."""
    return Compiled(function, inline=True)


def uncounted(function: Callable[..., Any]) -> Compiled:
    """A piece of other loops that makes no arrays, and is kept with those: without numba's count of who uses those it is
    given, an atomic addition at every use (0.44 s against 0.17 s a 720p window in the exposure's loop)."""
    return Compiled(function, counted=False)


@cache
def _tell_once() -> None:
    print(
        "compiled loops cannot be kept, for no folder can be written: each process compiles them anew, half a minute of "
        "CPU; NUMBA_CACHE_DIR names a folder that can",
        file=sys.stderr,
    )


def _cache(function: Callable[..., Any]) -> Any:
    """numba's cache, but what it holds is loaded without what only a compiler needs: half a second of registries."""
    from numba.core.caching import FunctionCache
    from numba.core.runtime.nrt import rtsys

    class Cache(FunctionCache):
        def load_overload(self, sig: Any, target_context: Any) -> Any:
            rtsys.initialize(target_context)  # what machine code calls to take memory
            try:
                if (found := self._load_overload(sig, target_context)) is not None:
                    return found
                return super().load_overload(sig, target_context)
            except Exception:  # torn by a power cut: there is no end to what is raised over such files
                with suppress(OSError):
                    self.flush()
                return None

        def save_overload(self, sig: Any, data: Any) -> None:
            file: Any = self._cache_file
            with suppress(OSError):  # a full disk: the code runs all the same
                if not file._load_index():  # none yet of this source
                    # numba writes the index first: until the data follow it would lead to an older source's code.
                    for n in count(1):
                        if not Path(left := file._data_path(file._data_name(n))).exists():
                            break
                        Path(left).unlink(missing_ok=True)
                super().save_overload(sig, data)

    return Cache(function)
