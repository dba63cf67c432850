"""The shard contract, schema 1, seen from the producer: what other programs read must be there, as they read it."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from blursynth.recipe import Recipe
from blursynth.run.make import make
from blursynth.shards.picture import decode_image
from blursynth.shards.shard import read_shard
from tests.helpers import make_fakes
from tests.helpers.make_fakes import frames_folder

# Schema 1, as docs/recipes.md has it; more keys may be added, these hold.
KEYS = {
    "": {
        "schema",
        "key",
        "seed",
        "recipe_sha256",
        "version",
        "source",
        "exposure",
        "camera",
        "flow",
        "quality",
    },
    "source": {"dataset", "clip", "path", "sha256", "fps", "first", "last", "target"},
    "exposure": {
        "window",
        "stride",
        "fps_up",
        "interp",
        "profile",
        "shutter_ms",
        "duty",
        "readout_ms",
        "substeps",
    },
    "camera": {"crf", "highlights", "noise"},
    "flow": {"median_px", "p95_px", "max_px", "fb_error_px", "occluded"},
    "quality": {"score", "flags"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("contract")
    for i in range(2):
        frames_folder(tmp / "src" / f"GOPR000{i}_11_00", 40, seed=i)
    summary = make(
        tmp / "src", tmp / "data", interp="none", fps=240, shard_samples=1, workers=1, quiet=True, task=SYNTH
    )
    assert summary.samples == 8
    return tmp / "data"


SYNTH = make_fakes.mean_task


def test_files_of_a_data_set(data):
    names = {p.name for p in data.iterdir() if not p.name.startswith(".")}
    assert {"recipe.toml", "dataset.json", "_info.json", "README.md", "run.jsonl"} <= names
    tars = {n for n in names if n.endswith(".tar")}
    assert {"train-000000.tar", "val-000000.tar"} <= tars
    assert {n.replace(".tar", ".json") for n in tars} <= names
    side = json.loads((data / "train-000000.json").read_text())
    assert {"samples", "bytes", "sha256", "recipe_sha256", "counts"} <= side.keys()


def test_members_and_sample_json(data):
    seen = 0
    for path in data.glob("*.tar"):
        with tarfile.open(path) as tar:
            groups: dict[str, dict[str, bytes]] = {}
            for m in tar:
                key, _, ext = m.name.partition(".")
                groups.setdefault(key, {})[ext] = tar.extractfile(m).read()
        for key, parts in groups.items():
            seen += 1
            assert list(parts) == ["blur.png", "sharp.png", "json"]
            meta = json.loads(parts["json"])
            assert KEYS[""] <= meta.keys() and meta["schema"] == 1 and meta["key"] == key
            for group, keys in KEYS.items():
                assert keys <= (meta[group] if group else meta).keys(), group
            assert set(meta["exposure"]["substeps"]) >= {"mean", "max"}
            s = meta["source"]
            assert s["clip"].startswith("GOPR") and not Path(s["path"]).is_absolute() and s["fps"] == 240.0
            assert (
                s["last"] - s["first"] + 1 == meta["exposure"]["window"] == 9
                and s["target"] == s["first"] + 4
            )
            blur, sharp = (
                cv2.imdecode(np.frombuffer(parts[f"{n}.png"], np.uint8), cv2.IMREAD_COLOR)
                for n in ("blur", "sharp")
            )
            assert blur.shape == sharp.shape == (48, 64, 3)
    assert seen == 8


def test_a_split_never_shares_a_clip(data):
    clips: dict[str, set[str]] = {}
    for path in data.glob("*.tar"):
        with tarfile.open(path) as tar:
            for m in tar:
                if m.name.endswith(".json"):
                    meta = json.loads(tar.extractfile(m).read())
                    clips.setdefault(path.name.partition("-")[0], set()).add(meta["source"]["sha256"])
    assert clips["train"] and clips["val"] and not clips["train"] & clips["val"]


def test_plain_webdataset_reads_all_shards(data):
    wds = pytest.importorskip("webdataset")
    urls = sorted(map(str, data.glob("train-*.tar")))
    samples = list(wds.WebDataset(urls, shardshuffle=False).decode("rgb"))
    assert len(samples) == 4
    for s in samples:
        assert s["blur.png"].shape == (48, 64, 3) and s["json"]["key"] == s["__key__"]


def test_the_layout_of_timms_reader(data):
    """What timm.data.readers.reader_wds takes from _info.json, and how it opens the shards."""
    info = json.loads((data / "_info.json").read_text())
    for split in ("train", "val"):
        s = info["splits"][split]
        assert {"name", "num_samples", "filenames", "shard_lengths"} <= s.keys() and s["num_samples"] == 4
        assert len(s["filenames"]) == len(s["shard_lengths"])
        for name, n in zip(s["filenames"], s["shard_lengths"]):
            with tarfile.open(data / name) as tar:
                assert sum(m.name.endswith(".json") for m in tar) == n


def test_the_layout_of_datasets_webdataset(data):
    """`datasets` groups members by the name up to the first dot, as webdataset does, and needs one set of extensions."""
    kinds = set()
    for path in data.glob("*.tar"):
        with tarfile.open(path) as tar:
            names = [m.name.split(".", 1) for m in tar]
        kinds |= {tuple(e for k, e in names if k == key) for key in {k for k, _ in names}}
    assert kinds == {("blur.png", "sharp.png", "json")}


GOLDEN = {
    "display": "cc94d9a31f49f298622d58818f0be9d1682959e7c69723277cb72c238714a64a",
    "srgb": "4bea2a3c88b9278eb569fb3682e2093b8b64eca1bba5e81d03822167e00bbd27",
}


@pytest.mark.parametrize("crf", sorted(GOLDEN))
def test_the_data_is_what_it_was(tmp_path, crf):
    """A digest of pixels, keys and sources. When it changes, the change alters every user's data: say so
    in CHANGELOG and raise the version, then write the new digest here. Plain means only: flow differs by CPU."""
    import hashlib

    folder = tmp_path / "src" / "clip"
    folder.mkdir(parents=True)
    y, x = np.mgrid[:48, :64]
    for i in range(20):
        rgb = np.stack(
            [(3 * x + 5 * y + 7 * i) % 256, (x * y + 11 * i) % 256, ((x + i) ** 2 + y) % 256], -1
        ).astype(np.uint8)
        cv2.imwrite(str(folder / f"{i:06d}.png"), rgb[..., ::-1])
    recipe = Recipe(interp="none", crf=crf, fps=240, window="5-7", seed=3)
    summary = make(tmp_path / "src", tmp_path / "d", recipe, workers=1, quiet=True)
    assert summary.samples == 3, summary
    digest = hashlib.sha256()
    for path in sorted((tmp_path / "d").glob("*.tar")):
        for s in read_shard(path):
            for name in ("blur", "sharp"):
                digest.update(decode_image(s[f"{name}.png"]).tobytes())
            meta = json.loads(s["json"])
            digest.update(json.dumps([meta["key"], meta["source"]], sort_keys=True).encode())
    assert digest.hexdigest() == GOLDEN[crf]
