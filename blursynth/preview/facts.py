"""The upper part of the preview page: tiles, histograms, tables and the recipe, as HTML."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

import numpy as np

from blursynth.preview.report import Histogram, InspectReport, histogram, number, size_text, spread

_MAX_TEXT = 300  # of any one string from the data; a longer one is cut, not laid out


def safe(text: object) -> str:
    """Any value from the data as safe, bounded text."""
    plain = str(text)
    plain = plain if len(plain) <= _MAX_TEXT else plain[: _MAX_TEXT - 1] + "…"
    # Control and direction-changing characters would let a name disguise itself or its surroundings.
    return escape("".join(c if c.isprintable() else "�" for c in plain), quote=True)


def tiles(report: InspectReport) -> str:
    shown: list[tuple[str, str, str]] = []
    by = " · ".join(f"{name} {count:,}" for name, count in list(report.samples.items())[:3])
    if report.kind == "data":
        shown.append(("Samples", f"{report.total:,}", by))
        shown.append(
            ("On disk", size_text(report.bytes), f"{size_text(report.bytes / max(1, report.total))} a sample")
        )
    else:
        shown.append(
            (
                "Usable intervals",
                f"{report.total:,}",
                f"in {len(report.samples):,} clip{'s' * (len(report.samples) != 1)}",
            )
        )
    if report.sizes:
        size = max(report.sizes, key=lambda s: report.sizes[s])
        more = len(report.sizes) - 1
        shown.append(
            ("Picture size", size, f"and {more} other size{'s' * (more != 1)}" if more else "all alike")
        )
    unit = "px" if report.kind == "data" else "px/frame"
    for name, values in (("Median motion", report.extent_median), ("Fastest 5 %", report.extent_p95)):
        v = values[np.isfinite(values)]
        if v.size:
            shown.append((name, f"{number(float(np.median(v)), 2)} {unit}", _middle(v)))
    if report.scores.size:
        shown.append(
            (
                "Quality score",
                number(float(np.median(report.scores)), 3),
                f"lowest {number(float(report.scores.min()), 3)}",
            )
        )
    rejected = sum(report.rejects.values())
    shown.append(("Rejected", f"{rejected:,}", report.rejects_of))
    cells = (
        f'<div class="tile"><dt>{safe(n)}</dt><dd>{safe(v)}<small>{safe(s)}</small></dd></div>'
        for n, v, s in shown
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def _middle(values: np.ndarray) -> str:
    low, high = np.percentile(values, [5, 95])
    return f"most within {number(low, 2)}–{number(high, 2)}"


def facts(report: InspectReport) -> str:
    two = [
        _hist(report, report.extent_median, "", "Median of the picture", "median_of"),
        _hist(report, report.extent_p95, " two", "Fastest 5 % of the picture", "p95"),
    ]
    left = f'<section class="panel w7"><h2>{safe(report.extent_name)}</h2>{"".join(two)}</section>'
    table = _table(report.columns, report.rows, "Splits" if report.kind == "data" else "Clips")
    right = f'<section class="panel w5 stack">{table}{_rejects(report)}{_flags(report)}</section>'
    return f'<div class="facts">{left}{right}{_recipe(report)}</div>'


def _table(columns: list[str], rows: list[list[str]], title: str) -> str:
    def line(tag: str, cells: Iterable[str]) -> str:
        return "".join(f"<{tag}{' class=n' if i else ''}>{safe(c)}</{tag}>" for i, c in enumerate(cells))

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows[:60])
    more = f'<p class="soft">and {len(rows) - 60} more</p>' if len(rows) > 60 else ""
    return f'<div><h2>{safe(title)}</h2><div class="scroll"><table><thead><tr>{line("th", columns)}</tr></thead><tbody>{body}</tbody></table></div>{more}</div>'


def _rejects(report: InspectReport) -> str:
    return _counts(
        report.rejects, "Rejected", "Reason", report.rejects_of.capitalize(), "No rejects are recorded."
    )


def _flags(report: InspectReport) -> str:
    return _counts(report.flags, "Quality flags", "Flag", "Samples", "") if report.flags else ""


def _counts(counts: dict[str, int], title: str, what: str, of: str, none: str) -> str:
    if not counts:
        return f'<div><h2>{safe(title)}</h2><p class="soft">{safe(none)}</p></div>'
    ordered = sorted(counts.items(), key=lambda kv: -kv[1])
    peak = ordered[0][1]
    rows = "".join(
        f'<tr><td>{safe(name)}<span class="bar" style="width:{100 * count / peak:.1f}%"></span></td><td class="n">{count:,}</td></tr>'
        for name, count in ordered[:24]
    )
    if len(ordered) > 24:
        rows += f'<tr><td>{len(ordered) - 24} more</td><td class="n">{sum(c for _, c in ordered[24:]):,}</td></tr>'
    return f'<div><h2>{safe(title)}</h2><table><thead><tr><th>{safe(what)}</th><th class="n">{safe(of)}</th></tr></thead><tbody>{rows}</tbody></table></div>'


def _recipe(report: InspectReport) -> str:
    if not report.recipe and not report.recipe_sha256:
        return ""
    entries = [("sha256", report.recipe_sha256[:16] or "unknown")]
    entries += [
        (str(k), "on" if v is True else "off" if v is False else v)
        for k, v in report.recipe.items()
        if k not in ("name", "src") and v not in ("", None)
    ]
    cells = "".join(f"<div><dt>{safe(k)}</dt><dd>{safe(v)}</dd></div>" for k, v in entries[:80])
    return f'<section class="panel w12"><h2>Recipe{": " + safe(report.recipe_name) if report.recipe_name else ""}</h2><dl class="recipe">{cells}</dl></section>'


def _hist(report: InspectReport, values: np.ndarray, style: str, title: str, which: str) -> str:
    hist = histogram(values)
    caption = f'<figcaption><span>{safe(title)}, {safe(report.extent_unit)}</span><span class="soft">{safe(spread(values))}</span></figcaption>'
    if hist is None:
        return f'<figure class="hist">{caption}<p class="soft">Not recorded.</p></figure>'
    shown = [card.extent for card in report.cards] if which == "p95" else []
    return f'<figure class="hist{style}">{caption}{_bars(hist, shown, f"{title}: {spread(values)}")}</figure>'


def _bars(hist: Histogram, shown: list[float], label: str) -> str:
    """Inline SVG of a histogram; small triangles under the axis mark the samples that are shown below."""
    width, height, left, base = 720.0, 176.0, 6.0, 144.0
    n, peak = len(hist.counts), max(1, int(hist.counts.max()))
    step = (width - 2 * left) / n
    out = [f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{safe(label)}">']
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
