"""What examples/ holds runs, on a small film."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from blursynth import make
from tests.helpers.films import moving, write_video
from tests.helpers.places import ROOT

EXAMPLES = ROOT / "examples"
ENV = os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("film") / "clip.mp4", moving(60, (160, 128)))


def test_the_plain_loop_learns_from_shards(film, tmp_path):
    make(film, tmp_path / "data", interp="none", val_fraction=0.0, gate="off", quiet=True)
    command = [sys.executable, EXAMPLES / "torch_loop.py", tmp_path / "data", "--steps", "40", "--crop", "64"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENV, timeout=300)
    assert done.returncode == 0, done.stderr
    losses = [float(x) for x in re.findall(r"L1 ([\d.]+)", done.stdout)]
    assert len(losses) == 2 and losses[1] < losses[0]


def test_the_notebook_runs_cell_by_cell(film, tmp_path):
    cells = json.loads((EXAMPLES / "first_pairs.ipynb").read_text())["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    assert 'FILM = "clip.mp4"' in code
    code = code.replace('FILM = "clip.mp4"', f"FILM = {str(film)!r}")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=ENV, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "preview.html").stat().st_size > 1000


def test_the_basicsr_file_names_the_folders_that_unpack_writes():
    data = yaml.safe_load((EXAMPLES / "basicsr.yml").read_text())["datasets"]
    for split in ("train", "val"):
        assert {Path(data[split][f"dataroot_{x}"]).parts[1:] for x in ("gt", "lq")} == {
            (split, "gt"),
            (split, "lq"),
        }


def test_the_slurm_script_is_valid_shell():
    assert subprocess.run(["bash", "-n", EXAMPLES / "slurm.sh"]).returncode == 0
