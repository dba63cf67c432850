"""Files are written whole or not at all, and never through a link."""

from __future__ import annotations

import errno
import os
import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blursynth.common.atomic import open_new, open_own, part_beside, part_name, part_of, write_atomic


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_atomic(path, b"old")

    def half(f):
        f.write(b"ne")
        raise RuntimeError("died")

    with pytest.raises(RuntimeError):
        write_atomic(path, half)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_atomic(tmp_path / "ours", b"")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "plain").stat().st_mode
    )


def test_the_file_a_link_names_is_not_touched(tmp_path):
    precious = tmp_path / "precious"
    precious.write_bytes(b"keep")
    link = tmp_path / "dataset.json"
    link.symlink_to(precious)
    write_atomic(link, b"new")
    assert (precious.read_bytes(), link.read_bytes(), link.is_symlink()) == (b"keep", b"new", False)


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
@pytest.mark.parametrize("mode", ["a", "a+"])
def test_only_plain_files_are_opened_in_place(tmp_path, kind, mode):
    path, precious = tmp_path / "run.jsonl", tmp_path / "precious"
    precious.write_text("keep")
    if kind == "link":
        path.symlink_to(precious)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "made")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(OSError) as e:
        open_own(path, mode)
    assert str(path) in str(e.value)
    assert precious.read_text() == "keep" and not (tmp_path / "made").exists()


def test_a_plain_file_grows(tmp_path):
    for word in ("a", "b"):
        with open_own(tmp_path / "log") as f:
            f.write(word)
    assert (tmp_path / "log").read_text() == "ab"


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_part_is_told_by_its_name(tmp_path, name):
    if name not in (".", ".."):
        assert part_of(part_name(tmp_path / name).name) == name


@pytest.mark.parametrize("name", ["movie.part", "train-000000.tar.part", "x.0123456789ABcdef.part", ".part"])
def test_other_peoples_parts_are_not_ours(name):
    assert part_of(name) is None


def test_an_encoder_may_open_the_part_by_name(tmp_path):
    with part_beside(tmp_path / "new" / "film.mp4") as part:
        part.write_bytes(b"film")
        assert not (tmp_path / "new" / "film.mp4").exists()
    assert (tmp_path / "new" / "film.mp4").read_bytes() == b"film"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("leads_to", ["pipe", "/dev/null", "/proc/self/fd/0"])
def test_a_device_or_a_pipe_is_not_replaced(tmp_path, leads_to):
    """By root a rename would put a file in the place of /dev/null."""
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "link"
    path.symlink_to(leads_to)
    for there in (path, tmp_path / "pipe"):
        with pytest.raises(FileExistsError, match="is a device or a pipe"):
            write_atomic(there, b"x")
    assert str(path.readlink()) == leads_to and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert {p.name for p in tmp_path.iterdir()} == {"pipe", "link"}


def test_a_new_file_takes_no_other_ones_place(tmp_path):
    precious = tmp_path / "precious"
    precious.write_bytes(b"keep")
    (tmp_path / "link").symlink_to(precious)
    (tmp_path / "dangling").symlink_to(tmp_path / "made")
    for name in ("precious", "link", "dangling"):
        with pytest.raises(FileExistsError):
            open_new(tmp_path / name)
    assert precious.read_bytes() == b"keep" and not (tmp_path / "made").exists()


def test_an_error_names_the_file_that_was_to_be_written(tmp_path):
    """A full disk's error names none, and one of the half-written file a name that nobody knows."""

    def full(f):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError) as e:
        write_atomic(tmp_path / "x", full)
    assert e.value.filename == str(tmp_path / "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError) as e:
        write_atomic(tmp_path / "folder", b"")
    assert (e.value.filename, e.value.filename2) == (str(tmp_path / "folder"), None)

    def other(f):
        (tmp_path / "none").read_bytes()

    with pytest.raises(FileNotFoundError) as e:
        write_atomic(tmp_path / "x", other)
    assert e.value.filename == str(tmp_path / "none")
