"""The Python functions say what they take, give and raise, and the Python of the pages can be typed in."""

from __future__ import annotations

import ast
import importlib
import inspect
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import blursynth
import deblur_train
from tests.helpers.films import moving, write_video
from tests.helpers.places import ROOT
from tests.system.test_docs import PAGES, blocks

PACKAGES = ("blursynth", "blursynth.shards", "deblur_train")


PUBLIC = [
    (package, name)
    for package in PACKAGES
    for name in importlib.import_module(package).__all__
    if name != "__version__"
]


@pytest.mark.parametrize(("package", "name"), PUBLIC)
def test_every_public_name_says_what_it_takes_and_raises(package: str, name: str) -> None:
    """A docstring of its own names each parameter, what comes back, and the errors."""
    if package == "deblur_train":
        pytest.importorskip("torch")
    thing = getattr(importlib.import_module(package), name)
    text = thing.__doc__
    assert text and len(text.split()) >= 8
    if isinstance(thing, type) and issubclass(thing, BaseException):
        return
    assert "Raises" in text
    if inspect.isfunction(thing):
        asked = [
            p for p in inspect.signature(thing).parameters if p not in ("console", "options", "settings")
        ]
        assert [p for p in asked if p not in text] == []
        assert inspect.signature(thing).return_annotation is not inspect.Parameter.empty


def test_the_api_page_lists_every_public_name() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert [f"{p}.{n}" for p, n in PUBLIC if f":: {p}.{n}\n" not in text] == []


PYTHON = [
    pytest.param(text, id=f"{page.name}-{n}")
    for page in PAGES
    for n, text in enumerate(blocks(page, "python"))
]


@pytest.mark.parametrize("text", PYTHON)
def test_python_of_the_pages_compiles_and_imports_what_there_is(text: str) -> None:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in (
            "blursynth",
            "deblur_train",
        ):
            module = importlib.import_module(str(node.module))
            assert [a.name for a in node.names if not hasattr(module, a.name)] == []


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks one after the other, with a film, frames and a picture at hand, and the package's model as the run's."""
    torch = pytest.importorskip("torch")
    from deblur_train.models.checkpoint import shipped_checkpoint

    monkeypatch.chdir(tmp_path)
    frames = moving(36, (64, 48), (2, 1))
    write_video(Path("clip.mp4"), frames)
    Path("runs/first").mkdir(parents=True)
    shutil.copy(shipped_checkpoint(), "runs/first/best.safetensors")
    names: dict[str, Any] = {"frames": frames[:9], "x": torch.zeros(1, 3, 40, 50)}
    for text in blocks(ROOT / "README.md", "python"):
        Path("typed.py").write_text(text, encoding="utf-8")
        names |= runpy.run_path("typed.py", names)
    assert names["blur"].shape == frames[0].shape and names["blur"].dtype == np.uint8
    assert names["y"].shape == names["x"].shape
    assert blursynth.verify("data").exit_code == 0
    assert deblur_train.load_generator("runs/first/best.safetensors") is not None
