from __future__ import annotations

import copy
import json
import subprocess
import sys
import zipfile

import pytest

from blursynth.sources.manifest import ManifestError, load_manifest, manifest_path
from tests.helpers.places import ROOT


def test_the_catalogue_is_found_and_complete():
    m = load_manifest()
    by_id = {d.id: d for d in m.datasets}
    assert {"gopro", "reds", "adobe240", "x4k1000fps", "rsblur", "realblur", "bin"} <= set(by_id)
    assert {d.id: d.fps for d in m.datasets if d.source} == {
        "gopro": 240,
        "reds": 120,
        "adobe240": 240,
        "x4k1000fps": 1000,
    }
    assert all(d.home.startswith("http") and d.licence and d.citation for d in m.datasets)


@pytest.mark.parametrize(
    ("path", "holds", "want"),
    [
        ("/d/GOPRO_Large_all/train/GOPR0372_07_00", "frames", ("gopro", "GOPR0372_07_00", "train", "07")),
        ("/d/GOPRO_Large_all/test/GOPR0384_11_05", "frames", ("gopro", "GOPR0384_11_05", "test", "11")),
        ("/somewhere/GOPR0372_07_00", "frames", ("gopro", "GOPR0372_07_00", None, "07")),
        ("/d/train_orig/000", "frames", ("reds", "000", "train", None)),
        ("/d/val_orig/val_orig_part1/029", "frames", ("reds", "029", "val", None)),
        ("/d/original_high_fps_videos/IMG_0001.MOV", "video", ("adobe240", "IMG_0001", None, None)),
        ("/d/test/Type3/TEST15_1", "frames", ("x4k1000fps", "TEST15_1", "test", None)),
        ("/d/encoded_test/a/b.mp4", "video", ("x4k1000fps", "b", "test", None)),
        ("/d/train/GOPR0372_07_00/sharp", "frames", None),
        ("/d/train_sharp/000", "frames", None),
        ("/d/holiday/000", "frames", None),
        ("/d/original_high_fps_videos/IMG_0001.MOV", "frames", None),
    ],
)
def test_layouts_recognise_what_they_should(path, holds, want):
    found = load_manifest().recognise(path, holds)
    if want is None:
        assert found is None
    else:
        dataset, match, _ = found
        g = match.groupdict()
        assert (dataset.id, g.get("clip"), g.get("split"), g.get("window")) == want


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["datasets"][0].update(colour="red"), "colour"),
        (lambda d: d["datasets"][0].update(fps=-1), "fps"),
        (lambda d: d["datasets"][0]["layouts"][0].update(pattern="("), "regular expression"),
        (lambda d: d["datasets"][0]["layouts"][0].update(pattern="(?P<clop>x)"), "unknown groups"),
        (lambda d: d["datasets"].append(copy.deepcopy(d["datasets"][0])), "two data sets"),
        (lambda d: d["datasets"][0].update(layouts=[]), "at least one layout"),
        (lambda d: d.update(schema_version=2), "schema_version"),
    ],
)
def test_mistakes_in_the_catalogue_are_named(tmp_path, change, message):
    d = json.loads(manifest_path().read_text())
    change(d)
    path = tmp_path / "m.json"
    path.write_text(json.dumps(d))
    with pytest.raises(ManifestError, match=message) as e:
        load_manifest(path)
    assert str(path) in str(e.value)


def test_a_missing_or_broken_catalogue_is_an_error(tmp_path):
    with pytest.raises(ManifestError, match=r"none\.json"):
        load_manifest(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ManifestError, match=r"bad\.json"):
        load_manifest(tmp_path / "bad.json")


@pytest.mark.slow
def test_an_installed_wheel_finds_its_catalogue(tmp_path):
    """Builds the wheel and lays it out as pip does, apart from the checkout."""
    pytest.importorskip("setuptools", minversion="77")
    # A copy: building in the checkout would leave build/ behind.
    src = tmp_path / "src"
    for name in ("blursynth", "deblur_train", "pipelines"):
        for f in (ROOT / name).rglob("*"):
            if f.is_file() and "__pycache__" not in f.parts:
                to = src / f.relative_to(ROOT)
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(f.read_bytes())
    for name in ("pyproject.toml", "README.md", "LICENSE", "data_manifest.json"):
        (src / name).write_bytes((ROOT / name).read_bytes())
    wheel = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(src),
    ]
    done = subprocess.run(wheel, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    site, prefix = tmp_path / "site", tmp_path / "prefix"
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as z:
        data = [n for n in z.namelist() if n.endswith("share/blursynth/data_manifest.json")]
        assert len(data) == 1 and ".data/data/" in data[0]
        z.extractall(site)
    (prefix / "share" / "blursynth").mkdir(parents=True)
    (site / data[0]).rename(prefix / "share" / "blursynth" / "data_manifest.json")
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r}); sys.prefix = {str(prefix)!r}\n"
        "import blursynth.sources.manifest as m; print(m.__file__); print(m.manifest_path()); print(len(m.load_manifest().datasets))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert out.returncode == 0, out.stderr
    module, path, count = out.stdout.split("\n")[:3]
    assert module.startswith(str(site)) and path == str(prefix / "share" / "blursynth" / "data_manifest.json")
    assert int(count) == len(load_manifest().datasets)
