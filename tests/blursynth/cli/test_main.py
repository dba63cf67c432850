"""The command line: every option reaches the recipe, every mistake is one line and exit code 2 or 1."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from blursynth.cli.main import main, make_command
from blursynth.recipe import Recipe, RunOptions, builtin_recipes, find_recipe
from blursynth.shards.shard import read_shard
from tests.helpers.make_fakes import frames_folder

BLURSYNTH = str(Path(sys.executable).with_name("blursynth"))


@pytest.fixture
def src(tmp_path):
    for i in range(2):
        frames_folder(tmp_path / "src" / f"clip{i}", 20, seed=i)
    return tmp_path / "src"


def call(*args):
    """(exit code, stdout, stderr); a traceback is never right."""
    result = CliRunner().invoke(main, [str(a) for a in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.output
    return result.exit_code, result.stdout, result.stderr


def fails(code, says, *args):
    got, _, err = call(*args)
    assert got == code, err
    lines = [line for line in err.strip().splitlines() if line.startswith("Error")]
    assert len(lines) == 1 and says in lines[0], err
    return lines[0]


def test_make_end_to_end_in_a_process_of_its_own(src, tmp_path):
    done = subprocess.run(
        [BLURSYNTH, "make", "--src", str(src), "--out", str(tmp_path / "d"), "--interp", "none", "--workers", "1"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4 samples (2 train, 2 val)")
    assert (tmp_path / "d" / "dataset.json").exists()
    assert call("verify", tmp_path / "d")[0] == 0
    key = json.loads((tmp_path / "d" / "dataset.json").read_text())["sources"][0]["clip"] + "_000000_09"
    code, out, _ = call("explain", tmp_path / "d", key, "--picture", tmp_path / "p.png")
    assert code == 0 and "every byte is equal" in out and cv2.imread(str(tmp_path / "p.png")) is not None


def test_dis_end_to_end_rebuilds_and_verifies(src, tmp_path):
    args = ["--interp", "dis", "--workers", 1, "--highlights", "rsblur"]
    code, _, err = call("make", "--src", src, "--out", tmp_path / "d", *args)
    assert code == 0, err
    assert call("verify", tmp_path / "d")[0] == 0
    assert "every byte is equal" in call("explain", tmp_path / "d", "clip0_000009_09")[1]


def test_the_bench_line_works_as_printed(src, tmp_path):
    """shared/bench/realism.py tells people to run exactly this."""
    argv = f"--src {src} --out {tmp_path / 'd'} --window 9 --stride 9 --crf srgb --noise off --gate off --val-fraction 0".split()
    code, out, _ = call("make", *argv, "--interp", "none", "--workers", "1")
    assert code == 0 and "4 samples (4 train)" in out


def test_every_recipe_key_and_run_option_has_its_option():
    options = {p.name for p in make_command.params}
    assert set(Recipe.model_fields) - {"name", "cite"} <= options
    assert set(RunOptions.model_fields) <= options


def test_every_option_has_a_text_and_stands_under_a_heading():
    _, out, _ = call("make", "--help")
    heads = [line[:-1] for line in out.splitlines() if line.endswith(":") and line[0] != " "]
    assert heads == ["Files", "Frames", "Light", "Camera", "Running"]
    for p in make_command.params:
        if isinstance(p, click.Option):
            assert p.help and out.count(f"  {p.opts[0]} ") == 1, p.name


def test_sources_stand_without_an_option_and_patterns_are_looked_up(src, tmp_path):
    args = ["--interp", "none", "--workers", "1", "--quiet", "--recipe", "demo", "--gate", "off"]
    found = []
    for n, given in enumerate(
        ([src], [src / "clip0", src / "clip1"], [f"{src}/clip[01]"], [f"{tmp_path}/s*/"])
    ):
        code, out, err = call("make", *given, "--out", tmp_path / str(n), "--json", *args, "--duty", "1")
        assert code == 0, err
        found.append(json.loads(out)["samples"])
    assert found[0] > 0 and len(set(found)) == 1
    fails(2, "matches no file", "make", f"{src}/nothing*")


def test_the_result_is_one_json_object(src, tmp_path):
    code, out, _ = call("make", src, "--out", tmp_path / "d", "--interp", "none", "--workers", "1", "--json")
    facts = json.loads(out)
    assert code == facts["exit_code"] == 0
    assert (
        facts["samples"] == 4 and sum(facts["splits"].values()) == 4 and facts["out"] == str(tmp_path / "d")
    )
    code, out, _ = call("make", src, "--out", tmp_path / "e", "--interp", "none", "--json", "--dry-run")
    dry = json.loads(out)
    assert code == 0 and dry["dry_run"] and dry["planned"] == 4 and dry["estimate_bytes"] > 0


@pytest.mark.parametrize(
    "twice",
    [
        ["--out", "a", "--out", "b"],
        ["--window", "5", "--window", "7"],
        ["--recipe", "demo", "--recipe", "bin"],
    ],
)
def test_a_value_given_twice_is_refused(src, twice):
    fails(2, f"{twice[0]} is given 2 times", "make", src, *twice)


def test_recipes_are_listed_and_shown():
    code, out, _ = call("recipes")
    assert code == 0 and all(name in out for name in builtin_recipes())
    for name in builtin_recipes():
        code, out, _ = call("recipes", name)
        assert code == 0
        for key in tomllib.loads(find_recipe(name).read_text()).keys() - {"name", "cite"}:
            assert f"--{key.replace('_', '-')} " in out
    fails(2, "no recipe named 'nope'", "recipes", "nope")


def test_options_win_over_the_recipe_file_and_the_result_is_written_down(src, tmp_path):
    (tmp_path / "r.toml").write_text('interp = "none"\nwindow = 7\nseed = 3\nworkers = 1\n')
    assert (
        call("make", "--src", src, "--out", tmp_path / "d", "--recipe", tmp_path / "r.toml", "--window", "5")[
            0
        ]
        == 0
    )
    text = (tmp_path / "d" / "recipe.toml").read_text()
    assert 'window = "5"' in text and "seed = 3" in text and 'name = "r"' in text


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--window", "2"], "window"),
        (["--window", "9-7"], "window"),
        (["--window", "x"], "window"),
        (["--fps-up", "0"], "--fps-up: must be"),
        (["--stride", "0"], "stride"),
        (["--interp", "magic"], "interp"),
        (["--crf", "/nope.npy"], "/nope.npy"),
        (["--format", "jpg"], "format"),
        (["--val-fraction", "1"], "--val-fraction: must be"),
        (["--max-samples", "0"], "--max-samples: must be"),
        (["--workers", "0"], "workers"),
        (["--engine", "ray"], "engine"),
        (["--recipe", "nope"], "no recipe named 'nope'"),
        (["--window", "99"], "a window needs 99"),
        (["--tile", "4096"], "smaller than a tile"),
    ],
)
def test_a_wrong_option_is_named_and_nothing_is_written(src, tmp_path, args, says):
    fails(2, says, "make", "--src", src, "--out", tmp_path / "d", *args)
    assert not list((tmp_path / "d").glob("*.tar")) and not (tmp_path / "d" / "recipe.toml").exists()


def test_unknown_keys_and_broken_recipes_are_named(src, tmp_path):
    (tmp_path / "r.toml").write_text("windw = 7\n")
    fails(2, "did you mean 'window'", "make", "--src", src, "--recipe", tmp_path / "r.toml")
    (tmp_path / "r.toml").write_text("window = \n")
    fails(2, "not a readable TOML", "make", "--src", src, "--recipe", tmp_path / "r.toml")
    assert call("make", "--src", src, "--nope")[0] == 2


def test_bad_sources_are_one_line_each(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("this is no film")
    (tmp_path / "zero.mp4").write_bytes(b"")
    frames_folder(tmp_path / "one", 1)
    fails(2, "no such file or folder", "make", "--src", tmp_path / "none", "--out", tmp_path / "d")
    fails(2, "empty", "make", "--src", tmp_path / "empty", "--out", tmp_path / "d")
    fails(2, "text.mp4", "make", "--src", tmp_path / "text.mp4", "--out", tmp_path / "d")
    fails(2, "zero.mp4", "make", "--src", tmp_path / "zero.mp4", "--out", tmp_path / "d")
    fails(2, "1 frame", "make", "--src", tmp_path / "one", "--out", tmp_path / "d")
    fails(2, "--src", "make", "--out", tmp_path / "d")


def test_bad_clips_among_good_ones_are_counted(src, tmp_path):
    (src / "broken.mp4").write_text("no film")
    frames_folder(src / "one", 1)
    code, out, _ = call(
        "make",
        "--src",
        src / "clip0",
        "--src",
        src / "broken.mp4",
        "--src",
        src / "one",
        "--out",
        tmp_path / "d",
        "--interp",
        "none",
        "--workers",
        1,
    )
    assert (
        code == 1
        and "not used:" in out
        and "broken.mp4" in out
        and "too-short" in out
        and out.startswith("2 samples")
    )


def test_mixed_frame_kinds_and_odd_paths(tmp_path):
    clip = frames_folder(tmp_path / "my vidéos" / "日本 #1", 27)
    grey = cv2.imread(str(clip / "000003.png"), cv2.IMREAD_GRAYSCALE)
    cv2.imencode(".png", grey)[1].tofile(clip / "000003.png")
    rgba = cv2.cvtColor(cv2.imread(str(clip / "000004.png")), cv2.COLOR_BGR2BGRA)
    cv2.imencode(".png", rgba)[1].tofile(clip / "000004.png")
    deep = cv2.imread(str(clip / "000012.png")).astype(np.uint16) * 257
    cv2.imencode(".png", deep)[1].tofile(clip / "000012.png")
    code, out, err = call(
        "make",
        "--src",
        tmp_path / "my vidéos",
        "--out",
        tmp_path / "a ü b",
        "--interp",
        "none",
        "--workers",
        1,
    )
    assert code in (0, 1) and "of 3:" in out + "of 3:", err
    samples = int(out.split()[0])
    rejected = int(out.split("rejected ")[1].split()[0]) if "rejected" in out else 0
    assert samples + rejected == 3, "every planned window is a sample or a counted reject"


def test_another_recipe_over_old_shards_exits_2_and_says_how_to_go_on(src, tmp_path):
    base = ["make", "--src", src, "--out", tmp_path / "d", "--interp", "none", "--workers", 1]
    assert call(*base)[0] == 0
    line = fails(2, "seed: 0 there, 1 now", *base, "--seed", 1)
    assert "--overwrite" in line and "--out" in line
    assert call(*base, "--seed", 1, "--overwrite")[0] == 0
    assert call("verify", tmp_path / "d")[0] == 0


def test_dry_run_tells_and_writes_nothing(src, tmp_path):
    code, out, _ = call("make", "--src", src, "--out", tmp_path / "d", "--interp", "none", "--dry-run")
    assert code == 0 and "at most 4 samples" in out and "disk about" in out and "time about" in out
    assert not (tmp_path / "d").exists()
    made = call("make", "--src", src, "--out", tmp_path / "d", "--interp", "none", "--workers", 1)
    assert made[0] == 0 and made[1].startswith("4 samples")


def test_the_disk_a_dry_run_foretells_is_what_it_takes(tmp_path):
    frames_folder(tmp_path / "src" / "c", 60, size=(320, 240))
    from blursynth.run.make import make

    told = make(tmp_path / "src", tmp_path / "d", interp="none", dry_run=True, workers=1)
    done = make(tmp_path / "src", tmp_path / "d", interp="none", workers=1, quiet=True)
    assert told.planned == done.samples == 6
    assert told.estimate_bytes == pytest.approx(done.bytes, rel=0.15)
    assert told.estimate_s is not None and 0 < told.estimate_s < 60


def test_an_out_that_cannot_be_written_is_one_line(src, tmp_path):
    (tmp_path / "file").write_text("x")
    fails(2, "is a file", "make", "--src", src, "--out", tmp_path / "file", "--interp", "none")
    fails(1, "cannot write there", "make", "--src", src, "--out", "/proc/blursynth/d", "--interp", "none")


def test_verify_and_explain_fail_in_one_line(tmp_path):
    fails(2, "no such folder", "verify", tmp_path / "none")
    fails(2, "no such folder", "explain", tmp_path / "none", "key")
    fails(2, "holds no shards", "verify", tmp_path)
    (tmp_path / "train-000000.tar").write_bytes(b"garbage")
    fails(1, "train-000000.tar", "explain", tmp_path, "key")
    code, out, _ = call("verify", tmp_path)
    assert code == 1 and "problem:" in out


def test_help_comes_without_loading_the_decoder():
    code = "import sys, blursynth.cli.main; print([m for m in ('cv2', 'numba', 'av', 'torch') if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


@pytest.mark.parametrize("command", ["make", "verify", "explain", "audit", "inspect"])
def test_each_command_has_help(command):
    code, out, _ = call(command, "--help")
    assert code == 0 and len(out) > 150


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_names_that_are_no_text_or_command_a_terminal_are_shown_and_nothing_else(tmp_path):
    """A name that is not UTF-8, and one with a terminal's escape and a bidi mark: made, verified, explained, audited."""
    for n, name in enumerate((b"caf\xe9", b"a\x1b[2J\xe2\x80\xaeb")):
        frames_folder(tmp_path / "x", 20, seed=n)
        (tmp_path / "src").mkdir(exist_ok=True)
        (tmp_path / "x").rename(tmp_path / "src" / os.fsdecode(name))
    args = ["--interp", "none", "--workers", "1", "--gate", "off", "--noise", "off"]
    told = []
    for call_args in (["make", tmp_path / "src", "--out", tmp_path / "d", *args], ["verify", tmp_path / "d"], ["audit", tmp_path / "src"]):  # fmt: skip
        code, out, err = call(*call_args)
        assert code == 0, err
        told.append(out + err)
    (key,) = {s["__key__"] for p in (tmp_path / "d").glob("*.tar") for s in read_shard(p) if b"u202eb" in s["json"] and b'"first": 0' in s["json"]}  # fmt: skip
    code, out, err = call("explain", tmp_path / "d", key)
    assert code == 0, err
    told.append(out)
    assert "caf\\xe9" in told[0] and "a\\x1b[2J\\u202eb" in told[0] and "a\\x1b[2J\\u202eb" in out
    for text in (*told, (tmp_path / "d" / "README.md").read_text(encoding="utf-8")):
        assert not {"\x1b", "\u202e"} & set(text)
