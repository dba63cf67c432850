"""``--out s3://bucket/data``: shards are made in a staging folder of this machine and uploaded one by one.

What is done is what lies in the bucket: a sidecar of this plan, beside a tar of its size. The staging folder holds the
shards in the making, copies of the small files, and this machine's lock and source hashes; losing it loses no shard.

A shard goes up as: old sidecar away, tar, the tar read back and its sha256 compared, sidecar. Killed anywhere in
between, the bucket holds no sidecar for it, and the next run uploads what is staged or makes it again.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from blursynth.common.atomic import write_atomic
from blursynth.recipe import Recipe
from blursynth.run.folder import HEAD, OWN_FILES, Output, OutputError
from blursynth.run.plan import Plan
from blursynth.shards.schema import KEPT
from blursynth.shards.shard import (
    ShardError,
    parse_sidecar,
    read_sidecar,
    shard_of,
    tar_matches,
    without_lists,
)
from blursynth.shards.store import Store, StoreError, is_url, local_path, staging_folder
from blursynth.shards.table import NAME as TABLE

AT_ONCE = 256  # small objects that are held at a time
ATTEMPTS = 2  # an upload that arrives as other bytes is sent once more
INDEX_FILES = ("_info.json", "croissant.json", "dataset.json", "run.jsonl")


def open_output(out: str) -> Output:
    """The folder or the bucket that ``out`` names. Raises OutputError."""
    out = local_path(out)
    return RemoteOutput(out) if is_url(out) else Output(out)


@contextlib.contextmanager
def _as_output_error(more: str = "") -> Iterator[None]:
    try:
        yield
    except StoreError as e:
        raise OutputError(f"{e}{more}", 1) from None


class RemoteOutput(Output):
    """The same rules as ``Output``'s, for objects under a URL."""

    def __init__(self, url: str) -> None:
        super().__init__(staging_folder(url))
        with _as_output_error():
            self.store = Store(url)
        self.label = self.store.url
        self.sizes: dict[str, int] = {}  # of the objects there
        self.sides: dict[str, dict[str, Any]] = {}  # shard -> sidecar, of those there

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps a second ``make`` of this machine (or staging folder) away, then looks at what the bucket holds."""
        with _as_output_error():
            self.store.check()
        with super().lock():
            with _as_output_error():
                self._look()
            yield

    @contextlib.contextmanager
    def glance(self) -> Iterator[None]:
        """What the bucket holds; another run may be at work in the staging folder."""
        staged = self.path
        with tempfile.TemporaryDirectory(prefix="blursynth-") as folder:
            self.path = Path(folder)
            try:
                with _as_output_error():
                    self.store.check()
                    self._look()
                yield
            finally:
                self.path = staged

    def _look(self) -> None:
        self.sizes, self.sides = self.store.sizes(), {}
        names = [n for n in self.sizes if n.endswith(".json") and shard_of(n)]
        for name, data in self._read(sorted(names)):
            with contextlib.suppress(ShardError):  # not ours, or torn by hand; its shard is made again
                self.sides[name[:-5]] = without_lists(parse_sidecar(data, f"{self.label}/{name}"))
        # The small files as they are there: what is not there must not be here from an earlier run either.
        small = [*OWN_FILES, "README.md", *filter(KEPT.fullmatch, self.sizes)]
        found = self.store.read([n for n in small if n in self.sizes and n != TABLE])
        if TABLE in self.sizes:  # a row a sample: the head tells whose it is
            found[TABLE] = self.store.head(TABLE, HEAD)
        with contextlib.suppress(OSError):
            # A run that was stopped wrote on here and did not come to upload it.
            log = (self.path / "run.jsonl").read_bytes()
            if "recipe.toml" in found and log.startswith(found.get("run.jsonl", b"")):
                found["run.jsonl"] = log
        for name in small:
            if name in found:
                write_atomic(self.path / name, found[name])
            else:
                (self.path / name).unlink(missing_ok=True)

    def _read(self, names: list[str]) -> Iterator[tuple[str, bytes]]:
        """Small objects in this order, a few held at a time; those that are gone are left out."""
        for at in range(0, len(names), AT_ONCE):
            found = self.store.read(names[at : at + AT_ONCE])
            yield from ((name, found[name]) for name in names[at : at + AT_ONCE] if name in found)

    def rows(self, shards: Iterable[str]) -> Iterator[str]:
        with _as_output_error():
            for name, data in self._read([f"{name}.json" for name in shards]):
                yield parse_sidecar(data, f"{self.label}/{name}").get("csv", "")

    def begin(self, recipe: Recipe, plan: Plan, kept: Mapping[str, bytes] = MappingProxyType({})) -> None:
        """Lay down the recipe there, upload what a killed run had made and not delivered, sweep the rest."""
        super().begin(recipe, plan, kept)
        for name in (*kept, "recipe.toml"):
            self._send(name)
        done = self.finished(plan)
        names = {s for p in self.path.iterdir() if (s := shard_of(p.name))}
        for name in sorted(names):
            side = None
            with contextlib.suppress(ShardError):
                side = read_sidecar(self.path / f"{name}.json")
            ours = side is not None and side["plan_sha256"] == plan.sha256 and name in plan.shards
            if ours and name not in done and tar_matches(self.path / f"{name}.tar", side or {}):
                self.deliver(name)
            else:
                self._unstage(name)

    def deliver(self, shard: str) -> None:
        """Upload one finished shard, tar first and sidecar last, and drop the staged copy. Raises OutputError."""
        tar, side_path = self.path / f"{shard}.tar", self.path / f"{shard}.json"
        try:
            side = read_sidecar(side_path)
        except ShardError:
            side = None
        if side is None:
            raise OutputError(
                f"{self.label}: {shard} was made, but is not in the staging folder {self.path}; "
                "workers on other machines need BLURSYNTH_STAGING to name a folder they share",
                1,
            )
        with _as_output_error("; what is finished stays, the same command goes on"):
            if f"{shard}.json" in self.sizes:  # must never stand beside another tar, not even for a moment
                self._drop(f"{shard}.json")
            if side["samples"]:
                self._send_tar(tar, side)
            elif tar.name in self.sizes:
                self._drop(tar.name)
            data = side_path.read_bytes()
            self.store.write(side_path.name, data)
        self.sizes[side_path.name], self.sides[shard] = len(data), without_lists(side)
        self._unstage(shard)

    def _send_tar(self, tar: Path, side: dict[str, Any]) -> None:
        for _ in range(ATTEMPTS):
            self.store.upload(tar, tar.name)
            self.sizes[tar.name] = side["bytes"]
            if self.store.sha256(tar.name) == side["sha256"]:
                return
        self._drop(tar.name)
        self._unstage(tar.stem)  # it may be the staged copy that is bad
        raise OutputError(
            f"{self.label}/{tar.name}: arrived with another sha256 than it was made with, {ATTEMPTS} times; "
            "check the disk and the network; the same command makes it again",
            1,
        )

    def _unstage(self, shard: str) -> None:
        # Sidecar first, as everywhere: without one a tar is not taken for finished.
        for ext in ("json", "tar"):
            (self.path / f"{shard}.{ext}").unlink(missing_ok=True)

    def _drop(self, name: str) -> None:
        self.store.remove(name)
        self.sizes.pop(name, None)
        self.sides.pop(name.removesuffix(".json"), None)

    def _send(self, name: str) -> None:
        """A small file of the staging folder, as it is now."""
        with _as_output_error():
            data = (self.path / name).read_bytes()
            self.store.write(name, data)
            self.sizes[name] = len(data)

    def forget(self, shard: str) -> None:
        with _as_output_error():
            self._drop(f"{shard}.json")

    def _names(self) -> list[str]:
        return sorted(self.sizes)

    def _remove(self, name: str) -> None:
        with _as_output_error():
            self._drop(name)
        (self.path / name).unlink(missing_ok=True)

    def clear(self) -> None:
        super().clear()
        for p in self.path.iterdir():  # staged, never delivered; a card that is not ours must stay seen
            if not p.is_dir() and p.name != "README.md":
                p.unlink()

    def finished(self, plan: Plan) -> dict[str, dict[str, Any]]:
        found = {}
        for name in plan.shards:
            side, size = self.sides.get(name), self.sizes.get(f"{name}.tar", 0)
            if (
                side
                and side["plan_sha256"] == plan.sha256
                and size == (side["bytes"] if side["samples"] else 0)
            ):
                found[name] = side
        return found

    def save_failures(self, failed: dict[str, dict[str, Any]]) -> None:
        super().save_failures(failed)
        if failed:
            self._send("failed.json")
        elif "failed.json" in self.sizes:
            with _as_output_error():
                self._drop("failed.json")

    def finish(self) -> None:
        """Upload the index, dataset.json after what it speaks of."""
        if self.owns_card():
            self._send("README.md")
        with _as_output_error():
            self.store.upload(self.path / TABLE, TABLE)
        self.sizes[TABLE] = (self.path / TABLE).stat().st_size
        for name in INDEX_FILES:
            self._send(name)

    def free_bytes(self) -> int | None:
        return None  # a bucket has no end

    def _sidecars(self) -> dict[str, dict[str, Any]]:
        return dict(sorted(self.sides.items()))
