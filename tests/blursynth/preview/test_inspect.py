"""`blursynth inspect` on shards: honest figures, the right samples, and no trust in what a shard holds."""

import importlib
import io
import json
import re
import tarfile
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from blursynth.common.text import number
from blursynth.pairs.flow_thumb import encode_flow_thumb
from blursynth.preview.inspect import InspectError, inspect, print_report
from blursynth.preview.page import page
from blursynth.preview.pictures import DIFFERENCE_GAIN, difference_colours, encode_cards
from blursynth.preview.report import Card, histogram, pick_ranks, rank_name
from blursynth.shards.picture import encode_flow, encode_mask
from blursynth.shards.picture import image_size as picture_size


def picture(seed: int, h: int = 36, w: int = 64) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 16, 3), np.uint8)
    return cv2.resize(coarse, (w, h))


def encode(rgb: np.ndarray, ext: str = ".png") -> bytes:
    flags = [cv2.IMWRITE_WEBP_QUALITY, 101] if ext == ".webp" else []
    return cv2.imencode(ext, rgb[..., ::-1], flags)[1].tobytes()


def meta(key: str, p95: float | None = 2.0, clip: str = "clip", **more) -> dict:
    flow = {} if p95 is None else {"median_px": p95 / 4, "p95_px": p95, "max_px": p95 * 2}
    return {
        "schema": 1,
        "key": key,
        "recipe_sha256": "c0ffee" * 10,
        "source": {
            "dataset": None,
            "clip": clip,
            "path": f"{clip}.mp4",
            "fps": 240.0,
            "first": 0,
            "last": 8,
            "target": 4,
        },
        "exposure": {"window": 9, "stride": 9, "interp": "dis", "shutter_ms": 1000 * 8 / 240, "duty": 8 / 9},
        "flow": flow,
        "quality": {"score": 0.9, "flags": []},
        **more,
    }


def sample(key: str, p95: float | None = 2.0, clip: str = "clip", **more) -> list[tuple[str, bytes]]:
    sharp = picture(1)
    blur = cv2.GaussianBlur(sharp, (0, 0), 1 + (p95 or 1))
    return [
        (f"{key}.blur.png", encode(blur)),
        (f"{key}.sharp.png", encode(sharp)),
        (f"{key}.json", json.dumps(meta(key, p95, clip, **more)).encode()),
    ]


def write_tar(path: Path, members: list[tuple[str, bytes]], extra: list[tarfile.TarInfo] = ()) -> Path:
    with tarfile.open(path, "w") as tar:
        for info in extra:
            tar.addfile(info)
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_side(tar: Path, samples: int, rejected: dict[str, int]) -> None:
    side = {
        "schema": 1,
        "samples": samples,
        "bytes": tar.stat().st_size,
        "counts": {"written": samples, "rejected": rejected},
    }
    tar.with_suffix(".json").write_text(json.dumps(side))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """21 train samples of rising blur in two shards, 2 of val, with sidecars."""
    folder = tmp_path / "data"
    folder.mkdir()
    keys = [(f"a_{i:03d}", float(i)) for i in range(21)]
    np.random.default_rng(0).shuffle(keys)
    keys = [(k, float(v)) for k, v in keys]
    for shard, part in enumerate((keys[:11], keys[11:])):
        tar = write_tar(folder / f"train-{shard:06d}.tar", [m for k, v in part for m in sample(k, v)])
        write_side(tar, len(part), {"cut": 2, "duplicate": shard})
    tar = write_tar(folder / "val-000000.tar", sample("v_000", 7.2, "other") + sample("v_001", 9.3, "other"))
    write_side(tar, 2, {})
    (folder / "dataset.json").write_text(json.dumps({"schema": 1, "complete": True, "splits": {}}))
    (folder / "recipe.toml").write_text('name = "gopro"\ninterp = "dis"\n')
    return folder


def run(target: Path, tmp_path: Path, samples: int = 5):
    report = inspect(target, tmp_path / "out" / "preview.html", samples)
    return report, report.html.read_text(encoding="utf-8")


# Which samples


