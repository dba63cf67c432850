"""The command that installs an extra into this environment, for messages about a package that is missing."""

from __future__ import annotations

import json
import shlex
from importlib import metadata
from urllib.parse import unquote, urlsplit


def install_extra(extra: str) -> str:
    """``pip install 'blursynth[train]'``, or with the checkout, wheel or repository that this copy came from in its place.

    pip notes in ``direct_url.json`` where it took a package from, unless that was a package index.
    """
    try:
        origin = json.loads(metadata.distribution("blursynth").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        origin = {}
    return f"pip install {_target(origin, extra)}"


def _target(origin: dict, extra: str) -> str:
    url = str(origin.get("url", ""))
    if vcs := origin.get("vcs_info", {}).get("vcs"):
        return shlex.quote(f"blursynth[{extra}] @ {vcs}+{url}")
    if url.startswith("file://"):
        editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
        return editable + shlex.quote(f"{unquote(urlsplit(url).path)}[{extra}]")
    if url:
        return shlex.quote(f"blursynth[{extra}] @ {url}")
    return shlex.quote(f"blursynth[{extra}]")
