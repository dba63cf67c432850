"""Where finished shards lie, for those who read them: a folder, or a bucket that is fetched file by file.

Nothing is kept: of a bucket no more than the files in use lie on this machine's disk at any time.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from blursynth.recipe import RecipeError
from blursynth.run.folder import OutputError
from blursynth.shards.shard import ShardError, shard_of
from blursynth.shards.store import Store, StoreError, is_url, local_path


class ShardFiles:
    """The files directly in a folder of shards, or under a URL. Raises OutputError, code 1 where the store fails."""

    def __init__(self, data: str | Path) -> None:
        self.label = local_path(str(data)).rstrip("/") or "/"
        self.store = None
        if is_url(self.label):
            with _as_output_error():
                self.store = Store(self.label)
                self.store.check()
                self.names = set(self.store.sizes())
        elif Path(self.label).is_dir():
            self.names = {p.name for p in Path(self.label).iterdir()}
        else:
            raise OutputError(
                f"{self.label}: no such folder; give the folder of shards that blursynth make wrote"
            )

    def shards(self) -> list[str]:
        """Names, without extension, of whatever has a tar or a sidecar. Raises OutputError when there is none."""
        if not (shards := sorted({s for n in self.names if (s := shard_of(n))})):
            raise OutputError(
                f"{self.label}: holds no shards (train-000000.tar ...); give the folder that blursynth make wrote"
            )
        return shards

    @contextlib.contextmanager
    def at_hand(self, *names: str) -> Iterator[Path]:
        """A folder in which these files lie, those of them that there are. Errors raised inside name the URL."""
        if self.store is None:
            yield Path(self.label)
            return
        with tempfile.TemporaryDirectory(prefix="blursynth-") as folder:
            with _as_output_error():
                for name in names:
                    if name in self.names:
                        self.store.download(name, Path(folder) / name)
            try:
                yield Path(folder)
            except (ShardError, RecipeError) as e:
                raise type(e)(self.told(str(e), folder)) from None

    def told(self, text: str, folder: str | Path) -> str:
        """A message with the place that a person knows, for the folder that was at hand."""
        return text.replace(str(folder), self.label) if self.store else text


@contextlib.contextmanager
def _as_output_error() -> Iterator[None]:
    try:
        yield
    except StoreError as e:
        raise OutputError(str(e), 1) from None
