"""The command that a message gives for a missing package installs this copy of blursynth, wherever it came from."""

import json
from importlib import metadata

import pytest

from blursynth.common.extras import install_extra


@pytest.mark.parametrize(
    "origin, command",
    [
        (None, "pip install 'blursynth[s3]'"),  # from an index
        ({"url": "file:///src/blur", "dir_info": {"editable": True}}, "pip install -e '/src/blur[s3]'"),
        ({"url": "file:///src/my%20blur", "dir_info": {}}, "pip install '/src/my blur[s3]'"),
        (
            {"url": "file:///d/blursynth-9-py3-none-any.whl", "archive_info": {}},
            "pip install '/d/blursynth-9-py3-none-any.whl[s3]'",
        ),
        (
            {"url": "https://x.org/blursynth-9.tar.gz", "archive_info": {}},
            "pip install 'blursynth[s3] @ https://x.org/blursynth-9.tar.gz'",
        ),
        (
            {"url": "https://x.org/b.git", "vcs_info": {"vcs": "git", "commit_id": "0"}},
            "pip install 'blursynth[s3] @ git+https://x.org/b.git'",
        ),
    ],
)
def test_the_command_names_where_this_copy_came_from(monkeypatch, origin, command):
    class Installed:
        def read_text(self, name):
            return json.dumps(origin) if origin and name == "direct_url.json" else None

    monkeypatch.setattr(metadata, "distribution", lambda name: Installed())
    assert install_extra("s3") == command


def test_without_an_installation_the_index_is_named(monkeypatch):
    def gone(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", gone)
    assert install_extra("train") == "pip install 'blursynth[train]'"
