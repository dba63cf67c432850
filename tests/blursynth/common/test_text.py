"""No string out of data commands the terminal, and none of them breaks it."""

from __future__ import annotations

import os
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from blursynth.common.text import one_line, printable

BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@given(
    st.text(st.characters(exclude_categories=[]) | st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"]))
)
def test_nothing_is_left_that_a_terminal_obeys_or_cannot_encode(text):
    shown = printable(text)
    shown.encode("utf-8")
    for c in shown:
        assert c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp")
        assert unicodedata.bidirectional(c) not in BIDI
    assert not set(one_line(text)) & set("\n\t\r")
    assert printable(shown) == shown


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_plain_text_stays_as_it_is(text):
    assert printable(text) == text


def test_a_name_that_is_not_utf8_shows_its_bytes():
    assert printable(os.fsdecode(b"caf\xe9.mp4")) == "caf\\xe9.mp4"
    assert printable("\x1b[2J\u202egpj") == "\\x1b[2J\\u202egpj"
