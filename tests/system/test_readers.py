"""timm's and `datasets`' readers give the keys and pixels that were written, where they are installed (webdataset is a
dependency, and tested in test_contract).

``BLURSYNTH_READERS_PYTHON`` names a Python that has them (timm brings torchvision, which is kept out of this environment).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import pytest

from blursynth.run.make import make
from blursynth.shards.picture import decode_image
from blursynth.shards.shard import read_shard
from tests.helpers import make_fakes
from tests.helpers.make_fakes import frames_folder
from tests.helpers.places import ROOT

PYTHON = os.environ.get("BLURSYNTH_READERS_PYTHON", sys.executable)
SCRIPT = ROOT / "benchmarks" / "readers.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("readers")
    for i in range(3):
        frames_folder(tmp / "src" / f"clip{i}", 40, seed=i)
    make(
        tmp / "src",
        tmp / "data",
        interp="none",
        shard_samples=1,
        workers=1,
        quiet=True,
        task=make_fakes.mean_task,
    )
    return tmp / "data"


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["timm", "datasets"])
def test_a_reader_gives_what_was_written(data, reader):
    # Not imported here: beside a CPU torch, timm's torchvision needs what the script does first.
    find = f"import importlib.util as u, sys; sys.exit(u.find_spec({reader!r}) is None)"
    if subprocess.run([PYTHON, "-c", find]).returncode:
        pytest.skip(f"{reader} is not installed; BLURSYNTH_READERS_PYTHON names a Python that has it")
    argv = [PYTHON, str(SCRIPT), str(data), "--readers", reader, "--json"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    want = [
        [s["__key__"], *(hashlib.sha256(decode_image(s[f"{n}.png"]).tobytes()).hexdigest() for n in ("blur", "sharp"))]
        for tar in sorted(data.glob("train-*.tar"))
        for s in read_shard(tar)
    ]  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1])[reader] == want and len(want) == 8
