"""The one walk over a tar that may be hostile: what Python's tarfile believes too readily is checked before it acts on it.

Its parser takes a negative size (and then reads the same header for ever), reads a name of any length into memory,
follows a chain of extension headers until the stack is full, searches them in quadratic time, reads on for ever
where a sparse map is cut short, and lets some of what goes wrong out as IndexError or ValueError.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

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


class TarFault(Exception):
    """From here on a tar cannot be trusted; says what is wrong, without the file's name."""


class Member(NamedTuple):
    """A member by its header: where its bytes lie in the file. Its name is as hostile as the file."""

    name: str
    offset: int
    size: int
    plain: bool  # False for a link, folder, device or sparse file


def walk(file: IO[bytes]) -> Iterator[Member]:
    """The members of a tar in order, by their headers; nothing is extracted, and memory stays bounded.

    Bytes of plain members are all there, within the file. Between two members the caller may seek and read. Raises
    TarFault at the first place after which nothing can be trusted; what came before is whole.
    """
    size = file.seek(0, 2)
    file.seek(0)
    if not size:
        raise TarFault("is empty (0 bytes)")
    try:
        # "r:" and not "r": no transparent decompression, so no bomb.
        with tarfile.open(fileobj=file, mode="r:", tarinfo=BoundedHeader) as tar:
            for m in tar:
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every header
                plain = m.isreg() and not m.issparse()
                if plain and m.offset_data + m.size > size:
                    raise TarFault(f"cut short: {m.name[:80]!r} claims {m.size} bytes")
                yield Member(m.name, m.offset_data, m.size, plain)
            # A cut between two members, and garbage, look like the end to tarfile; a real one is a block of zeros.
            file.seek(tar.offset)
            block = file.read(512)
    except FAULTS as e:
        raise TarFault(f"not a readable tar ({e})") from None
    if len(block) < 512:
        raise TarFault("cut short (no end mark)")
    if any(block):
        raise TarFault(f"garbage where a member should start (byte {tar.offset:,})")