def test_ranks_hold_the_weakest_the_median_and_the_strongest_evenly_spread():
    for n in (17, 100, 1001):
        for count in (3, 4, 8, 16):
            picks = pick_ranks(["train"] * n, count)
            assert len(picks) == count and picks == sorted(set(picks))
            assert {0, (n - 1) // 2, n - 1} <= set(picks)
            gaps = np.diff(picks)
            assert gaps.max() <= 2 * n / (count - 1)
    assert pick_ranks(["train"] * 9, 1) == [4]
    assert pick_ranks(["train"] * 3, 16) == [0, 1, 2]


def test_a_small_split_is_shown_too_and_the_ends_stay():
    splits = ["train"] * 200
    splits[150] = "val"
    picks = pick_ranks(splits, 6)
    assert 150 in picks and {0, 99, 199} <= set(picks) and len(picks) == 6
    assert [rank_name(p, 200) for p in (0, 99, 199)] == ["weakest", "median", "strongest"]


def test_cards_go_from_the_weakest_to_the_strongest_blur(data, tmp_path):
    report, html = run(data, tmp_path, 5)
    assert next(c.rank for c in report.cards) == "weakest" and report.cards[-1].rank == "strongest"
    assert report.cards[0].title == "a_000" and report.cards[-1].title == "a_020"
    extents = [c.extent for c in report.cards]
    assert extents == sorted(extents) and extents[-1] == pytest.approx(20 * 8)  # px/frame x 8 intervals
    assert any(c.split == "val" for c in report.cards)
    assert report.samples == {"train": 21, "val": 2} and report.rejects == {"cut": 4, "duplicate": 1}
    assert report.recipe_name == "gopro" and not report.warnings and report.exit_code == 0
    assert "a_020" in html and report.png.stat().st_size > 1000


def test_a_duty_below_one_shortens_the_extent(tmp_path):
    half = meta("a", 4.0)
    half["exposure"]["shutter_ms"] = 1000 * 4 / 240
    members = [*sample("a", 4.0)[:2], ("a.json", json.dumps(half).encode())]
    report, _ = run(write_tar(tmp_path / "train-000000.tar", members), tmp_path)
    assert report.extent_p95[0] == pytest.approx(16)


def test_without_flow_figures_the_picture_sizes_rank(tmp_path):
    members = [m for i, sigma in enumerate((0.5, 6.0, 2.0)) for m in sample(f"k{i}", None)]
    for i, sigma in enumerate((0.5, 6.0, 2.0)):
        members[3 * i] = (f"k{i}.blur.png", encode(cv2.GaussianBlur(picture(1), (0, 0), sigma)))
    report, _ = run(write_tar(tmp_path / "train-000000.tar", members), tmp_path)
    assert [c.title for c in report.cards] == ["k0", "k2", "k1"] and "no flow figures" in report.ranked_by


# Honest pictures


def test_flow_comes_from_the_thumbnail_else_it_is_said_that_there_is_none(tmp_path):
    flow = np.zeros((36, 64, 2), np.float32)
    flow[..., 0] = 5
    with_thumb = sample("a", 5.0)
    doc = meta("a", 5.0)
    doc["flow"] |= encode_flow_thumb(flow)
    with_thumb[2] = ("a.json", json.dumps(doc).encode())
    report, html = run(write_tar(tmp_path / "train-000000.tar", with_thumb + sample("b", 1.0)), tmp_path)
    none, shown = report.cards
    assert none.flow is None and "not stored" in none.flow_note and "No flow to show" in html
    assert (
        shown.flow is not None and np.allclose(shown.flow[..., 0], 5, atol=0.05) and "rim 5 px/frame" in html
    )


def test_difference_is_the_absolute_one_amplified_as_stated():
    a = np.full((8, 8, 3), 100, np.uint8)
    b = a.copy()
    b[2, 3, 1] += 9
    b[5, 5, 2] -= 7
    d = Card("", "", []).show(("a", a), ("b", b)).difference
    assert d[2, 3] == 9 and d[5, 5] == 7 and d.sum() == 16
    ramp = (
        difference_colours(np.array([[0, 255 // DIFFERENCE_GAIN, 255]], np.uint8)).astype(int).sum(axis=2)[0]
    )
    assert ramp[0] < 10 < ramp[1] and abs(ramp[2] - ramp[1]) < 40


def test_pictures_on_the_page_are_rgb_and_of_display_size(tmp_path):
    red = np.zeros((90, 2000, 3), np.uint8)
    red[..., 0] = 220
    members = [
        ("a.blur.png", encode(red)),
        ("a.sharp.png", encode(red)),
        ("a.json", json.dumps(meta("a")).encode()),
    ]
    report, _ = run(write_tar(tmp_path / "train-000000.tar", members), tmp_path)
    assert report.cards[0].layers[0][1].shape == (43, 960, 3)
    assert (report.cards[0].layers[0][1] == (220, 0, 0)).all()
    sheet = cv2.imread(str(report.png))[..., ::-1]
    assert (np.abs(sheet.astype(int) - (220, 0, 0)).max(axis=2) < 3).sum() > 1000


def test_the_page_stays_within_its_budget(data, tmp_path):
    report, _ = run(data, tmp_path, 4)
    full = sum(p.bytes for p in encode_cards(report.cards))
    assert sum(p.bytes for p in encode_cards(report.cards, full - 1)) < full


# Hostile and damaged data


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def test_hostile_names_never_become_markup_and_nothing_is_fetched(tmp_path):
    evil = '"><img src=x onerror=alert(1)><script>alert(2)</script>\u202e\x1b]0;owned\x07'
    doc = meta("k", 3.0, clip=evil)
    doc["quality"] = {"score": evil, "flags": [evil]}
    doc["source"]["dataset"] = evil
    doc["exposure"]["interp"] = evil
    folder = tmp_path / "<b>data"
    folder.mkdir()
    key = "<script>alert(3)<&"  # no path: such a member name is possible in a tar
    members = sample("ok", 1.0) + [
        (key + s, d) for (_, d), s in zip(sample("k"), (".blur.png", ".sharp.png"))
    ]
    tar = write_tar(folder / "train-000000.tar", [*members, (key + ".json", json.dumps(doc).encode())])
    write_side(tar, 2, {evil: 3})
    (folder / "recipe.toml").write_text(f"name = {json.dumps(evil)}\n{json.dumps(evil)} = 1\n")
    report, html = run(folder, tmp_path)
    tags = Tags()
    tags.feed(html)
    assert len(report.cards) == 2 and any("key outside" in w for w in report.warnings)
    assert [t for t, _ in tags.seen].count("script") == 1 and not any("onerror" in a for _, a in tags.seen)
    assert not {"link", "iframe", "object", "b onerror"} & {t for t, _ in tags.seen}
    for _, attrs in tags.seen:
        for name in ("src", "href"):
            assert attrs.get(name, "#").startswith(("data:image/", "#"))
    assert not re.search(r"url\(|@import|https?://", html) and not {"\u202e", "\x1b", "\x07"} & {*html}
    report.target += evil
    assert r"\u202e" in page(report).split("<title>")[1].split("</title>")[0]
    console = Console(file=io.StringIO(), width=400)
    print_report(report, console)
    assert (
        not {"\u202e", "\x1b", "\x07"} & {*console.file.getvalue()}
        and r"\x1b]0;owned\x07" in console.file.getvalue()
    )


def test_a_truncated_shard_is_named_and_counted_and_the_rest_goes_on(data, tmp_path):
    tar = data / "train-000001.tar"
    whole = tar.read_bytes()
    for cut in (len(whole) // 2, len(whole) // 2 // 512 * 512, 700, 100, 0):
        tar.write_bytes(whole[:cut])
        report, html = run(data, tmp_path)
        assert len(report.damaged) == 1 and report.damaged[0].startswith("train-000001.tar: "), cut
        assert report.exit_code == 1
        assert 13 <= report.total < 23 and "train-000001.tar" in html
    tar.write_bytes(np.random.default_rng(0).bytes(5000))
    report, _ = run(data, tmp_path)
    assert report.samples["train"] == 11 and "not a readable tar" in report.damaged[0]


def test_garbage_in_the_middle_of_a_shard_is_not_taken_for_its_end(data, tmp_path):
    tar = data / "train-000000.tar"
    raw = bytearray(tar.read_bytes())
    with tarfile.open(tar) as t:
        at = t.getmembers()[6].offset
    raw[at : at + 512] = b"\xff" * 512
    tar.write_bytes(raw)
    report, _ = run(data, tmp_path)
    assert report.samples["train"] == 12 and "2 whole samples before that" in report.damaged[0]


def test_a_picture_that_cannot_be_decoded_gives_way_to_its_neighbour(tmp_path):
    members = [m for i in range(5) for m in sample(f"k{i}", float(i))]
    members[-3] = ("k4.blur.png", members[-3][1][:60])
    report, _ = run(write_tar(tmp_path / "train-000000.tar", members), tmp_path, 3)
    assert [c.title for c in report.cards][-1] == "k3" and "k4" in report.damaged[0]


def test_links_paths_and_huge_members_are_passed_over_and_nothing_is_extracted(tmp_path):
    extra = []
    for name, kind, target in (
        ("a.blur.png", tarfile.SYMTYPE, "/etc/passwd"),
        ("b.json", tarfile.LNKTYPE, "x"),
        ("d", tarfile.DIRTYPE, ""),
    ):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        extra.append(info)
    folder = tmp_path / "data"
    folder.mkdir()
    members = [
        ("/abs.json", b"{}"),
        ("../up.json", b"{}"),
        ("big.json", b" " * (1 << 20) + b"{}"),
        *sample("ok"),
    ]
    write_tar(folder / "train-000000.tar", members, extra)
    report, _ = run(folder, tmp_path)
    assert report.total == 1 and not report.damaged
    text = " ".join(report.warnings)
    assert "3 × link" in text and "2 × member with a path" in text and "1 × json member larger" in text
    assert (
        sorted(p.name for p in folder.iterdir()) == ["train-000000.tar"]
        and not (tmp_path / "up.json").exists()
    )


def test_a_decompression_bomb_is_not_decoded(tmp_path):
    bomb = bytearray(encode(picture(0)))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    members = [("a.blur.png", bytes(bomb)), *sample("a")[1:], *sample("b")]
    report, _ = run(write_tar(tmp_path / "train-000000.tar", members), tmp_path)
    assert [c.title for c in report.cards] == ["b"] and "60000 x 60000 pixels, more than" in report.damaged[0]


@pytest.mark.parametrize(
    "doc",
    [
        b"",
        b"[1]",
        b"{",
        b"[" * 100_000,
        b'{"schema": 1, "flow": [], "source": 3, "exposure": null, "quality": {"score": 1e999}}',
    ],
)
def test_broken_json_never_ends_the_report(tmp_path, doc):
    members = [*sample("a")[:2], ("a.json", doc), *sample("b")]
    report, _ = run(write_tar(tmp_path / "train-000000.tar", members), tmp_path)
    assert report.total in (1, 2) and "b" in [c.title for c in report.cards]


def test_a_clip_in_two_splits_and_mixed_recipes_are_told(data, tmp_path):
    write_tar(data / "val-000000.tar", sample("v_000", 7.2) + sample("v_001", 9.3, recipe_sha256="0" * 64))
    report, _ = run(data, tmp_path)
    text = " ".join(report.warnings)
    assert "train and val share 1 source clip" in text and "2 different recipes" in text


@pytest.mark.parametrize(
    ("make", "says", "code"),
    [
        (lambda p: None, "no such file", 2),
        (lambda p: p.mkdir(), "no videos|holds no|nothing", 2),
        (lambda p: (p.mkdir(), (p / "dataset.json").write_text("{}")), "no shards", 1),
        (lambda p: (p.mkdir(), (p / "train-000000.tar").write_bytes(b"")), "is empty", 1),
        (lambda p: (p.mkdir(), write_tar(p / "train-000000.tar", [])), "no sample in them", 1),
        (lambda p: (p.mkdir(), write_tar(p / "train-000000.tar", sample("a")[:2])), "incomplete sample", 1),
    ],
)
def test_nothing_to_show_is_one_line(tmp_path, make, says, code):
    make(tmp_path / "x")
    with pytest.raises(InspectError, match=says) as e:
        inspect(tmp_path / "x", tmp_path / "preview.html")
    assert "\n" not in str(e.value) and str(tmp_path / "x") in str(e.value) and e.value.exit_code == code
    assert not (tmp_path / "preview.html").exists()


def test_wrong_calls_are_told(data, tmp_path):
    for kwargs, says in (
        ({"samples": 0}, "at least 1"),
        ({"out": tmp_path / "x.png"}, "must end in .html"),
        ({"out": tmp_path / "data/val-000000.tar/p.html"}, "cannot be written"),
    ):
        with pytest.raises(InspectError, match=says):
            inspect(data, **{"out": tmp_path / "p.html", **kwargs})


def test_a_picture_beside_the_page_is_written_over_only_where_it_is_an_earlier_sheet(data, tmp_path):
    inspect(data, tmp_path / "p.html")
    sheet_bytes = (tmp_path / "p.png").read_bytes()
    inspect(data, tmp_path / "p.html")
    assert (tmp_path / "p.png").read_bytes() == sheet_bytes
    (tmp_path / "q.png").write_bytes(mine := encode(picture(1)))
    with pytest.raises(InspectError, match="move it away or give another --out"):
        inspect(data, tmp_path / "q.html")
    assert (tmp_path / "q.png").read_bytes() == mine and not (tmp_path / "q.html").exists()


# Figures for people


def test_histogram_counts_everything_once_and_gathers_a_long_tail():
    v = np.concatenate([np.linspace(0, 10, 100), [500.0, np.nan]])
    hist = histogram(v)
    assert hist.counts.sum() == 101 and hist.open_end and hist.edges[-1] < 20
    flat = histogram(np.zeros(7))
    assert flat.counts.sum() == 7
    assert histogram(np.full(3, np.nan)) is None
    assert histogram(np.array([3.0])).counts.sum() == 1


def test_numbers_are_short():
    assert [number(v, 2) for v in (0, 0.0123, 1.26, 29.4, 1234.0, float("nan"))] == [
        "0",
        "0.012",
        "1.3",
        "29",
        "1,234",
        "–",
    ]


def test_picture_sizes_are_read_from_headers():
    for ext in (".png", ".webp"):
        assert picture_size(encode(picture(0, 36, 64), ext)[:40]) == (64, 36)
    lossy = cv2.imencode(".webp", picture(0, 36, 64), [cv2.IMWRITE_WEBP_QUALITY, 50])[1].tobytes()
    assert picture_size(lossy[:40]) == (64, 36)
    assert picture_size(b"GIF89a" + b"\0" * 40) is None and picture_size(b"") is None


def test_the_terminal_table_tells_the_same(data, tmp_path):
    report, _ = run(data, tmp_path)
    out = io.StringIO()
    print_report(report, Console(file=out, width=100))
    text = out.getvalue()
    for part in (
        "train",
        "21",
        "val",
        "cut 4",
        "duplicate 1",
        "gopro",
        "c0ffee",
        "64 × 36 px: 23",
        "preview.html",
    ):
        assert part in text


def test_a_still_is_ranked_by_the_length_of_its_blur(tmp_path):
    """It has no flow; what it has is the path that its camera took."""
    folder = tmp_path / "data"
    folder.mkdir()
    members = []
    for n, px in enumerate((9.0, 3.0, 27.0)):
        told = {"exposure": {"window": 1, "interp": "none", "blur_px": px, "shake": {"px": px}}}
        source = meta("x")["source"] | {"kind": "still", "first": 0, "last": 0, "target": 0, "fps": None}
        members += sample(f"s{n}", None, source=source, **told)
    write_tar(folder / "train-000000.tar", members)
    report, html = run(folder, tmp_path)
    assert [c.title for c in report.cards] == ["s1", "s0", "s2"]
    assert [c.extent for c in report.cards] == [3, 9, 27] and report.cards[0].flow is None
    assert "the camera alone moves" in html and dict(report.cards[2].facts)["Shake"] == "27 px of path"


def test_the_sheet_stays_small_whatever_it_shows(tmp_path):
    """Noise hardly compresses: the pictures get smaller until the file is."""
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    members = []
    for n in range(12):
        noise = rng.integers(0, 256, (420, 420, 3)).astype(np.uint8)
        part = dict(sample(f"n{n:02d}", float(n)))
        part |= {f"n{n:02d}.blur.png": encode(noise), f"n{n:02d}.sharp.png": encode(noise[::-1])}
        members += list(part.items())
    write_tar(folder / "train-000000.tar", members)
    report, html = run(folder, tmp_path, 12)
    assert len(report.cards) == 12 and report.png.stat().st_size < 3_000_000
    assert html.index("weakest to strongest") < html.index("<h2>Figures") < html.index("<h2>Blur extent"), (
        "pictures first, figures after"
    )


def test_the_sheet_leaves_rows_out_rather_than_grow(data, tmp_path, monkeypatch):
    module = importlib.import_module("blursynth.preview.inspect")
    sizes = {}
    for most in (3_000_000, 250_000):
        monkeypatch.setattr(module, "SHEET_BYTES", most)
        report, html = run(data, tmp_path, 16)
        sizes[most] = report.png.stat().st_size
        assert sizes[most] <= most and len(re.findall(r'id="s[0-9]+"', html)) == 16, "the page shows all"
    assert sizes[250_000] > 50_000, "a row is left"


def labelled(key: str, blur_px: float, flow: bytes, mask: bytes | None = None, late: bool = False):
    exposure = meta(key)["exposure"] | {"blur_px": blur_px}
    pair = sample(key, exposure=exposure)
    labels = [(f"{key}.flow.npy", flow)] + ([(f"{key}.mask.png", mask)] if mask else [])
    return [*pair, *labels] if late else [*pair[:2], *labels, pair[2]]


def test_labels_are_shown(tmp_path):
    flow = np.zeros((36, 64, 2), np.float16)
    flow[:, :16] = 6, 8
    mask = np.zeros((36, 64), np.uint8)
    mask[:, :16] = 255
    one = labelled("a", 10.0, encode_flow(flow), encode_mask(mask))
    write_tar(tmp_path / "train-000000.tar", one + labelled("b", 30.0, encode_flow(flow), late=True))
    report = inspect(tmp_path, tmp_path / "p.html")
    shown = {c.title: c for c in report.cards}
    assert np.array_equal(shown["a"].flow, flow.astype(np.float32)) and shown["a"].flow_unit == "px"
    assert dict(shown["a"].facts)["Mask"] == "25 % of the picture moves"
    assert "Mask" not in dict(shown["b"].facts), "members after the JSON are passed over"
    assert not any("incomplete" in w for w in report.warnings)
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "rim 10 px<" in page and "Length of the blur (blur_px)" in page
    console = Console(file=io.StringIO(), width=120)
    print_report(report, console)
    assert "Length of the blur (blur_px): median 20" in console.file.getvalue()


@pytest.mark.parametrize("what", ["text", "shape", "type", "cut", "pickle"])
def test_a_label_that_cannot_be_trusted_is_named(tmp_path, what):
    buffer = io.BytesIO()
    array = {"shape": np.zeros((5, 64, 2), np.float16), "type": np.zeros((36, 64, 2), np.float32)}.get(
        what, np.zeros((36, 64, 2), np.float16)
    )
    np.save(buffer, np.array([{}], object) if what == "pickle" else array)
    data = b"no" if what == "text" else buffer.getvalue()[: -7 if what == "cut" else None]
    write_tar(tmp_path / "train-000000.tar", labelled("a", 9.0, data) + sample("b"))
    report = inspect(tmp_path, tmp_path / "p.html")
    assert [c.title for c in report.cards] == ["b"] and report.exit_code == 1
    assert any("'a'" in d and "flow" in d for d in report.damaged)
