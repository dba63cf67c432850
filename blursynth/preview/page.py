"""The preview as one HTML file: nothing is fetched, nothing from the data is markup.

Every value passes jinja's escaping where it enters the page, bounded and without characters that could disguise it;
the content security policy is a second lock: no request of any kind, no script but the one written here (by its hash).
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from blursynth import __version__
from blursynth.common.text import counted, number, one_line
from blursynth.pairs.flow_thumb import flow_rim, panel_size, wheel_legend
from blursynth.preview.pictures import DIFFERENCE_GAIN, data_uri, encode_cards, ramp_uri
from blursynth.preview.report import Card, InspectReport, asset, histogram, spread, words

_MAX_TEXT = 400  # of any one string from the data; a longer one is cut, not laid out


def page(report: InspectReport) -> str:
    """The whole document as text."""
    environment = Environment(
        loader=FunctionLoader(asset), autoescape=True, finalize=_bounded, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    functions = (counted, number, flow_rim, panel_size, histogram, spread, words)
    environment.globals |= {f.__name__: f for f in functions} | {"views": _views, "uri": Markup}
    script, kept = asset("preview.js"), len(report.cards)
    pictures = encode_cards([*report.cards, *report.left_out])
    extents = [c.extent for c in report.cards if np.isfinite(c.extent)]
    return environment.get_template("preview.html").render(
        report=report,
        css=Markup(asset("preview.css")),
        script=Markup(script),
        digest=Markup(base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()),
        version=__version__,
        cards=list(zip(report.cards, pictures[:kept])),
        left_out=list(zip(report.left_out, pictures[kept:])),
        histograms=[
            ("Median of the picture", "", report.extent_median, []),
            (report.fastest_name, " two", report.extent_p95, extents),
        ],
        wheel=Markup(data_uri(wheel_legend(160))),
        ramp=Markup(ramp_uri()),
        gain=DIFFERENCE_GAIN,
        by_count=lambda counts: sorted(counts.items(), key=lambda kv: -kv[1]),
    )


def _bounded(value: Any) -> Any:
    """Any value from the data as bounded text: control and direction-changing characters could disguise a name."""
    if isinstance(value, Markup):
        return value
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
    # What `printable` lets through and a browser would lay out or cannot show.
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in one_line(text))


def _views(card: Card) -> list[tuple[str, str]]:
    """(mode of the script, name of the button) of what a card can show."""
    layers = [(str(i), name) for i, (name, _) in enumerate(card.layers)]
    return [("compare", "Compare"), *layers, ("flicker", "Flicker")] if len(layers) > 1 else []
