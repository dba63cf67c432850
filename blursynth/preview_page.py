"""The preview as one HTML file: nothing is fetched, nothing from the data is markup.

Every string passes ``html.escape`` where it enters the page; the content security policy is a second lock: no
request of any kind, no script but the one written here (by its hash).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from html import escape
from importlib import resources

import numpy as np

from blursynth.preview_pictures import (
    DIFFERENCE_GAIN,
    CardPictures,
    encode_cards,
    flow_rim,
    panel_size,
    ramp_uri,
    wheel_uri,
)
from blursynth.preview_report import Card, Histogram, InspectReport, histogram, number, size_text, spread

_MAX_TEXT = 300  # of any one string from the data; a longer one is cut, not laid out


def page(report: InspectReport) -> str:
    """The whole document as text."""
    css = _asset("preview.css")
    script = _asset("preview.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    kind = "data set" if report.kind == "data" else "source"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">',
        f"<title>{_t(report.target)} – blursynth inspect</title><style>{css}</style></head><body><main>",
        f'<header class="top"><div><p class="kicker">blursynth inspect · {kind}</p><h1>{_t(report.target)}</h1>',
        f'<p class="headline">{_t(report.headline)}</p></div><button class="theme" type="button">Light / dark</button></header>',
        _notes(report),
        _tiles(report),
        _facts(report),
        _samples(report),
        f"<footer>{_t(_origin())}</footer></main><script>{script}</script></body></html>\n",
    ]
    return "\n".join(parts)


def _t(text: object) -> str:
    """Any value from the data as safe, bounded text."""
    plain = str(text)
    plain = plain if len(plain) <= _MAX_TEXT else plain[: _MAX_TEXT - 1] + "…"
    # Control and direction-changing characters would let a name disguise itself or its surroundings.
    return escape("".join(c if c.isprintable() else "�" for c in plain), quote=True)


def _asset(name: str) -> str:
    return (resources.files("blursynth") / "data" / name).read_text(encoding="utf-8")


def _origin() -> str:
    from blursynth import __version__

    return f"Written by blursynth {__version__}. This page loads nothing from anywhere."


def _notes(report: InspectReport) -> str:
    lines = [f'<li class="bad"><b>Damaged</b>{_t(d)}</li>' for d in report.damaged[:30]]
    if len(report.damaged) > 30:
        lines.append(f'<li class="bad"><b>Damaged</b>and {len(report.damaged) - 30} more</li>')
    lines += [f"<li><b>Note</b>{_t(w)}</li>" for w in report.warnings]
    return f'<ul class="notes">{"".join(lines)}</ul>' if lines else ""


def _tiles(report: InspectReport) -> str:
    tiles: list[tuple[str, str, str]] = []
    by = " · ".join(f"{name} {count:,}" for name, count in list(report.samples.items())[:3])
    if report.kind == "data":
        tiles.append(("Samples", f"{report.total:,}", by))
        tiles.append(
            ("On disk", size_text(report.bytes), f"{size_text(report.bytes / max(1, report.total))} a sample")
        )
    else:
        tiles.append(
            (
                "Usable intervals",
                f"{report.total:,}",
                f"in {len(report.samples):,} clip{'s' * (len(report.samples) != 1)}",
            )
        )
    if report.sizes:
        size = max(report.sizes, key=lambda s: report.sizes[s])
        more = len(report.sizes) - 1
        tiles.append(
            ("Picture size", size, f"and {more} other size{'s' * (more != 1)}" if more else "all alike")
        )
    unit = "px" if report.kind == "data" else "px/frame"
    for name, values in (("Median motion", report.extent_median), ("Fastest 5 %", report.extent_p95)):
        v = values[np.isfinite(values)]
        if v.size:
            tiles.append((name, f"{number(float(np.median(v)), 2)} {unit}", _middle(v)))
    if report.scores.size:
        tiles.append(
            (
                "Quality score",
                number(float(np.median(report.scores)), 3),
                f"lowest {number(float(report.scores.min()), 3)}",
            )
        )
    rejected = sum(report.rejects.values())
    tiles.append(("Rejected", f"{rejected:,}", report.rejects_of))
    cells = (
        f'<div class="tile"><dt>{_t(n)}</dt><dd>{_t(v)}<small>{_t(s)}</small></dd></div>' for n, v, s in tiles
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def _middle(values: np.ndarray) -> str:
    low, high = np.percentile(values, [5, 95])
    return f"most within {number(low, 2)}–{number(high, 2)}"


def _facts(report: InspectReport) -> str:
    two = [
        _hist(report, report.extent_median, "", "Median of the picture", "median_of"),
        _hist(report, report.extent_p95, " two", "Fastest 5 % of the picture", "p95"),
    ]
    left = f'<section class="panel w7"><h2>{_t(report.extent_name)}</h2>{"".join(two)}</section>'
    table = _table(report.columns, report.rows, "Splits" if report.kind == "data" else "Clips")
    right = f'<section class="panel w5 stack">{table}{_rejects(report)}{_flags(report)}</section>'
    return f'<div class="facts">{left}{right}{_recipe(report)}</div>'


def _table(columns: list[str], rows: list[list[str]], title: str) -> str:
    def line(tag: str, cells: Iterable[str]) -> str:
        return "".join(f"<{tag}{' class=n' if i else ''}>{_t(c)}</{tag}>" for i, c in enumerate(cells))

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows[:60])
    more = f'<p class="soft">and {len(rows) - 60} more</p>' if len(rows) > 60 else ""
    return f'<div><h2>{_t(title)}</h2><div class="scroll"><table><thead><tr>{line("th", columns)}</tr></thead><tbody>{body}</tbody></table></div>{more}</div>'


def _rejects(report: InspectReport) -> str:
    return _counts(
        report.rejects, "Rejected", "Reason", report.rejects_of.capitalize(), "No rejects are recorded."
    )


def _flags(report: InspectReport) -> str:
    return _counts(report.flags, "Quality flags", "Flag", "Samples", "") if report.flags else ""


def _counts(counts: dict[str, int], title: str, what: str, of: str, none: str) -> str:
    if not counts:
        return f'<div><h2>{_t(title)}</h2><p class="soft">{_t(none)}</p></div>'
    ordered = sorted(counts.items(), key=lambda kv: -kv[1])
    peak = ordered[0][1]
    rows = "".join(
        f'<tr><td>{_t(name)}<span class="bar" style="width:{100 * count / peak:.1f}%"></span></td><td class="n">{count:,}</td></tr>'
        for name, count in ordered[:24]
    )
    if len(ordered) > 24:
        rows += f'<tr><td>{len(ordered) - 24} more</td><td class="n">{sum(c for _, c in ordered[24:]):,}</td></tr>'
    return f'<div><h2>{_t(title)}</h2><table><thead><tr><th>{_t(what)}</th><th class="n">{_t(of)}</th></tr></thead><tbody>{rows}</tbody></table></div>'


def _recipe(report: InspectReport) -> str:
    if not report.recipe and not report.recipe_sha256:
        return ""
    entries = [("sha256", report.recipe_sha256[:16] or "unknown")]
    entries += [
        (str(k), "on" if v is True else "off" if v is False else v if v != "" else "–")
        for k, v in report.recipe.items()
        if k not in ("name", "src")
    ]
    cells = "".join(f"<div><dt>{_t(k)}</dt><dd>{_t(v)}</dd></div>" for k, v in entries[:80])
    return f'<section class="panel w12"><h2>Recipe{": " + _t(report.recipe_name) if report.recipe_name else ""}</h2><dl class="recipe">{cells}</dl></section>'


def _hist(report: InspectReport, values: np.ndarray, style: str, title: str, which: str) -> str:
    hist = histogram(values)
    caption = f'<figcaption><span>{_t(title)}, {_t(report.extent_unit)}</span><span class="soft">{_t(spread(values))}</span></figcaption>'
    if hist is None:
        return f'<figure class="hist">{caption}<p class="soft">Not recorded.</p></figure>'
    shown = [card.extent for card in report.cards] if which == "p95" else []
    return f'<figure class="hist{style}">{caption}{_bars(hist, shown, f"{title}: {spread(values)}")}</figure>'


def _bars(hist: Histogram, shown: list[float], label: str) -> str:
    """Inline SVG of a histogram; small triangles under the axis mark the samples that are shown below."""
    width, height, left, base = 720.0, 176.0, 6.0, 144.0
    n, peak = len(hist.counts), max(1, int(hist.counts.max()))
    step = (width - 2 * left) / n
    out = [f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{_t(label)}">']
    for i, count in enumerate(hist.counts):
        bar = max(1.5, count / peak * (base - 18)) if count else 0
        span = (
            f"{number(hist.edges[i])} and above"
            if hist.open_end and i == n - 1
            else f"{number(hist.edges[i])} to {number(hist.edges[i + 1])} px"
        )
        x = left + i * step
        out.append(
            f'<g><title>{span}: {count:,}</title><rect class="bars" x="{x + 1:.1f}" y="{base - bar:.1f}" width="{step - 2:.1f}" height="{bar:.1f}" rx="1.5"/>'
        )
        if count and n <= 24:
            out.append(
                f'<text x="{x + step / 2:.1f}" y="{base - bar - 4:.1f}" text-anchor="middle">{count:,}</text>'
            )
        out.append("</g>")
    out.append(f'<path class="axis" d="M{left} {base + 0.5}H{width - left}"/>')
    every = max(1, -(-n // 9))
    for i in range(0, n + 1, every):
        text = number(hist.edges[i]) + ("+" if hist.open_end and i == n else "")
        anchor = "start" if i == 0 else "end" if i == n else "middle"
        out.append(
            f'<text x="{left + i * step:.1f}" y="{height - 8:.0f}" text-anchor="{anchor}">{text}</text>'
        )
    top = hist.edges[-1]
    for extent in shown:
        if np.isfinite(extent):
            x = left + min(extent / top, 1) * (width - 2 * left)
            out.append(f'<path class="shown" d="M{x:.1f} {base + 3}l3.5 6h-7z"/>')
    return "".join(out) + "</svg>"


def _samples(report: InspectReport) -> str:
    pictures = encode_cards(report.cards)
    noun = "samples" if report.kind == "data" else "moments"
    strip = "".join(
        f'<a href="#s{i}"><img src="{p.thumb}" alt="">{_t(c.rank.replace("stronger than ", "").replace("rejected: ", ""))}</a>'
        for i, (c, p) in enumerate(zip(report.cards, pictures))
    )
    cards = "".join(_card(c, p, i) for i, (c, p) in enumerate(zip(report.cards, pictures)))
    rejected = sum(c.rejected for c in report.cards)
    kept = len(report.cards) - rejected
    title = f"{kept} {noun if kept != 1 else noun[:-1]}, weakest to strongest" if kept else ""
    if rejected:
        title += f"{', and ' if kept else ''}{rejected} rejected interval{'s' * (rejected != 1)}"
    ranked = f'<span class="soft">Ordered by {_t(report.ranked_by)}</span>' if report.ranked_by else ""
    return (
        f'<div class="section"><h2>{_t(title)}</h2>{ranked}</div>'
        f'<nav class="strip" aria-label="{noun}">{strip}</nav>{_legend(report)}'
        f'<div class="toolbar"><span>All {noun}</span>{_modes(report.cards[0])}</div>{cards}'
    )


def _legend(report: InspectReport) -> str:
    top = 255 / DIFFERENCE_GAIN
    ticks = "".join(
        f"<span>{t}</span>" for t in ("0", number(top / 2, 2), f"{number(top, 2)} and more of 255")
    )
    keys = " ".join(f"<kbd>{k}</kbd> {name}" for k, name in _keys(report.cards[0]))
    return (
        f'<div class="panel legend"><img class="wheel" src="{wheel_uri()}" alt="Colour wheel: right is red, down yellow, left cyan, up violet">'
        "<p><b>Flow colours</b>Colour is where things go, as on the wheel; paleness is rest. The speed at the rim is written on each picture.</p>"
        f'<div class="ramp"><b>Difference, × {DIFFERENCE_GAIN}</b><img src="{ramp_uri()}" alt=""><span>{ticks}</span></div>'
        f"<p class='keys'><b>Keys</b>{keys} <kbd>J</kbd> <kbd>K</kbd> next, previous <kbd>←</kbd> <kbd>→</kbd> divider</p></div>"
    )


def _keys(card: Card) -> list[tuple[str, str]]:
    return [
        ("C", "compare"),
        *((str(i + 1), name.lower()) for i, (name, _) in enumerate(card.layers)),
        ("F", "flicker"),
    ]


def _modes(card: Card) -> str:
    modes = [
        ("compare", "Compare"),
        *((str(i), name) for i, (name, _) in enumerate(card.layers)),
        ("flicker", "Flicker"),
    ]
    buttons = (
        f'<button type="button" data-mode="{m}" aria-pressed="{"true" if m == "compare" else "false"}">{_t(n)}</button>'
        for m, n in modes
    )
    return f'<div class="modes" role="group" aria-label="View">{"".join(buttons)}</div>'


def _card(card: Card, pictures: CardPictures, number_: int) -> str:
    h, w = card.layers[0][1].shape[:2]
    style = (" tall" if h > 1.15 * w else "") + (" rejected" if card.rejected else "")
    (left, _), (right, _) = card.layers[:2]
    layers = "".join(
        f'<img class="l{i}" data-name="{_t(name)}" src="{uri}" alt="{_t(name)}" draggable="false">'
        for i, ((name, _), uri) in enumerate(zip(card.layers, pictures.layers))
    )
    chips = f'<span class="chip rank">{_t(card.rank)}</span>'
    chips += "".join(f'<span class="chip">{_t(c)}</span>' for c in (card.split, card.size) if c)
    flags = "".join(f'<span class="chip flag">{_t(f)}</span>' for f in card.flags[:12])
    meta = "".join(f"<div><dt>{_t(k)}</dt><dd>{_t(v)}</dd></div>" for k, v in card.facts)
    head = f'<header>{chips}<h3 class="mono">{_t(card.title)}</h3>{flags}{_modes(card)}</header>'
    stage = (
        f'<div class="stage" data-mode="compare" data-flicker="{card.flicker[0]},{card.flicker[1]}">{layers}'
        f'<span class="tag l">{_t(left)}</span><span class="tag r">{_t(right)}</span><div class="divider"></div>'
        f'<input type="range" min="0" max="100" step="0.5" value="50" aria-label="Divider between {_t(left)} and {_t(right)} of {_t(card.title)}"></div>'
    )
    difference = (
        f'<figure><img src="{pictures.difference}" alt="Difference">'
        f'<figcaption class="tag l">Difference × {DIFFERENCE_GAIN} {_t(card.difference_of)}</figcaption></figure>'
    )
    return (
        f'<article class="panel sample{style}" id="s{number_}" style="--ar:{w}/{h}">{head}<div class="body">'
        f'<div class="pictures">{stage}<div class="side">{_flow(card, pictures)}{difference}</div></div>'
        f'<dl class="meta">{meta}</dl></div></article>'
    )


def _flow(card: Card, pictures: CardPictures) -> str:
    if pictures.flow is None or card.flow is None:
        return f'<figure><div class="none"><b>No flow to show</b>{_t(card.flow_note)}</div></figure>'
    rim = number(flow_rim(card.flow), 2)
    h, w = card.layers[0][1].shape[:2]
    whole = (
        "" if panel_size(card.flow, w, h) == (w, h) else ' class="whole"'
    )  # never trim another picture's shape
    return (
        f'<figure><img{whole} src="{pictures.flow}" alt="Flow colours, {_t(card.flow_note)}">'
        f'<figcaption class="tag l">Flow, rim {rim} px/frame</figcaption></figure>'
    )
