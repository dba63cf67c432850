"""Errors end in one line and their own exit code; one option, one value."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from blursynth.common.command import Commands
from blursynth.common.errors import UsageError, UserError, did_you_mean
from blursynth.common.extras import install_extra
from blursynth.common.stop import Terminated


@click.group(cls=Commands)
def tool():
    pass


@tool.command("work")
@click.option("--out")
@click.option("--src", multiple=True)
@click.option("--quiet", is_flag=True)
@click.option("--kind", "kind", default="none")
def work(out, src, quiet, kind):
    errors = {
        "usage": UsageError("a\nb\x1b[2J"),
        "failure": UserError("gone"),
        "own": UserError("mixed", 2),
        "file": FileNotFoundError(2, "No such file", "x.toml"),
        "package": ImportError("no torch"),
        "torch": ModuleNotFoundError("No module named 'torch'", name="torch"),
        "ours": KeyError("bug"),
        "hand": KeyboardInterrupt(),
        "term": Terminated(),
    }
    if kind in errors:
        raise errors[kind]
    click.echo(f"{out} {list(src)} {quiet}")


@pytest.mark.parametrize(
    ("kind", "code", "told"),
    [
        ("usage", 2, "Error: a b\\x1b[2J\n"),
        ("failure", 1, "Error: gone\n"),
        ("own", 2, "Error: mixed\n"),
        ("file", 1, "Error: x.toml: No such file\n"),
        ("package", 1, "Error: no torch\n"),
        (
            "torch",
            1,
            f"Error: this needs torch, which is not installed: {install_extra('train')}\n",
        ),
        ("hand", 130, "stopped\n"),
        ("term", 143, "stopped\n"),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(kind, code, told):
    result = CliRunner().invoke(tool, ["work", "--kind", kind])
    assert (result.exit_code, result.output) == (code, told)


def test_a_mistake_of_ours_keeps_its_traceback():
    assert isinstance(CliRunner().invoke(tool, ["work", "--kind", "ours"]).exception, KeyError)


@pytest.mark.parametrize("args", [["--out", "a", "--out", "b"], ["--out=a", "--out", "a"]])
def test_a_value_given_twice_is_refused(args):
    result = CliRunner().invoke(tool, ["work", *args])
    assert result.exit_code == 2 and "--out is given 2 times" in result.output


def test_what_may_be_given_twice_is_taken():
    result = CliRunner().invoke(
        tool, ["work", "--src", "a", "--src", "b", "--quiet", "--quiet", "--out", "c"]
    )
    assert result.output == "c ['a', 'b'] True\n"


def test_did_you_mean():
    assert did_you_mean("stirde", ["stride", "window"]) == " (did you mean 'stride'?)"
    assert did_you_mean("xyz", ["b", "a"]) == "; known: a, b"
