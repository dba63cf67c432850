"""croissant.json: valid by MLCommons' own reader, which finds every sample by it; a function of the data alone."""

from __future__ import annotations

import hashlib
import importlib
import json
import tarfile

import pytest

from blursynth import make
from blursynth.card.croissant import responsible
from blursynth.card.dataset_card import QUESTIONS, dataset_card
from blursynth.recipe import Recipe
from tests.helpers.films import moving, write_frames


@pytest.fixture(scope="module", params=["png", "webp"])
def data(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("croissant")
    for clip in ("a", "b"):
        write_frames(folder / "src" / clip, moving(18, (96, 64), seed=ord(clip)))
    out = folder / "data"
    make(
        folder / "src",
        out,
        interp="none",
        gate="off",
        fps=240,
        val_fraction=0.5,
        format=request.param,
        quiet=True,
    )
    return out


@pytest.mark.filterwarnings("ignore")
def test_mlcroissant_finds_no_fault_and_every_sample(data, monkeypatch, tmp_path):
    mlc = pytest.importorskip("mlcroissant")
    # It keeps what it unpacks under the shard's name alone: another test's train-000000.tar must not be found there.
    extract = importlib.import_module("mlcroissant._src.operation_graph.operations.extract")
    monkeypatch.setattr(extract, "EXTRACT_PATH", type(extract.EXTRACT_PATH)(tmp_path))
    found = mlc.Dataset(jsonld=str(data / "croissant.json"))
    assert not found.metadata.ctx.issues.errors
    assert found.metadata.ctx.is_v1_1()
    expected: dict[str, dict[str, bytes]] = {}
    for path in sorted(data.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, end = member.name.partition(".")
                expected.setdefault(end.partition(".")[0], {})[key] = tar.extractfile(member).read()
    assert len(expected["blur"]) == 4
    for name, kind in (("blur", "blur"), ("sharp", "sharp"), ("facts", "json")):
        records = list(found.records(name))
        assert {r[f"{name}/key"].decode() for r in records} == set(expected[kind])
        for r in records:
            if kind == "json":
                assert json.loads(r["facts/content"]) == json.loads(expected["json"][r["facts/key"].decode()])
            else:
                assert r[f"{name}/content"].size == (96, 64)
    rows = list(found.records("samples"))
    assert [r["samples/key"].decode() for r in rows] == list(expected["json"])
    for r in rows:
        meta = json.loads(expected["json"][r["samples/key"].decode()])
        assert r["samples/clip"].decode() == meta["source"]["clip"]
        assert r["samples/shutter_ms"] == pytest.approx(meta["exposure"]["shutter_ms"])


def test_the_same_data_has_the_same_file_and_no_path_of_this_machine(data):
    text = (data / "croissant.json").read_text()
    assert str(data) not in text and str(data.parent) not in text
    index = json.loads(text)
    shards = {f["@id"]: f for f in index["distribution"] if f["@type"] == "cr:FileObject"}
    assert set(shards) == {p.name for p in data.glob("*.tar")} | {"samples.csv"}
    table = (data / "samples.csv").read_bytes()
    assert shards["samples.csv"]["sha256"] == hashlib.sha256(table).hexdigest()
    side = json.loads((data / "train-000000.json").read_text())
    assert shards["train-000000.tar"]["sha256"] == side["sha256"]


@pytest.mark.filterwarnings("ignore")
def test_the_card_and_croissant_name_every_member_of_a_set_of_stills_and_no_film(tmp_path, monkeypatch):
    mlc = pytest.importorskip("mlcroissant")
    extract = importlib.import_module("mlcroissant._src.operation_graph.operations.extract")
    monkeypatch.setattr(extract, "EXTRACT_PATH", type(extract.EXTRACT_PATH)(tmp_path / "x"))
    write_frames(tmp_path / "src", moving(2, (96, 64)), "{}x.png")
    out = tmp_path / "data"
    make(tmp_path / "src", out, stills=True, shake="4-6", labels="flow,mask", gate="off", store="linear16",
         quiet=True, workers=1)  # fmt: skip
    with tarfile.open(out / "train-000000.tar") as tar:
        ends = {m.name.partition(".")[2] for m in tar}
    index, card = json.loads((out / "croissant.json").read_text()), (out / "README.md").read_text()
    files = [f for f in index["distribution"] if f["@type"] == "cr:FileSet"]
    assert {f["includes"].removeprefix("*.") for f in files} == ends and len(ends) == 6
    assert all(f"KEY.{end}`" in card for end in ends)
    found = mlc.Dataset(jsonld=str(out / "croissant.json"))
    assert not found.metadata.ctx.issues.errors
    assert [r["mask/content"].size for r in found.records("mask")] == [(96, 64)] * 2
    assert "made from photos" in index["description"] and "frames" not in index["description"]
    protocol = index["rai:dataPreprocessingProtocol"]
    assert "camera shake: 4-6 px" in protocol and not any("interpolation" in line for line in protocol)
    assert "source photos" in card and "its centre frame" not in card and "interpolation" not in card
    assert "2 photos of no known data set" in card


def test_sources_are_cited_and_their_licences_named():
    source = {"licence": "CC BY 4.0", "citation": "Nah, Kim, Lee: Deep Multi-Scale...", "home": "x"}
    index = {"splits": {"train": {"samples": 2, "bytes": 9, "shards": []}}, "rejected": {"cut": 3}, "not_used": [],
             "sources": [{"rel": "a", "dataset": "gopro"}], "provenance": {"gopro": source}, "plan_sha256": "0" * 64,
             "table": {"file": "samples.csv", "rows": 2, "bytes": 9, "sha256": "0" * 64}}  # fmt: skip
    from blursynth.card.croissant import croissant

    found = croissant(Recipe(), index)
    assert found["license"] == ["CC BY 4.0"] and "Nah" in found["citeAs"]
    assert "3 for cut" in found["rai:dataCollectionMissingData"]


def test_the_card_has_a_question_for_every_answer(data):
    index = json.loads((data / "dataset.json").read_text())
    assert set(QUESTIONS) == set(responsible(Recipe(), index))
    card = (data / "README.md").read_text()
    assert all(q in card for q in QUESTIONS.values())


@pytest.mark.parametrize("splits", [[], ["val"], ["train"], ["train", "val"]], ids=str)
def test_the_card_names_only_shards_that_are_there(splits):
    shard = {"file": "x", "samples": 1, "bytes": 1, "sha256": "0"}
    table = {s: {"samples": 1, "bytes": 1, "shards": [shard] * (s in splits)} for s in ("train", "val")}
    index = {"splits": table, "rejected": {}, "not_used": [], "sources": [], "provenance": {}, "plan_sha256": "0" * 64}  # fmt: skip
    card = dataset_card(Recipe(), index)
    assert {s for s in ("train", "val") if f"{s}-*.tar" in card} == set(splits)
    assert ("import webdataset" in card) == bool(splits) and "000000" not in card
