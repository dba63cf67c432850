"""Shards under a URL (``s3://bucket/data``): each is fetched once into a cache folder of this machine, and checked.

The cache is ``$DEBLUR_TRAIN_CACHE``, else ``~/.cache/deblur-train``, one folder a URL. It grows to the size of the
shards of the splits in use and no further: what is gone from the URL is removed. Reading is local from then on, so a
run's order and its resuming are those of a local folder with the same shards.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

FETCHERS = 4  # shards at a time
ATTEMPTS = 2  # for a shard that arrives damaged


class RemoteError(Exception):
    """The shards cannot be fetched; one line that names the URL, what is wrong and what to do."""


def cache_folder(url: str) -> Path:
    base = os.environ.get("DEBLUR_TRAIN_CACHE")
    root = (
        Path(base)
        if base
        else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "deblur-train"
    )
    return root / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


def fetch_shards(url: str, split: str) -> tuple[list[Path], list[str]]:
    """Local copies of the finished shards of a split, in order of their names, and the names of unfinished ones.

    A shard is finished when its sidecar lies beside it; size and sha256 must be the sidecar's. Raises RemoteError.
    """
    url = url.rstrip("/")
    fs, root = _open(url)
    with _told(url):
        fs.invalidate_cache()
        listed = {
            f["name"].rpartition("/")[2]: f["size"] for f in fs.ls(root, detail=True) if f["type"] == "file"
        }
        shard = re.compile(rf"{split}-\d{{6,}}\.tar")
        tars = sorted(n for n in listed if shard.fullmatch(n))
        names = [n for n in tars if _sidecar(n) in listed]
        sides = fs.cat([f"{root}/{_sidecar(n)}" for n in names]) if names else {}
    want = {n: sides[path] for n in names for path in sides if path.rpartition("/")[2] == _sidecar(n)}
    folder = cache_folder(url)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            missing = [n for n, side in want.items() if not _is_cached(folder / n, side)]
            _check_room(url, folder, sum(listed[n] for n in missing))
            if missing:
                size = sum(listed[n] for n in missing) / 1e6
                print(
                    f"fetching {len(missing)} {split} shards ({size:.1f} MB) of {url} to {folder}",
                    file=sys.stderr,
                )
            with ThreadPoolExecutor(FETCHERS) as pool:
                list(pool.map(lambda n: _fetch(fs, url, f"{root}/{n}", folder / n, want[n]), missing))
            for old in folder.iterdir():
                name = old.name if old.suffix == ".tar" else f"{old.stem}.tar"
                if old.suffix == ".part" or (shard.fullmatch(name) and name not in want):
                    old.unlink()
    except OSError as e:
        raise RemoteError(f"{folder}: {e.strerror or e}; DEBLUR_TRAIN_CACHE names another cache") from None
    return [folder / n for n in want], [n for n in tars if n not in want]


def _sidecar(tar: str) -> str:
    return tar.removesuffix(".tar") + ".json"


def _open(url: str) -> tuple[Any, str]:
    if "://" not in url:
        raise RemoteError(f"{url}//: names no bucket; give s3://BUCKET/FOLDER")
    try:
        import fsspec

        fs, root = fsspec.core.url_to_fs(url)
    except ImportError as e:
        raise RemoteError(f"{url}: needs a package ({e}); pip install 'blursynth[s3]'") from None
    except ValueError as e:
        raise RemoteError(f"{url}: {e}") from None
    return fs, root.rstrip("/")


def _is_cached(tar: Path, side: bytes) -> bool:
    """The copy's sidecar is written after the tar has been checked; both must still be those of the URL."""
    with contextlib.suppress(OSError):
        return tar.with_suffix(".json").read_bytes() == side and tar.stat().st_size == _facts(side)[0]
    return False


def _facts(side: bytes) -> tuple[int, str]:
    """Size and sha256 of the tar that a sidecar speaks of; impossible ones where it speaks of none."""
    try:
        facts = json.loads(side)
        return int(facts["bytes"]), str(facts["sha256"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return -1, ""


def _fetch(fs: Any, url: str, remote: str, tar: Path, side: bytes) -> None:
    size, digest = _facts(side)
    tar.with_suffix(".json").unlink(missing_ok=True)
    part = tar.with_name(f"{tar.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        for _ in range(ATTEMPTS):
            with _told(url):
                fs.get_file(remote, str(part))
            with part.open("rb") as f:
                if part.stat().st_size == size and hashlib.file_digest(f, "sha256").hexdigest() == digest:
                    break
        else:
            raise RemoteError(
                f"{url}/{tar.name}: size or sha256 is not the one in its sidecar; make it again with 'blursynth make'"
            )
        part.replace(tar)
    finally:
        part.unlink(missing_ok=True)
    mark = tar.with_name(f"{tar.stem}.json.{uuid.uuid4().hex[:12]}.part")
    mark.write_bytes(side)
    mark.replace(tar.with_suffix(".json"))


def _check_room(url: str, folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if need > free:
        raise RemoteError(
            f"{url}: {need / 1e9:.1f} GB to fetch, {free / 1e9:.1f} GB free at {folder}; DEBLUR_TRAIN_CACHE names another cache"
        )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process fetches; the other ranks of the machine wait, and then find all there."""
    with (folder / "lock").open("a") as f:
        with contextlib.suppress(
            ImportError, OSError
        ):  # Windows, or a network folder: fetched twice at worst
            import fcntl

            fcntl.flock(f, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _told(url: str) -> Iterator[None]:
    """Whatever the store's libraries raise, as one line; they share no base class."""
    try:
        yield
    except Exception as e:
        kind, text = type(e).__name__, " ".join(str(e).split())[:200]
        if isinstance(e, FileNotFoundError):
            why = f"no such bucket or folder ({text})"
        elif kind in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"):
            why = f"no credentials ({text}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        elif isinstance(e, PermissionError):
            why = f"not allowed ({text}); check the credentials and the bucket's policy"
        elif "Connect" in kind or "Timeout" in kind or isinstance(e, ConnectionError | TimeoutError):
            why = f"cannot be reached ({text}); check the network and AWS_ENDPOINT_URL"
        else:
            why = f"{kind}: {text}"
        raise RemoteError(f"{url}: {why}") from None
