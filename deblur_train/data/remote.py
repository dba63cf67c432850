"""Shards under a URL (``s3://bucket/data``): each is fetched once into a cache folder of this machine, and checked.

The cache is ``$DEBLUR_TRAIN_CACHE``, else ``~/.cache/deblur-train``, one folder a URL. It grows to the size of the
shards of the splits in use and no further: what is gone from the URL is removed. Reading is local from then on, so a
run's order and its resuming are those of a local folder with the same shards.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from blursynth.common.atomic import open_own, part_beside, write_atomic
from blursynth.common.lock import flock
from blursynth.common.text import counted
from blursynth.shards.schema import KEPT
from blursynth.shards.store import Store, StoreError, local_folder

FETCHERS = 4  # shards at a time
ATTEMPTS = 2  # for a shard that arrives damaged


def cache_folder(url: str) -> Path:
    return local_folder(url, "DEBLUR_TRAIN_CACHE", "deblur-train")


def fetch_shards(url: str, split: str) -> tuple[list[Path], list[str]]:
    """Local copies of the finished shards of a split, in order of their names, and the names of unfinished ones.

    A shard is finished when its sidecar lies beside it; size and sha256 must be the sidecar's. Raises StoreError.
    """
    store = Store(url)
    url = store.url
    listed = store.sizes()
    if not listed:
        raise StoreError(f"{url}: no such bucket or folder, or nothing in it")
    shard = re.compile(rf"{split}-\d{{6,}}\.tar")
    tars = sorted(n for n in listed if shard.fullmatch(n))
    sides = store.read([_sidecar(n) for n in tars if _sidecar(n) in listed])
    want = {n: sides[_sidecar(n)] for n in tars if _sidecar(n) in sides}
    folder = cache_folder(url)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            missing = [n for n, side in want.items() if not _is_cached(folder / n, side)]
            _check_room(url, folder, sum(listed[n] for n in missing))
            if missing:
                size = sum(listed[n] for n in missing) / 1e6
                print(
                    f"fetching {counted(len(missing), f'{split} shard')} ({size:.1f} MB) of {url} to {folder}",
                    file=sys.stderr,
                )
            with ThreadPoolExecutor(FETCHERS) as pool:
                list(pool.map(lambda n: _fetch(store, folder / n, want[n]), missing))
            for name in filter(KEPT.fullmatch, listed):  # a response curve; its name says its content
                if not (folder / name).exists():
                    write_atomic(folder / name, store.read([name])[name])
            for old in folder.iterdir():
                name = old.name if old.suffix == ".tar" else f"{old.stem}.tar"
                if old.suffix == ".part" or (shard.fullmatch(name) and name not in want):
                    old.unlink()
    except OSError as e:
        raise StoreError(f"{folder}: {e.strerror or e}; DEBLUR_TRAIN_CACHE names another cache") from None
    return [folder / n for n in want], [n for n in tars if n not in want]


def _sidecar(tar: str) -> str:
    return tar.removesuffix(".tar") + ".json"


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


def _fetch(store: Store, tar: Path, side: bytes) -> None:
    size, digest = _facts(side)
    tar.with_suffix(".json").unlink(missing_ok=True)
    with part_beside(tar) as part:
        for _ in range(ATTEMPTS):
            store.download(tar.name, part)
            with part.open("rb") as f:
                if part.stat().st_size == size and hashlib.file_digest(f, "sha256").hexdigest() == digest:
                    break
        else:
            raise StoreError(
                f"{store.url}/{tar.name}: size or sha256 is not the one in its sidecar; make it again with 'blursynth make'"
            )
    write_atomic(tar.with_suffix(".json"), side)


def _check_room(url: str, folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if need > free:
        raise StoreError(
            f"{url}: {need / 1e9:.1f} GB to fetch, {free / 1e9:.1f} GB free at {folder}; DEBLUR_TRAIN_CACHE names another cache"
        )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process fetches; the other ranks of the machine wait, and then find all there."""
    with open_own(folder / "lock") as f:
        flock(f, exclusive=True, wait=True)  # where there are no locks: fetched twice at worst
        yield
