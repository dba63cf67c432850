"""Keys of samples: ``[A-Za-z0-9_-]`` only, unique over a data set, and telling of the clip."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

SLUG_LENGTH = 60  # a tar name holds 100 characters; the rest of the key and the extension take under 40


def key_prefixes(names: Sequence[tuple[str, str]]) -> dict[str, str]:
    """(name, rel) of every clip -> rel -> key prefix: the name in ``[A-Za-z0-9_-]``, and a hash where that lost
    something or two clips share a name (also where only the case differs: many file systems would mix them up)."""
    slugs = {
        rel: re.sub(r"[^A-Za-z0-9_-]+", "-", _ascii(name))[:SLUG_LENGTH].strip("-") or "clip"
        for name, rel in names
    }
    taken = Counter(s.lower() for s in slugs.values())
    prefixes = dict(slugs)
    for name, rel in names:
        if slugs[rel] != name or taken[slugs[rel].lower()] > 1:
            prefixes[rel] = (
                f"{slugs[rel]}-{hashlib.sha256(rel.encode('utf-8', 'surrogateescape')).hexdigest()[:10]}"
            )
    if len({p.lower() for p in prefixes.values()}) != len(names):
        raise ValueError("two clips have one key prefix; the clips' relative paths must differ")
    return prefixes


def _ascii(name: str) -> str:
    return unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
