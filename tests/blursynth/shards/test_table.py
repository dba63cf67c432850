"""samples.csv: a row a sample as its JSON has it, the same bytes however it was made, safe in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blursynth.checks.verify import verify
from blursynth.run.folder import OutputError
from blursynth.run.make import make
from blursynth.shards.shard import read_shard
from blursynth.shards.table import COLUMNS, HEADER, NUMBERS, safe_text, sample_row, write_table
from tests.helpers import make_fakes
from tests.helpers.make_fakes import frames_folder
from tests.helpers.places import ROOT


def run(src, out, task=make_fakes.mean_task, **options):
    return make(src, out, task=task, **{"workers": 1, "interp": "none", "quiet": True, **options})


def table(out):
    with (Path(out) / "samples.csv").open(newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


@pytest.fixture
def src(tmp_path):
    for i in range(3):
        frames_folder(tmp_path / "src" / f"clip{i}", 40, seed=i)
    return tmp_path / "src"


def test_every_sample_has_its_row_in_the_order_of_the_shards(src, tmp_path):
    run(src, tmp_path / "d", shard_samples=3)
    samples = [
        (p.name, json.loads(s["json"])) for p in sorted((tmp_path / "d").glob("*.tar")) for s in read_shard(p)
    ]
    rows = table(tmp_path / "d")
    assert [(r["shard"], r["key"]) for r in rows] == [(tar, meta["key"]) for tar, meta in samples]
    assert len(rows) == 12 and list(rows[0]) == list(COLUMNS)
    for row, (tar, meta) in zip(rows, samples, strict=True):
        assert row["split"] == tar.partition("-")[0] and row["clip"] == meta["source"]["clip"]
        assert [int(row[k]) for k in ("first", "last", "target")] == [
            meta["source"][k] for k in ("first", "last", "target")
        ]
        assert row["shutter_ms"] == row["score"] == row["noise"] == "", "null is empty"
        assert float(row["duty"]) == 1.0
    facts = json.loads((tmp_path / "d" / "dataset.json").read_text())["table"]
    assert facts["rows"] == 12 and facts["bytes"] == (tmp_path / "d" / "samples.csv").stat().st_size


def test_the_same_bytes_for_any_workers_and_after_a_stop(src, tmp_path):
    run(src, tmp_path / "a", shard_samples=2)
    run(src, tmp_path / "b", shard_samples=2, workers=2)
    calls = []

    def stops(task):
        calls.append(task.name)
        return make_fakes.full_disk_task(task) if len(calls) > 4 else make_fakes.mean_task(task)

    run(src, tmp_path / "c", task=stops, shard_samples=2)
    part = table(tmp_path / "c")
    assert 0 < len(part) < 12
    run(src, tmp_path / "c", shard_samples=2)
    whole = (tmp_path / "a" / "samples.csv").read_bytes()
    assert (
        (tmp_path / "b" / "samples.csv").read_bytes()
        == (tmp_path / "c" / "samples.csv").read_bytes()
        == whole
    )
    assert part == [r for r in table(tmp_path / "a") if r["shard"] in {p["shard"] for p in part}]


@pytest.mark.parametrize("damage", ["gone", "a row less", "a cell", "of the sidecar"])
def test_verify_finds_a_table_that_is_not_the_samples(src, tmp_path, damage):
    out = tmp_path / "d"
    run(src, out)
    path, side = out / "samples.csv", out / "train-000000.json"
    assert not verify(out).problems
    text = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "a row less":
        path.write_bytes(text[: text[:-2].rindex(b"\r\n") + 2])
    elif damage == "a cell":
        path.write_bytes(text.replace(b"clip1", b"clip7", 1))
    else:
        side.write_bytes(side.read_bytes().replace(b"clip2,clip2", b"clip7,clip7", 1))
    problems = verify(out).problems
    assert len(problems) == 1, problems
    assert problems[0].startswith(str(side if damage == "of the sidecar" else path)), "only the one at fault"
    assert "samples.csv" in problems[0]
    if damage == "gone":
        run(src, out)
        assert path.read_bytes() == text and not verify(out).problems
    if damage == "of the sidecar":
        side.unlink()
        run(src, out)
        assert path.read_bytes() == text and not verify(out).problems, "what the line says helps"


def test_a_table_of_someone_else_is_never_written_over(src, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "samples.csv").write_text("my,own\n")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"samples\.csv that blursynth did not write"):
            run(src, tmp_path / "d", overwrite=overwrite)
    assert (tmp_path / "d" / "samples.csv").read_text() == "my,own\n"


@given(
    st.text(st.characters(codec=None), max_size=20)
    | st.binary(max_size=8).map(lambda b: b.decode("utf-8", "surrogateescape"))
)
def test_any_name_is_one_cell_that_is_no_formula_and_valid_utf8(name):
    row = sample_row({"key": "k", "source": {"clip": name, "path": name}}, "train-000000")
    assert row.count("\n") == 1 and row.endswith("\r\n")
    (cells,) = csv.reader(io.StringIO(row.encode().decode(), newline=""))
    clip = dict(zip(COLUMNS, cells, strict=True))["clip"]
    assert clip == safe_text(name) and clip[:1] not in ("=", "+", "-", "@", "\t", "\r")


@pytest.mark.parametrize(
    ("name", "cell"),
    [("=1+1", "'=1+1"), ("@x", "'@x"), ("'a", "''a"), ("GOPR0372_07_00", "GOPR0372_07_00"), ("é", "é"),
     (b"caf\xe9".decode("utf-8", "surrogateescape"), r"caf\xe9"), ("a\tb\nc\x1b", r"a\tb\nc\x1b"), ("-rf", "'-rf")],
)  # fmt: skip
def test_names_are_made_safe(name, cell):
    assert safe_text(name) == cell


def test_noise_is_told_in_the_same_terms_whatever_its_kind():
    def noise(**facts):
        row = next(csv.reader([sample_row({"camera": {"noise": facts}}, "val-000001")]))
        return [dict(zip(COLUMNS, row, strict=True))[k] for k in ("noise", "noise_b1", "noise_b2")]

    assert noise(kind="iso", b1=1e-4, b2=0.002) == ["iso", "0.0001", "0.002"]
    assert noise(kind="restore", a=[1e-4, 3e-4, 2e-4], b=[4e-6] * 3) == ["restore", "0.0002", "0.002"]
    assert noise() == ["", "", ""]


def test_pandas_reads_it(src, tmp_path):
    pandas = pytest.importorskip("pandas")
    run(src, tmp_path / "d")
    rows = pandas.read_csv(tmp_path / "d" / "samples.csv")
    assert list(rows.columns) == list(COLUMNS) and len(rows) == 12
    assert rows["first"].max() == 27 and rows["score"].isna().all()
    assert all(rows[name].dtype.kind in "if" for name in NUMBERS)


def test_a_million_rows_are_written_in_flat_memory(tmp_path):
    row = sample_row(
        {"key": "k", "source": {"clip": "clip", "path": "folder/clip.mp4", "first": 5}}, "train-000000"
    )
    tracemalloc.start()
    facts = write_table(tmp_path, (row * 100 for _ in range(10_000)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert facts["rows"] == 1_000_000 and peak < 5e6
    assert facts["bytes"] == len(HEADER) + 1_000_000 * len(row)


def test_the_page_lists_every_column():
    page = (ROOT / "docs" / "recipes.md").read_text()
    for name, (_, what) in COLUMNS.items():
        assert f"| `{name}` | {what} |" in page
