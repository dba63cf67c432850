"""The documentation says what is so: its commands run or parse, its recipes load, its links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

import blursynth.cli.main
import deblur_train.cli.main
from blursynth.cli.main import make_command
from blursynth.common.errors import UserError
from blursynth.recipe import RunOptions, builtin_recipes, load_recipe
from deblur_train.config import builtin_configs, find_config, load_config
from tests.helpers.films import moving, write_picture, write_video
from tests.helpers.places import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
OTHERS = [ROOT / p for p in ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/RESULTS.md", "examples/README.md",
                             "deblur_train/weights/README.md")]  # fmt: skip
PROGRAMS = {"blursynth": blursynth.cli.main.main, "deblur-train": deblur_train.cli.main.main}
MODULES = {"deblur_train.cli.main": "deblur-train"}  # as torchrun starts it

SCRIPTS = [
    f
    for room in ("blursynth", "deblur_train", "benchmarks", "tests", "examples", "pipelines", "docs")
    for f in (ROOT / room).rglob("*.py")
]

FENCE = re.compile(r"^```([\w-]*)[^\n]*\n(.*?)^```\s*$", re.M | re.S)


def blocks(page: Path, *languages: str) -> list[str]:
    """Fenced blocks of these languages ('' is a fence without one)."""
    return [text for lang, text in FENCE.findall(page.read_text(encoding="utf-8")) if lang in languages]


def lines(block: str) -> list[str]:
    """Command lines, those that end in a backslash joined to the next."""
    return [line.strip() for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def commands(line: str) -> list[list[str]]:
    """The ``blursynth`` and ``deblur-train`` calls of a shell line, as words."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split, lexer.commenters = True, "#"
    calls: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("|&;"):
            calls.append([])
        else:
            calls[-1].append(word)
    found = []
    for words in calls:
        for i, word in enumerate(words):
            if word in PROGRAMS:
                found.append(words[i:])
            elif word in MODULES and words[i - 1] == "-m":
                found.append([MODULES[word], *words[i + 1 :]])
            else:
                continue
            break
    return found


def check(words: list[str]) -> None:
    """Parse a call as the program would, and the values of recipes too. Raises ClickException or UserError."""
    program, *args = words
    group = PROGRAMS[program]
    if not args or args[0].startswith("-"):
        group.make_context(program, args)
        return
    command = group.commands.get(args[0])
    if command is None:
        raise click.UsageError(f"{program} has no command {args[0]!r}")
    given = command.make_context(f"{program} {args[0]}", args[1:]).params
    if program == "blursynth" and args[0] == "make":
        recipe = given.pop("recipe")
        options = {
            k: v for k, v in given.items() if k not in ("quiet", "paths", "as_json", *RunOptions.model_fields)
        }
        load_recipe(recipe if recipe in builtin_recipes() else None, options)
        if recipe and not recipe.endswith(".toml"):
            load_recipe(recipe)
    if (name := given.get("config_name")) and not name.endswith(".toml"):
        find_config(name)


CALLS = [
    pytest.param(words, id=f"{page.name}-{n}-{' '.join(words[:2])}")
    for page in PAGES
    for n, words in enumerate(
        w
        for block in blocks(page, "sh", "bash", "console", "")
        for line in lines(block)
        if not line.startswith("#")
        for w in commands(line)
    )
]


@pytest.mark.parametrize("words", CALLS)
def test_every_command_of_the_docs_parses(words: list[str]) -> None:
    """Subcommand, options and the values of recipes exist; the files named need not."""
    check(words)


