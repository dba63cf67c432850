"""``verify``: sound data passes; each kind of damage is found and named."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from blursynth.checks.lookalikes import near_duplicates, picture_hash
from blursynth.checks.verify import verify
from blursynth.run.folder import OutputError
from blursynth.run.make import make
from blursynth.shards.schema import parse_sample_json
from tests.helpers import make_fakes
from tests.helpers.make_fakes import frames_folder


def run(src, out, **options):
    return make(src, out, task=make_fakes.mean_task, workers=1, interp="none", quiet=True, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("verify")
    for i in range(3):
        frames_folder(tmp / "src" / f"clip{i}", 40, seed=i, size=(96, 64))
    run(tmp / "src", tmp / "data", shard_samples=4)
    return tmp / "data"


@pytest.fixture
def data(made, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(made, tmp_path / "data"))


def rewrite(tar: Path, change) -> None:
    """Change the members of a shard and mend its sidecar, as an honest tool with a bug would."""
    with tarfile.open(tar) as t:
        members = [(m.name, t.extractfile(m).read()) for m in t]
    members = change(members)
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as t:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            t.addfile(info, io.BytesIO(content))
    side = json.loads(tar.with_suffix(".json").read_text())
    side |= {"bytes": tar.stat().st_size, "sha256": hashlib.sha256(tar.read_bytes()).hexdigest()}
    tar.with_suffix(".json").write_text(json.dumps(side))


def problems(data, **kw):
    report = verify(data, **kw)
    assert report.exit_code == (1 if report.problems else 0)
    assert all(p in str(report) for p in report.problems)
    return report.problems


def test_what_make_wrote_is_sound(data):
    report = verify(data)
    assert (report.problems, report.samples, report.exit_code) == ([], 12, 0)
    assert report.splits == {"train": 8, "val": 4} and report.shards == 3
    assert "sound" in str(report) and json.loads(report.to_json())["samples"] == 12


def test_the_verdict_counts_in_words(data):
    report = verify(data)
    report.problems.append("a")
    assert str(report).endswith(": 1 problem")
    report.problems.append("b")
    assert str(report).endswith(": 2 problems")


@pytest.mark.parametrize("where", ["header", "image", "json", "end"])
def test_one_flipped_bit_is_found(data, where):
    tar = data / "train-000001.tar"
    content = bytearray(tar.read_bytes())
    at = {"header": 5, "image": 700, "json": content.find(b'"schema"'), "end": len(content) - 10}[where]
    content[at] ^= 4
    tar.write_bytes(bytes(content))
    assert any("train-000001.tar" in p and "sha256" in p for p in problems(data))


def test_one_flipped_bit_in_what_lies_beside_the_shards_is_found(data):
    """What programs go by: every file but the log and the card's prose. Of croissant.json it is the names and checksums, of
    the index whatever the sidecars or the recipe say too, of JSON and TOML no white space and comments."""
    rng = np.random.default_rng(0)
    kinds = {
        "train-000000.json": rb'"(samples|bytes|written)": (\d)|"sha256": "([0-9a-f])|"clip\d": "([0-9a-f])|"version": "(\d)',
        "dataset.json": rb'"(samples|bytes)": (\d)|"sha256": "([0-9a-f])|"window": "(\d)|"(\w+)": "off"|"version": "(\d)',
        "samples.csv": rb"(\w)",
        "recipe.toml": rb"\n(?!name|cite)(\w+) = |\nwindow = \"(\d)",
        "_info.json": rb'"num_samples": (\d)|"(train)-0|\n +(\d)\n',
        "croissant.json": rb'"sha256": "([0-9a-f])|FileObject",\s+"@id": "(train)-0',
    }
    for name, pattern in kinds.items():
        held = (data / name).read_bytes()
        places = [
            m.start(g)
            for m in re.finditer(pattern, held)
            for g in range(1, m.re.groups + 1)
            if m.start(g) >= 0
        ]
        assert places
        for at in rng.permutation(places)[:12]:
            (data / name).write_bytes(held[:at] + bytes([held[at] ^ 1]) + held[at + 1 :])
            assert any(Path(name).stem in p for p in problems(data, decode=False)), (
                name,
                held[max(0, at - 30) : at + 9],
            )
        (data / name).write_bytes(held)
    assert problems(data) == []


def test_files_of_another_set_are_found(made, data, tmp_path):
    """A recipe, an index or a shard that came from elsewhere: make --recipe DATA/recipe.toml would make other data."""
    run(made.parent / "src", tmp_path / "other", shard_samples=4, window="7", stride=9)
    other = tmp_path / "other"
    assert {p.name for p in other.iterdir()} == {p.name for p in data.iterdir()}
    assert json.loads((other / "dataset.json").read_text())["splits"]["train"]["samples"] == 8
    for names in (["recipe.toml"], ["_info.json"], ["croissant.json"], ["dataset.json", "recipe.toml"],
                  ["val-000000.json", "val-000000.tar"]):  # fmt: skip
        mixed = Path(shutil.copytree(data, tmp_path / names[0]))
        for name in names:
            shutil.copy(other / name, mixed / name)
        same = [n for n in names if (other / n).read_bytes() == (data / n).read_bytes()]
        assert bool(problems(mixed, decode=False)) == (same != names), names
    (data / "recipe.toml").unlink()
    assert any("recipe.toml: is not there" in p for p in problems(data, decode=False))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("dataset.json", lambda d: d.update(complete="no")),
        ("dataset.json", lambda d: d.update(recipe=None)),
        ("train-000000.json", lambda d: d["counts"].update(clips=[1])),
        ("train-000000.json", lambda d: d["counts"].update(clips=None)),
        (
            "croissant.json",
            lambda d: d["distribution"].append({"@id": "train-000077.tar", "sha256": "0" * 64}),
        ),
    ],
)
def test_a_value_of_another_kind_and_a_shard_too_many_are_found(data, name, change):
    held = json.loads((data / name).read_bytes())
    change(held)
    (data / name).write_text(json.dumps(held))
    assert problems(data, decode=False)


def test_a_recipe_that_was_edited_in_both_places_is_found(data):
    index = json.loads((data / "dataset.json").read_bytes())
    index["recipe"]["noise"] = "off"
    (data / "dataset.json").write_text(json.dumps(index))
    toml = (data / "recipe.toml").read_text()
    assert problems(data, decode=False)
    edited = re.sub(r"(?m)^noise = .*$", 'noise = "off"', toml)
    assert edited != toml
    (data / "recipe.toml").write_text(edited)
    assert any("by which the shards were made" in p for p in problems(data, decode=False))


def test_a_sidecar_under_another_name_is_found(data):
    for ext in ("tar", "json"):
        (data / f"train-000001.{ext}").rename(data / f"train-000007.{ext}")
    assert any("is the sidecar of train-000001.tar" in p for p in problems(data, decode=False))


def test_a_short_a_missing_and_a_stray_tar(data):
    os.truncate(data / "train-000000.tar", 20000)
    (data / "val-000000.tar").unlink()
    (data / "train-000009.tar").write_bytes(b"")
    found = " | ".join(problems(data))
    assert "train-000000.tar: 20000 bytes, its sidecar says" in found
    assert "val-000000.tar: No such file" in found
    assert "train-000009.tar: has no sidecar" in found


def test_a_lost_sample_is_missed_though_the_checksum_was_mended(data):
    rewrite(data / "train-000000.tar", lambda ms: ms[3:])
    assert any("3 samples, its sidecar says 4" in p for p in problems(data))


def test_a_key_in_two_shards(data):
    with tarfile.open(data / "train-000001.tar") as t:
        stolen = [(m.name, t.extractfile(m).read()) for m in list(t)[:3]]
    rewrite(data / "train-000000.tar", lambda ms: [*ms[3:], *stolen])
    assert any("stands in train-000000.tar too" in p for p in problems(data))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m | {"schema": 2}, "schema"),
        (lambda m: m | {"key": "other"}, "says its key is other"),
        (lambda m: m | {"recipe_sha256": "0" * 64}, "another recipe"),
        (lambda m: {k: v for k, v in m.items() if k != "flow"}, "flow: Field required"),
        (lambda m: m | {"source": m["source"] | {"target": 99}}, "target is not within"),
        (lambda m: m | {"source": m["source"] | {"path": "/root/clip"}}, "path is not relative"),
    ],
)
def test_sample_json_that_breaks_the_contract(data, change, says):
    def edit(ms):
        i = next(i for i, (n, _) in enumerate(ms) if n.endswith(".json"))
        ms[i] = (ms[i][0], json.dumps(change(json.loads(ms[i][1]))).encode())
        return ms

    rewrite(data / "train-000000.tar", edit)
    found = problems(data)
    assert any(says in p and "train-000000.tar" in p for p in found), found


def test_images_that_do_not_decode_or_do_not_fit(data):
    small = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()

    def edit(ms):
        return [(ms[0][0], b"\x89PNG junk"), *ms[1:3], (ms[3][0], small), *ms[4:]]

    rewrite(data / "train-000000.tar", edit)
    found = " | ".join(problems(data))
    assert "blur.png: not a decodable" in found and "sizes differ" in found
    assert not any("decodable" in p for p in problems(data, decode=False))


def test_a_missing_image_is_named(data):
    rewrite(data / "val-000000.tar", lambda ms: [m for m in ms if m[0] != ms[1][0]])
    assert any("lacks sharp" in p for p in problems(data))


def test_hostile_members_are_refused(data):
    rewrite(data / "val-000000.tar", lambda ms: [*ms, ("../../x.json", b"{}")])
    assert any("not KEY.EXTENSION" in p for p in problems(data))
    assert not (data.parent.parent / "x.json").exists()


def test_a_leak_of_equal_bytes_is_found(data, tmp_path):
    """The same source in both splits, which `make` itself never does."""
    train = json.loads(next(iter_json(data / "train-000000.tar")))["source"]["sha256"]

    def edit(ms):
        return [
            (
                n,
                d.replace(json.loads(d)["source"]["sha256"].encode(), train.encode())
                if n.endswith("json")
                else d,
            )
            for n, d in ms
        ]

    rewrite(data / "val-000000.tar", edit)
    assert any(p.startswith("leak:") and "in train and" in p for p in problems(data))


def iter_json(tar):
    with tarfile.open(tar) as t:
        for m in list(t):
            if m.name.endswith(".json"):
                yield t.extractfile(m).read()


def test_a_re_encoded_scaled_copy_in_another_split_is_found(tmp_path):
    src = tmp_path / "src"
    frames_folder(src / "a", 40, size=(192, 128))
    frames_folder(src / "b", 40, size=(192, 128), seed=5)
    (src / "copy").mkdir()
    for p in sorted((src / "a").iterdir()):  # smaller, brighter, and through a lossy codec
        im = cv2.convertScaleAbs(
            cv2.resize(cv2.imread(str(p)), (144, 96), interpolation=cv2.INTER_AREA), alpha=0.9, beta=10
        )
        cv2.imwrite(str(src / "copy" / p.name), cv2.imdecode(cv2.imencode(".jpg", im, [1, 60])[1], 1))
    for seed in range(20):  # a seed that parts the two
        summary = run(src, tmp_path / f"d{seed}", seed=seed, val_fraction=0.34)
        clips = {
            s: {
                json.loads(j)["source"]["clip"]
                for t in (tmp_path / f"d{seed}").glob(f"{s}-*.tar")
                for j in iter_json(t)
            }
            for s in summary.splits
        }
        if ("a" in clips["val"]) != ("copy" in clips["val"]):
            break
    found = problems(tmp_path / f"d{seed}")
    assert (
        len(found) == 1
        and found[0].startswith("near-duplicate")
        and "a in" in found[0]
        and "copy in" in found[0]
    )


def test_different_scenes_and_flat_pictures_are_no_duplicates():
    rng = np.random.default_rng(0)
    scenes = [
        cv2.resize(
            rng.integers(0, 256, (9, 16, 3)).astype(np.uint8), (320, 180), interpolation=cv2.INTER_CUBIC
        )
        for _ in range(60)
    ]
    hashes = [picture_hash(s) for s in scenes]
    data = {
        "train": {f"t{i}": [h] for i, h in enumerate(hashes[:30])},
        "val": {f"v{i}": [h] for i, h in enumerate(hashes[30:])},
    }
    names = {"train": {k: k for k in data["train"]}, "val": {k: k for k in data["val"]}}
    assert near_duplicates(data, names) == []
    assert picture_hash(np.full((64, 64, 3), 20, np.uint8)) is None, "black frames are alike in every film"


def test_a_run_that_did_not_finish_is_told(data):
    index = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps(index | {"complete": False}))
    assert any("shards are missing" in p for p in problems(data))
    (data / "dataset.json").unlink()
    assert any("dataset.json: is not there" in p for p in problems(data))
    (data / "dataset.json").write_text('{"splits": 3}')
    assert any("not a readable index" in p for p in problems(data))


def test_no_folder_and_an_empty_one_are_usage_errors(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(OutputError) as e:
            verify(path)
        assert e.value.exit_code == 2


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"null", b"{}", b"\xff", b"[" * 100000, b'{"schema": NaN}', b'{"schema": 1e999}']
)
def test_any_json_is_parsed_or_refused_with_one_line(text):
    with pytest.raises(ValueError) as e:
        parse_sample_json(text)
    assert len(str(e.value).splitlines()) == 1
