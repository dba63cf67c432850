"""The architecture page is true to the code."""

import ast
import re

import pytest

from tests.helpers.places import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("package", "part"), [("blursynth", 0), ("deblur_train", 1)])
def test_every_module_has_its_row_and_no_row_is_of_a_module_gone(package, part):
    found = re.findall(r"^\| `([\w/]+\.py)` \| (.*) \|$", PAGE.split("\n## deblur_train")[part], re.M)
    rows = dict(found)
    assert len(rows) == len(found), "a row stands twice"
    firsts = {
        str(p.relative_to(ROOT / package)): (
            ast.get_docstring(ast.parse(p.read_text(encoding="utf-8"))) or ""
        ).split("\n")[0]
        for p in (ROOT / package).rglob("*.py")
        if not p.name.startswith("__")
    }
    assert rows == firsts


def test_the_producer_never_imports_the_trainer():
    for path in (ROOT / "blursynth").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(n.partition(".")[0] == "deblur_train" for n in names), path