def test_a_wrong_command_in_a_page_would_be_found() -> None:
    """The check above fails for an unknown option, command, recipe or config, and sees every form of call."""
    for wrong in (
        "blursynth make --src a --frames 3",
        "blursynth bake --src a",
        "blursynth make --src a --recipe nope",
        "blursynth make --src a --noise loud",
        "blursynth explain data",
        "deblur-train fit --config nope",
        "FOO=1 torchrun --nproc-per-node 2 -m deblur_train.cli.main fit --nope 1",
        "cat x | deblur-train predict - --out - --live --tile 3",
    ):
        (words,) = commands(wrong)
        with pytest.raises((click.ClickException, UserError)):
            check(words)
    assert commands("# blursynth nothing") == [] == commands("pip install blursynth-x")
    assert lines("blursynth make \\\n  --src a\n") == ["blursynth make    --src a"]
    assert len(CALLS) > 40 and {c.values[0][0] for c in CALLS} == set(PROGRAMS)  # type: ignore[index]


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda p: f"{p.parent.name}/{p.name}")
def test_relative_links_lead_to_files(page: Path) -> None:
    """Every link and picture of a page that is no URL is a file of the repository, and an anchor a heading there."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name}: {target}"


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda p: f"{p.parent.name}/{p.name}")
def test_scripts_and_tests_that_a_page_names_are_there(page: Path) -> None:
    """`benchmarks/x.py`, `x.py` or `test_x.py::test_y` is a file of the repository, and the test is defined in it."""
    text = re.sub(r"https?://\S+", "", page.read_text(encoding="utf-8"))
    for path, test in re.findall(r"(?<![\w/.<-])((?:[\w.-]+/)*\w+\.py)(?:::(test_\w+))?", text):
        files = [f for f in SCRIPTS if f"/{f.relative_to(ROOT).as_posix()}".endswith(f"/{path}")]
        assert files, f"{page.name}: {path}"
        if test:
            assert any(f"def {test}(" in f.read_text(encoding="utf-8") for f in files), (
                f"{page.name}: {path}::{test}"
            )


def anchors(page: Path) -> set[str]:
    """Anchors as forges make them of headings."""
    heads = re.findall(r"^#+\s+(.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}


def test_the_index_lists_every_page() -> None:
    """docs/README.md links each page beside it."""
    text = (DOCS / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in DOCS.glob("*.md") if p.name != "README.md" and f"({p.name})" not in text] == []


def test_the_recipe_page_is_complete_and_its_examples_load(tmp_path: Path) -> None:
    """Each built-in recipe and each option of `make` is described; each TOML example is a valid recipe."""
    page = DOCS / "recipes.md"
    text = page.read_text(encoding="utf-8")
    assert [n for n in builtin_recipes() if f"`{n}`" not in text] == []
    options = [o for p in make_command.params if isinstance(p, click.Option) for o in p.opts]
    assert [o for o in options if f"`{o}" not in text] == []
    examples = blocks(page, "toml")
    assert examples
    for example in examples:
        (tmp_path / "mine.toml").write_text(example, encoding="utf-8")
        load_recipe(str(tmp_path / "mine.toml"))


def test_the_model_page_is_complete_and_its_examples_load(tmp_path: Path) -> None:
    """Each built-in config is described; each TOML example is a valid training config."""
    page = DOCS / "models.md"
    text = page.read_text(encoding="utf-8")
    assert [n for n in builtin_configs() if f"`{n}`" not in text] == []
    examples = blocks(page, "toml")
    assert examples
    for example in examples:
        assert tomllib.loads(example)
        (tmp_path / "mine.toml").write_text(example, encoding="utf-8")
        load_config(str(tmp_path / "mine.toml"))


@pytest.mark.slow
def test_the_tutorial_works_as_printed(tmp_path: Path) -> None:
    """Its `sh` blocks, one after the other in a folder with a video and a photo; only the number of steps is cut."""
    for extra in ("onnxruntime", "onnxscript"):
        pytest.importorskip(extra, reason="the tutorial exports to ONNX: pip install 'blursynth[export]'")
    frames = moving(48, (256, 144), (3, 2))
    write_video(tmp_path / "my-video.mp4", frames)
    write_picture(tmp_path / "photo.png", frames[0][..., ::-1])
    script = "\n".join(blocks(DOCS / "tutorial.md", "sh"))
    script, cut = re.subn(r"--steps \d+", "--steps 3", script)
    assert cut >= 1
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-exc", script], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    # -x prints each command before it runs: the last one printed is the one that failed.
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    for file in (
        "data/dataset.json",
        "preview.html",
        "sample.png",
        "runs/first/best.safetensors",
        "runs/first/eval.json",
        "restored/photo.png",
        "model.onnx",
        "restored-onnx/photo.png",
    ):
        assert (tmp_path / file).stat().st_size > 0, file


def test_the_readmes_figures_are_in_the_results() -> None:
    """Each decimal under Figures is a figure of RESULTS.md, rounded: not sizes of networks, nor what papers report."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## Figures") : text.index("## Python")]
    decimal = re.compile(r"(?<![\w.])\d+\.\d+")
    known = [
        float(x) for x in decimal.findall((ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8"))
    ]
    told = []
    for line in section.splitlines():
        network = line.startswith("| `")  # its sizes, and the last column, are not ours
        told += decimal.findall("|".join(line.split("|")[3:5]) if network else line)
    assert len(told) > 20
    for figure in told:
        places = len(figure.partition(".")[2])
        assert any(abs(n - float(figure)) <= 0.5001 * 10**-places for n in known), figure
