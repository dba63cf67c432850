"""The preview as one HTML file: nothing is fetched, nothing from the data is markup.

Every value passes jinja's escaping where it enters the page, bounded and without characters that could disguise it;
the content security policy is a second lock: no request of any kind, no script but the one written here (by its hash).
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from blursynth import __version__
from blursynth.common.text import one_line
from blursynth.preview.pictures import (
    DIFFERENCE_GAIN,
    encode_cards,
    flow_rim,
    panel_size,
    ramp_uri,
    wheel_uri,
)
from blursynth.preview.report import Card, InspectReport, histogram, number, size_text, spread

_MAX_TEXT = 300  # of any one string from the data; a longer one is cut, not laid out


def page(report: InspectReport) -> str:
    """The whole document as text."""
    environment = Environment(
        loader=FunctionLoader(_asset), autoescape=True, finalize=_bounded, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    script = _asset("preview.js")
    shown = [card.extent for card in report.cards if np.isfinite(card.extent)]
    noun = "samples" if report.kind == "data" else "moments"
    return environment.get_template("preview.html").render(
        report=report,
        css=Markup(_asset("preview.css")),
        script=Markup(script),
        digest=Markup(base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()),
        version=__version__,
        noun=noun,
        title=_title(report, noun),
        tiles=_tiles(report),
        cards=list(zip(report.cards, encode_cards(report.cards))),
        histograms=[
            _bars(report.extent_median, "Median of the picture", "", []),
            _bars(report.extent_p95, report.fastest_name, " two", shown),
        ],
        recipe=_recipe(report),
        wheel=Markup(wheel_uri()),
        ramp=Markup(ramp_uri()),
        gain=DIFFERENCE_GAIN,
        right=Markup(" class=n"),
        whole=Markup(' class="whole"'),  # never trim another picture's shape
        by_count=lambda counts: sorted(counts.items(), key=lambda kv: -kv[1]),
        views=_views,
        uri=Markup,
        number=number,
        flow_rim=flow_rim,
        panel_size=panel_size,
    )


def _asset(name: str) -> str:
    return (resources.files("blursynth.preview") / "assets" / name).read_text(encoding="utf-8")


def _bounded(value: Any) -> Any:
    """Any value from the data as bounded text: control and direction-changing characters could disguise a name."""
    if isinstance(value, Markup):
        return value
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
    # What `printable` lets through and a browser would lay out or cannot show.
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in one_line(text))


def _views(card: Card) -> list[tuple[str, str]]:
    layers = [(str(i), name) for i, (name, _) in enumerate(card.layers)]
    return [("compare", "Compare"), *layers, ("flicker", "Flicker")]


def _title(report: InspectReport, noun: str) -> str:
    rejected = sum(card.rejected for card in report.cards)
    kept = len(report.cards) - rejected
    parts = [f"{kept} {noun if kept != 1 else noun[:-1]}, weakest to strongest"] if kept else []
    if rejected:
        parts.append(f"{rejected} rejected interval{'s' * (rejected != 1)}")
    return ", and ".join(parts)


def _tiles(report: InspectReport) -> list[tuple[str, str, str]]:
    """Name, figure and small print of each."""
    if report.kind == "data":
        by = " · ".join(f"{name} {count:,}" for name, count in list(report.samples.items())[:3])
        each = f"{size_text(report.bytes / max(1, report.total))} a sample"
        tiles = [("Samples", f"{report.total:,}", by), ("On disk", size_text(report.bytes), each)]
    else:
        clips = len(report.samples)
        tiles = [("Usable intervals", f"{report.total:,}", f"in {clips:,} clip{'s' * (clips != 1)}")]
    if report.sizes:
        more = len(report.sizes) - 1
        size = max(report.sizes, key=lambda s: report.sizes[s])
        others = f"and {more} other size{'s' * (more != 1)}" if more else "all alike"
        tiles.append(("Picture size", size, others))
    unit = "px" if report.kind == "data" else "px/frame"
    for name, values in (("Median motion", report.extent_median), ("Fastest 5 %", report.extent_p95)):
        v = values[np.isfinite(values)]
        if v.size:
            low, mid, high = np.percentile(v, [5, 50, 95])
            most = f"most within {number(low, 2)}–{number(high, 2)}"
            tiles.append((name, f"{number(mid, 2)} {unit}", most))
    if report.scores.size:
        lowest = f"lowest {number(float(report.scores.min()), 3)}"
        tiles.append(("Quality score", number(float(np.median(report.scores)), 3), lowest))
    return [*tiles, ("Rejected", f"{sum(report.rejects.values()):,}", report.rejects_of)]


def _bars(values: np.ndarray, title: str, style: str, shown: list[float]) -> dict[str, Any]:
    """A histogram as the template draws it, in a box of 720 x 176; triangles mark the samples that are shown."""
    hist, drawn = histogram(values), {"title": title, "style": style, "spread": spread(values)}
    if hist is None:
        return drawn | {"bars": []}
    n, peak, edges = len(hist.counts), max(1, int(hist.counts.max())), hist.edges
    step = 708 / n
    bars = [
        {
            "x": 6 + i * step,
            "height": max(1.5, count / peak * 126) if count else 0.0,
            "count": int(count),
            "says": f"{number(edges[i])} "
            + ("and above" if hist.open_end and i == n - 1 else f"to {number(edges[i + 1])} px")
            + f": {count:,}",
        }
        for i, count in enumerate(hist.counts)
    ]
    ticks = [
        (
            6 + i * step,
            number(edges[i]) + ("+" if hist.open_end and i == n else ""),
            "start" if i == 0 else "end" if i == n else "middle",
        )
        for i in range(0, n + 1, max(1, -(-n // 9)))
    ]
    marks = [6 + min(extent / edges[-1], 1) * 708 for extent in shown]
    return drawn | {"bars": bars, "step": step, "ticks": ticks, "shown": marks}


def _recipe(report: InspectReport) -> list[tuple[str, Any]]:
    if not report.recipe and not report.recipe_sha256:
        return []
    plain = {True: "on", False: "off"}
    return [("sha256", report.recipe_sha256[:16] or "unknown")] + [
        (str(k), plain[v] if isinstance(v, bool) else v)
        for k, v in report.recipe.items()
        if k not in ("name", "src") and v not in ("", None)
    ]
