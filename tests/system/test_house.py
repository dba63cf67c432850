"""The house: which room may import which, how large a room may be, and no circles. Imports inside functions and under
TYPE_CHECKING count like any other. The rooms and their order are explained in docs/architecture.md."""

from __future__ import annotations

import ast
import tomllib
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.places import ROOT

LARGEST_ROOM = 12

# A room may import what stands in a line above it. Rooms of one line may import each other as long as no circle forms.
DIRECTION = {
    "blursynth": [
        {"__init__"},
        {"common"},
        {"png"},
        {"camera", "shards"},
        {"walk"},
        {"motion", "recipe", "video"},
        {"gpu"},
        {"exposure", "sources"},
        {"pairs"},
        {"card", "run"},
        {"checks", "exchange", "preview"},
        {"cli"},
    ],
    "deblur_train": [
        {"__init__"},
        {"config", "distributed"},
        {"data", "models"},
        {"inference"},
        {"media", "evaluation", "training"},
        {"prediction", "exporting"},
        {"cli"},
    ],
}
SHARED_ROOMS = {"common", "camera", "shards"}
"""The rooms of blursynth that deblur_train may import, and blursynth's version beside them."""


def modules(package: str) -> list[str]:
    """Dotted names of a package's modules, without the package: ``video.reader``, ``recipe``; a room's own is its name."""
    found = []
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = list(path.relative_to(ROOT / package).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts = parts[:-1] or ["__init__"]
        found.append(".".join(parts))
    return found


@cache
def imports(package: str, module: str) -> frozenset[str]:
    """Full dotted names of what a module imports out of the two packages, wherever in it the import stands."""
    base = ROOT / package / Path(*module.split("."))
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import; all imports here are absolute"
            for (
                a
            ) in node.names:  # "from room import module" names a module, "from module import name" does not
                whole = f"{node.module}.{a.name}"
                is_module = (ROOT / Path(*whole.split("."))).with_suffix(".py").is_file()
                found.add(whole if is_module else str(node.module))
    return frozenset(n for n in found if n.partition(".")[0] in DIRECTION)


def room(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("package", DIRECTION)
def test_every_room_has_its_place(package):
    known = set().union(*DIRECTION[package])
    assert {room(m) for m in modules(package)} <= known


@pytest.mark.parametrize("package", DIRECTION)
def test_imports_go_one_way(package):
    level = {r: i for i, rooms in enumerate(DIRECTION[package]) for r in rooms}
    wrong = []
    for module in modules(package):
        if module == "__init__":  # the lazy public names
            continue
        for name in imports(package, module):
            other, _, rest = name.partition(".")
            if other == package:
                target = room(rest or "__init__")
                if target != room(module) and level[target] > level[room(module)]:
                    wrong.append(f"{package}.{module} imports {name}")
            elif package == "blursynth" or (rest and room(rest) not in SHARED_ROOMS):
                wrong.append(f"{package}.{module} imports {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", DIRECTION)
def test_no_circles(package):
    graph = {
        m: {n.partition(".")[2] for n in imports(package, m) if n.startswith(package + ".")}
        for m in modules(package)
        if m != "__init__"
    }
    rooms: dict[str, set[str]] = {}
    for m, targets in graph.items():
        rooms.setdefault(room(m), set()).update({room(t) for t in targets} - {room(m)})
    assert circle(graph) is None, f"modules in a circle: {circle(graph)}"
    assert circle(rooms) is None, f"rooms in a circle: {circle(rooms)}"


def circle(graph: dict[str, set[str]]) -> list[str] | None:
    """Some circle of a directed graph, or None."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str] | None:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return None
        for target in sorted(graph.get(node, ())):
            found = visit(target, [*path, node])
            if found:
                return found
        done.add(node)
        return None

    for node in sorted(graph):
        found = visit(node, [])
        if found:
            return found
    return None


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


@pytest.mark.parametrize("package", DIRECTION)
def test_no_room_is_above_its_size(package):
    count: dict[str, int] = {}
    for m in modules(package):
        if "." in m and not m.rpartition(".")[2].startswith("__"):
            count[room(m)] = count.get(room(m), 0) + 1
    assert {r: n for r, n in count.items() if n > LARGEST_ROOM} == {}
    assert not any(m.count(".") > 1 for m in modules(package)), "rooms have no rooms inside"


@pytest.mark.parametrize("package", DIRECTION)
def test_no_room_is_named_like_a_public_function(package):
    import importlib

    public = set(importlib.import_module(package).__all__)
    assert not public & {room(m) for m in modules(package) if m != "__init__"} - {"__init__"}


def test_the_wheel_holds_every_room():
    """A room that pyproject.toml does not list is there in a checkout and missing from what users install."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    rooms = [p.parent.relative_to(ROOT) for name in DIRECTION for p in (ROOT / name).rglob("__init__.py")]
    assert sorted(listed) == sorted([".".join(room.parts) for room in rooms] + ["blursynth.pipelines"])
