"""Strategies for data that means harm: tars, pictures, JSON. Knows neither package, so that both can be tried with it."""

from __future__ import annotations

import struct
import tarfile
import zlib
from typing import Any

from hypothesis import strategies as st

NAMES = st.one_of(
    st.sampled_from(
        [
            *(
                "k.json",
                "k.blur.png",
                "k.sharp.png",
                "k.json",
                "a.b.json",
                "../../evil.json",
                "/tmp/evil.json",
            ),
            *(
                "sub/k.json",
                "..",
                ".",
                "k..json",
                ".json",
                "k.",
                "k",
                "C:\\evil.json",
                "k\0.json",
                "ключ.json",
            ),
            *("-rf.json", "k.json/", "x" * 99, "x" * 200 + ".json"),
        ]
    ),
    st.text(max_size=120),
)
TYPES = [bytes([b]) for b in b"01234567DKLNSVXgx\0a"]
SIZES = st.one_of(
    st.none(), st.sampled_from([0, 1, 511, 512, 2**20, 2**33 - 1, 2**40, 2**62, -1, -512, -(2**40)])
)
PAX = st.dictionaries(
    st.sampled_from(
        [
            *("path", "linkpath", "size", "mtime", "uid", "hdrcharset", "GNU.sparse.map", "GNU.sparse.size"),
            *("GNU.sparse.realsize", "GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.name", "comment"),
        ]
    ),
    st.one_of(st.sampled_from(["0", "1", "-512", "9" * 40, "1e9", "../../x", "nan", "BINARY", ""]), st.text(max_size=30)),
    max_size=3,
)  # fmt: skip
JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([10**400, -(10**30), 2**63]),
        st.floats(),
        st.text(max_size=20),
    ),
    lambda part: st.one_of(
        st.lists(part, max_size=4), st.dictionaries(st.text(max_size=8), part, max_size=4)
    ),
    max_leaves=8,
)


def block(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def number(n: int, digits: int) -> bytes:
    """A header field: octal where it fits, else base 256, which also holds what is negative or huge."""
    if 0 <= n < 8 ** (digits - 1):
        return b"%0*o\0" % (digits - 1, n)
    return (b"\x80" if n >= 0 else b"\xff") + (n % 256 ** (digits - 1)).to_bytes(digits - 1, "big")


def header(name: bytes, size: int, kind: bytes = b"0", link: bytes = b"", more: bool = False) -> bytes:
    """512 bytes of a USTAR header with a sound checksum, whatever it says. ``more``: a sparse map goes on after it."""
    buf = bytearray(512)
    buf[:100] = name[:100].ljust(100, b"\0")
    buf[100:108], buf[108:116], buf[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    buf[124:136], buf[136:148] = number(size, 12), number(0, 12)
    buf[148:156], buf[156:157] = b" " * 8, kind
    buf[157:257] = link[:100].ljust(100, b"\0")
    buf[257:265] = b"ustar\x0000"
    buf[482] = more
    buf[148:156] = b"%06o\0 " % sum(buf)
    return bytes(buf)


def pax(records: dict[str, str], kind: bytes = b"x") -> bytes:
    data = tarfile.TarInfo._create_pax_generic_header(records, kind, "utf-8")  # type: ignore[attr-defined]
    return bytes(data)


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    """Members of any name, type and claimed size, with pax and GNU headers before them; perhaps cut, perhaps overwritten."""
    out = b""
    for _ in range(draw(st.integers(0, 6))):
        name = draw(NAMES).encode("utf-8", "surrogateescape" if draw(st.booleans()) else "replace")
        data = draw(st.sampled_from([b"", b"{}", b"x" * 600, b"\x89PNG\r\n\x1a\n", b"[" * 2000]))
        claimed = draw(SIZES)
        kind = draw(st.sampled_from([b"0", b"0", b"0", b"0", *TYPES]))
        if draw(st.integers(0, 3)) == 0:
            records = {k: v.encode("utf-8", "replace").decode() for k, v in draw(PAX).items()}
            out += pax(records, draw(st.sampled_from([b"x", b"g"])))
        if draw(st.integers(0, 5)) == 0:
            out += header(b"././@LongLink", len(name), b"L") + block(name)
        out += header(name, len(data) if claimed is None else claimed, kind, b"/etc/passwd") + block(data)
    whole = out + bytes(draw(st.sampled_from([0, 512, 1024, 10240])))
    whole = whole[: draw(st.integers(0, len(whole)))] if draw(st.integers(0, 3)) == 0 else whole
    at, noise = draw(st.integers(0, len(whole))), draw(st.one_of(st.just(b""), st.binary(max_size=30)))
    return whole[:at] + noise + whole[at + len(noise) :]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int = 8, colour: int = 2, rows: bytes = b"") -> bytes:
    """A PNG with sound checksums that claims any size; ``rows`` are its raw scan lines."""
    ihdr = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_bomb(side: int = 17_000) -> bytes:
    """36 kB that decode to 290 MB: a sound picture of one bit a pixel."""
    return png(side, side, bits=1, colour=0, rows=bytes((side // 8 + 1) * side))


FIRST = header(b"a.json", 0)
TRICKS: dict[str, bytes] = {
    "a size below zero": FIRST + header(b"k.json", -512) + bytes(2048),
    "a size below zero by pax": FIRST + pax({"size": "-1536"}) + header(b"k.json", 0) + bytes(2048),
    "a size below zero by sparse pax": pax({"GNU.sparse.realsize": "-5"}, b"g") + header(b"k.json", 0) + bytes(2048),
    "a name of gigabytes": header(b"././@LongLink", 2**33, b"L") + bytes(2048),
    "a pax header of gigabytes": header(b"pax", 2**33, b"x") + bytes(2048),
    "5,000 headers in a row": header(b"././@LongLink", 1, b"L").ljust(1024, b"\0") * 5000 + bytes(1024),
    "a sparse map cut short": pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}) + header(b"k", 9) + b"99999\n",
    "an old sparse map cut short": header(b"k.json", 512, b"S", more=True),
    "a pax header that is slow to search": header(b"pax", 2**20, b"x") + b"1" * 2**20 + bytes(1024),
    "a number too long for int": header(b"pax", 6000, b"x") + block(b"9" * 5000 + b" path=x\n"),
    "a member of a terabyte": header(b"k.json", 2**40) + bytes(2048),
    "a link out of the folder": header(b"k.json", 0, b"2", b"/etc/passwd") + bytes(1024),
    "a path out of the folder": header(b"../../evil.json", 2) + block(b"{}") + bytes(1024),
}  # fmt: skip
