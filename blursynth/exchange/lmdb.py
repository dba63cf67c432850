"""A folder of pictures as an LMDB that BasicSR, NAFNet and their kin read.

Their rules: the folder's name ends in ``.lmdb``; a value is the picture file's bytes; its key is the file's name without
extension; ``meta_info.txt`` holds a line ``NAME.png (HEIGHT,WIDTH,CHANNELS) COMPRESSION`` for each, and a key is read off it
as what stands before the first dot.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blursynth.common.errors import UsageError
from blursynth.common.extras import install_extra
from blursynth.shards.picture import image_size
from blursynth.shards.shard import ShardError

GROW = 1 << 30  # bytes; on Linux a file with holes, so that what is not used takes no room
AT_ONCE = 32  # pictures a transaction


class PairsLmdb:
    """``put`` pictures, then ``close``; the database grows as it must."""

    def __init__(self, path: Path) -> None:
        try:
            import lmdb
        except ImportError:
            raise UsageError(f"--lmdb needs the package lmdb: {install_extra('lmdb')}") from None
        self.full: Any = lmdb.MapFullError
        self.path, self.size = path, GROW
        self.env = lmdb.open(str(path), map_size=self.size)
        self.lines: list[str] = []
        self.waiting: list[tuple[bytes, bytes]] = []

    def put(self, key: str, ext: str, data: bytes) -> None:
        """Raises ShardError for what is no picture, and for a key that BasicSR would cut."""
        if (size := image_size(data)) is None or "." in key:
            raise ShardError(f"{key}: {'a dot in its name' if size else 'not a picture'}")
        self.waiting.append((key.encode("ascii"), data))
        self.lines.append(f"{key}.{ext} ({size[1]},{size[0]},3) 1")
        if len(self.waiting) >= AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        while True:
            try:
                with self.env.begin(write=True) as txn:
                    for key, data in self.waiting:
                        txn.put(key, data)
                break
            except self.full:
                self.size += GROW + 2 * sum(len(data) for _, data in self.waiting)
                self.env.set_mapsize(self.size)
        self.waiting.clear()

    def close(self) -> None:
        self._flush()
        self.env.sync()
        self.env.close()
        (self.path / "meta_info.txt").write_text("\n".join(sorted(self.lines)) + "\n", encoding="ascii")
