"""The preview as one HTML file: nothing is fetched, nothing from the data is markup.

Every string passes ``html.escape`` where it enters the page; the content security policy is a second lock: no
request of any kind, no script but the one written here (by its hash).
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib import resources

from blursynth.preview.facts import facts, safe, tiles
from blursynth.preview.pictures import (
    DIFFERENCE_GAIN,
    CardPictures,
    encode_cards,
    flow_rim,
    panel_size,
    ramp_uri,
    wheel_uri,
)
from blursynth.preview.report import Card, InspectReport, number


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
        f"<title>{safe(report.target)} – blursynth inspect</title><style>{css}</style></head><body><main>",
        f'<header class="top"><div><p class="kicker">blursynth inspect · {kind}</p><h1>{safe(report.target)}</h1>',
        f'<p class="headline">{safe(report.headline)}</p></div><button class="theme" type="button">Light / dark</button></header>',
        _notes(report),
        tiles(report),
        facts(report),
        _samples(report),
        f"<footer>{safe(_origin())}</footer></main><script>{script}</script></body></html>\n",
    ]
    return "\n".join(parts)


def _asset(name: str) -> str:
    return (resources.files("blursynth.preview") / "assets" / name).read_text(encoding="utf-8")


def _origin() -> str:
    from blursynth import __version__

    return f"Written by blursynth {__version__}. This page loads nothing from anywhere."


def _notes(report: InspectReport) -> str:
    lines = [f'<li class="bad"><b>Damaged</b>{safe(d)}</li>' for d in report.damaged[:30]]
    if len(report.damaged) > 30:
        lines.append(f'<li class="bad"><b>Damaged</b>and {len(report.damaged) - 30} more</li>')
    lines += [f"<li><b>Note</b>{safe(w)}</li>" for w in report.warnings]
    return f'<ul class="notes">{"".join(lines)}</ul>' if lines else ""


def _samples(report: InspectReport) -> str:
    pictures = encode_cards(report.cards)
    noun = "samples" if report.kind == "data" else "moments"
    strip = "".join(
        f'<a href="#s{i}"><img src="{p.thumb}" alt="">{safe(c.rank.replace("stronger than ", "").replace("rejected: ", ""))}</a>'
        for i, (c, p) in enumerate(zip(report.cards, pictures))
    )
    cards = "".join(_card(c, p, i) for i, (c, p) in enumerate(zip(report.cards, pictures)))
    rejected = sum(c.rejected for c in report.cards)
    kept = len(report.cards) - rejected
    title = f"{kept} {noun if kept != 1 else noun[:-1]}, weakest to strongest" if kept else ""
    if rejected:
        title += f"{', and ' if kept else ''}{rejected} rejected interval{'s' * (rejected != 1)}"
    ranked = f'<span class="soft">Ordered by {safe(report.ranked_by)}</span>' if report.ranked_by else ""
    return (
        f'<div class="section"><h2>{safe(title)}</h2>{ranked}</div>'
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
        f'<button type="button" data-mode="{m}" aria-pressed="{"true" if m == "compare" else "false"}">{safe(n)}</button>'
        for m, n in modes
    )
    return f'<div class="modes" role="group" aria-label="View">{"".join(buttons)}</div>'


def _card(card: Card, pictures: CardPictures, number_: int) -> str:
    h, w = card.layers[0][1].shape[:2]
    style = (" tall" if h > 1.15 * w else "") + (" rejected" if card.rejected else "")
    (left, _), (right, _) = card.layers[:2]
    layers = "".join(
        f'<img class="l{i}" data-name="{safe(name)}" src="{uri}" alt="{safe(name)}" draggable="false">'
        for i, ((name, _), uri) in enumerate(zip(card.layers, pictures.layers))
    )
    chips = f'<span class="chip rank">{safe(card.rank)}</span>'
    chips += "".join(f'<span class="chip">{safe(c)}</span>' for c in (card.split, card.size) if c)
    flags = "".join(f'<span class="chip flag">{safe(f)}</span>' for f in card.flags[:12])
    meta = "".join(f"<div><dt>{safe(k)}</dt><dd>{safe(v)}</dd></div>" for k, v in card.facts)
    head = f'<header>{chips}<h3 class="mono">{safe(card.title)}</h3>{flags}{_modes(card)}</header>'
    stage = (
        f'<div class="stage" data-mode="compare" data-flicker="{card.flicker[0]},{card.flicker[1]}">{layers}'
        f'<span class="tag l">{safe(left)}</span><span class="tag r">{safe(right)}</span><div class="divider"></div>'
        f'<input type="range" min="0" max="100" step="0.5" value="50" aria-label="Divider between {safe(left)} and {safe(right)} of {safe(card.title)}"></div>'
    )
    difference = (
        f'<figure><img src="{pictures.difference}" alt="Difference">'
        f'<figcaption class="tag l">Difference × {DIFFERENCE_GAIN} {safe(card.difference_of)}</figcaption></figure>'
    )
    return (
        f'<article class="panel sample{style}" id="s{number_}" style="--ar:{w}/{h}">{head}<div class="body">'
        f'<div class="pictures">{stage}<div class="side">{_flow(card, pictures)}{difference}</div></div>'
        f'<dl class="meta">{meta}</dl></div></article>'
    )


def _flow(card: Card, pictures: CardPictures) -> str:
    if pictures.flow is None or card.flow is None:
        return f'<figure><div class="none"><b>No flow to show</b>{safe(card.flow_note)}</div></figure>'
    rim = number(flow_rim(card.flow), 2)
    h, w = card.layers[0][1].shape[:2]
    whole = (
        "" if panel_size(card.flow, w, h) == (w, h) else ' class="whole"'
    )  # never trim another picture's shape
    return (
        f'<figure><img{whole} src="{pictures.flow}" alt="Flow colours, {safe(card.flow_note)}">'
        f'<figcaption class="tag l">Flow, rim {rim} px/frame</figcaption></figure>'
    )
