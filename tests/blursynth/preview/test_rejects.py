"""What `inspect` shows of windows that were left out: one of each reason, in pictures, by what was measured."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from blursynth.preview.inspect import inspect
from blursynth.preview.terminal import print_report
from blursynth.recipe import Recipe
from blursynth.run.make import make
from tests.blursynth.preview.test_source import write_frames


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path]:
    """A pan whose speed a gate does not like in two windows, with a frame that repeats and one that is broken."""
    tmp = tmp_path_factory.mktemp("made")
    speeds = [1] * 9 + [3] * 9 + [4] * 9 + [1] * 18
    film = write_frames(tmp / "src" / "pan", speeds)
    (film / "000032.png").write_bytes((film / "000031.png").read_bytes())
    (film / "000039.png").write_bytes(b"broken")
    recipe = Recipe(interp="dis", gate="p95_px<2", window="9", fps=240.0)
    make(tmp / "src", tmp / "data", recipe, quiet=True, workers=1)
    return tmp / "src", tmp / "data"


def by_reason(report):
    return {c.rank.removeprefix("left out: "): c for c in report.left_out}


def test_one_window_of_each_reason_with_figure_limit_and_pictures(made, tmp_path):
    report = inspect(made[1], tmp_path / "p.html")
    assert report.rejects == {"gate:p95_px": 2, "duplicate": 1, "unreadable": 1} and report.total == 1
    cards = by_reason(report)
    assert list(cards) == list(report.rejects), "the commonest first"

    gate = cards["gate:p95_px"]
    assert [name for name, _ in gate.layers] == ["Blurred", "Sharp"] and "kept: < 2" in gate.says
    assert dict(gate.facts)["Left out for this reason"] == "2"
    low, high = (float(v) for v in dict(gate.facts)["p95_px of all 2"].split(" to "))
    assert low == pytest.approx(3, abs=0.3) and high == pytest.approx(4, abs=0.4)
    (_, blur), (_, sharp) = gate.layers
    target = int(gate.title.split("_")[1]) + 4
    assert np.array_equal(sharp, cv2.imread(str(made[0] / "pan" / f"{target:06d}.png"))[..., ::-1])
    across = (
        np.abs(np.diff(blur.astype(int), axis=1)).mean() / np.abs(np.diff(sharp.astype(int), axis=1)).mean()
    )
    assert across < 0.5, "the pair that was thrown away, blur of some 25 px"

    twice = cards["duplicate"]
    assert [name for name, _ in twice.layers] == ["Frame 31", "Frame 32"] and "Frame 32 repeats" in twice.says
    assert "changes by 0 of 255" in twice.says and np.all(twice.difference == 0)
    broken = cards["unreadable"]
    assert [name for name, _ in broken.layers] == ["Frame 38", "Frame 40"]
    html = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert html.index("weakest to strongest") < html.index("one of each reason") < html.index("<h2>Figures")


def test_each_clip_has_its_own_row(made, tmp_path):
    (table,) = (t for t in inspect(made[1], tmp_path / "p.html").tables if t.title == "Clips")
    row = dict(zip(table.columns, table.rows[0]))
    assert row["Clip"] == "pan" and row["Samples kept"] == "1" and row["fps"] == "240"
    assert row["Left out"] == "gate:p95_px 2, duplicate 1, unreadable 1"
    assert [float(v) for v in row["motion px"].split(" / ")] == pytest.approx([1, 1], abs=0.2)
    assert len(table.rows) == 1 and set(table.terms) == {"motion px", "blur px", "noise"}


@pytest.mark.parametrize("what", ["gone", "changed"])
def test_without_its_source_a_plain_sentence_stands_there(made, tmp_path, what):
    data = tmp_path / "data"
    data.mkdir()
    for path in made[1].iterdir():
        if path.is_file():
            (data / path.name).write_bytes(path.read_bytes())
    log = json.loads((data / "run.jsonl").read_text().splitlines()[0])
    if what == "changed":
        write_frames(tmp_path / "elsewhere" / "pan", [2] * 45, seed=5)
    log["src"] = [str(tmp_path / "elsewhere")]
    (data / "run.jsonl").write_text(json.dumps(log) + "\n")
    report = inspect(data, tmp_path / "p.html")
    assert len(report.cards) == 1 and report.exit_code == 0
    for card in report.left_out:
        why = "not among" if what == "gone" else "not those the sample was made from"
        assert not card.layers and "No picture: " in card.says and why in card.says
    assert "kept: < 2" in by_reason(report)["gate:p95_px"].says, (
        "the record says what was measured all the same"
    )


def test_a_set_of_which_all_was_left_out_is_shown(made, tmp_path):
    make(
        made[0], tmp_path / "data", Recipe(interp="dis", gate="p95_px<0.1", window="9", fps=240.0), quiet=True
    )
    assert not list((tmp_path / "data").glob("*.tar"))
    report = inspect(tmp_path / "data", tmp_path / "p.html")
    assert not report.cards and report.exit_code == 1 and by_reason(report)["gate:p95_px"].layers
    assert any("no sample was kept" in w for w in report.warnings) and report.png.stat().st_size < 3_000_000
    console = Console(record=True, width=200, file=io.StringIO())
    print_report(report, console)
    lines = console.export_text().splitlines()
    assert any(line.startswith("Left out  ") for line in lines), "what is known is told"
    assert not any(line.startswith(("Pictures", "Score", "Flags")) for line in lines), (
        "no row without a figure"
    )


@pytest.mark.parametrize(
    "row",
    [
        {"clip": "../../etc/passwd", "reason": "cut", "values": {"frame": 3}},
        {"clip": "pan", "reason": "<script>", "first": -5, "last": 1e30, "values": {"frame": 1e12}},
        {"clip": "pan", "reason": "gate:x", "first": "a", "key": ["k"], "values": [1]},
        {"clip": 3, "reason": None},
    ],
)
def test_a_hostile_sidecar_gives_a_sentence_at_most(made, tmp_path, row):
    data = tmp_path / "data"
    data.mkdir()
    for path in made[1].iterdir():
        if path.is_file():
            (data / path.name).write_bytes(path.read_bytes())
    for n, side in enumerate(sorted(data.glob("train-*.json"))):
        told = json.loads(side.read_text())
        told["left_out"] = [] if n else [row, 7, None]
        told["counts"]["rejected"] = {} if n else {str(row["reason"]): 2}
        side.write_text(json.dumps(told))
    report = inspect(data, tmp_path / "p.html")
    (card,) = report.left_out
    assert "No picture" in card.says or card.layers or "no picture" in card.says
    assert "<script>" not in (tmp_path / "p.html").read_text(encoding="utf-8").split("<script>", 1)[0]


def test_every_reason_has_a_meaning():
    from blursynth.pairs.quality import NAMES
    from blursynth.preview.report import words

    assert set(NAMES) <= words("terms").keys()
    reasons = {"cut", "duplicate", "gap", "rate", "size", "decode", "truncated", "unreadable", "interlaced"}
    assert reasons | {"blur_px", "readout_ms", "soft", "too small", "unusable"} == words("reasons").keys()
