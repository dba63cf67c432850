"""Text for a terminal: sizes and times for people, and no control character that came with the data."""

from __future__ import annotations

import math
import re
import textwrap
from collections import Counter
from collections.abc import Mapping

# C0 and C1 controls (a terminal obeys them) but tab and newline; marks that reverse or hide text (bidi, line and
# paragraph separators, zero width); halves of a character, which a file name that is not UTF-8 leaves in a str.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def printable(text: str) -> str:
    """``text`` as a terminal may show it: what it would obey, or cannot encode, stands there as ``\\x1b`` or ``\\u202e``."""
    return _UNSAFE.sub(_escape, text)


def one_line(text: str) -> str:
    """``printable`` text with its line breaks turned into spaces."""
    return printable(" ".join(text.splitlines())).replace("\t", " ")


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: the byte as it stands in the name
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def hanging(head: str, text: str) -> str:
    """``text`` behind ``head``, in lines of 110 characters that begin below its beginning."""
    return textwrap.fill(text, 110, initial_indent=head, subsequent_indent=" " * min(len(head), 34))


def human_bytes(n: float | None) -> str:
    n = float(n or 0)
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def human_seconds(s: float) -> str:
    if s < 60:
        return f"{s:.1f} s"
    if s < 3600:
        return f"{s / 60:.1f} min"
    return f"{s / 3600:.1f} h"


def counted(n: int, noun: str, plural: str | None = None) -> str:
    """``1 clip``, ``3 clips``."""
    return f"{n} {noun if n == 1 else plural or noun + 's'}"


def number(value: float, digits: int = 3) -> str:
    """A short figure for people: ``digits`` significant ones, never an exponent, no idle zeros; a dash for NaN."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(decimals, 4)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def by_count(counts: Mapping[str, int], most: int = 24) -> str:
    """'cut 4, duplicate 1', the commonest first."""
    told = Counter(counts).most_common()
    more = f", {len(told) - most} more" if len(told) > most else ""
    return ", ".join(f"{name} {n:,}" for name, n in told[:most]) + more
