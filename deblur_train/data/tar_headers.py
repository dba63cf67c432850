"""Headers of a tar that may be hostile: what Python's tarfile believes too readily is checked before it acts on it.

The producer has a twin of this module: the two packages never import each other.
"""

from __future__ import annotations

import tarfile
from typing import Any

MAX_EXTENSION = 8192  # bytes of a long name or a pax record; a real one takes a few hundred
MAX_CHAIN = 8  # extension headers before one member; a real one has a pax one or two long names
EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
FAULTS = (
    tarfile.TarError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    RecursionError,
)
"""What reading headers may raise."""


class BoundedHeader(tarfile.TarInfo):
    """For ``tarfile.open(..., "r:", tarinfo=BoundedHeader)``: raises tarfile.ReadError where the parser would trust."""

    def _block(self, count: int) -> int:
        if count < 0:
            raise tarfile.ReadError(f"a member of {count} bytes")
        return int(super()._block(count))  # type: ignore[misc]

    def _proc_member(self, tar: Any) -> Any:
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("a sparse member")
        depth = getattr(tar, "extensions", 0) + 1 if self.type in EXTENSIONS else 0
        if depth > MAX_CHAIN or (depth and self.size > MAX_EXTENSION):
            raise tarfile.ReadError(f"an extension header of {self.size} bytes, the {depth}. in a row")
        tar.extensions = depth
        return super()._proc_member(tar)  # type: ignore[misc]

    def _apply_pax_info(self, pax_headers: Any, encoding: str, errors: str) -> None:
        super()._apply_pax_info(pax_headers, encoding, errors)  # type: ignore[misc]
        self._block(self.size)

    def _refuse_sparse(self, *_: Any) -> None:
        raise tarfile.ReadError("a sparse member")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse
