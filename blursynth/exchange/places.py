"""Where ``unpack`` puts a sample: its folder and file name. No two samples in one place, no two clips in one folder."""

from __future__ import annotations

import json
from typing import Any

from blursynth.shards.partners import SPLITS
from blursynth.shards.shard import ShardError


class Places:
    """Gives each sample of a set its place, in the order they are asked for."""

    def __init__(self, layout: str) -> None:
        self.layout = layout
        self.clips: dict[tuple[str, str], str] = {}  # split, clip -> its folder
        self.taken: set[tuple[str, ...]] = set()

    def of(self, split: str, sample: dict[str, Any]) -> tuple[str, str]:
        """(folder, file name without extension): "" and the key, or for ``gopro`` the clip and the number of the sharp
        frame. Raises ShardError."""
        if self.layout != "gopro":
            return "", sample["__key__"]
        clip, wanted, name = _clip_and_frame(sample)
        if (split, clip) not in self.clips:
            self.clips[split, clip] = self._free(wanted, split)
        folder = self.clips[split, clip]
        return folder, self._free(name, split, folder)  # there may be two exposures around one frame

    def _free(self, name: str, *where: str) -> str:
        """The name, or name_2, name_3... where that is taken."""
        free, n = name, 1
        while (*where, free) in self.taken:
            n += 1
            free = f"{name}_{n}"
        self.taken.add((*where, free))
        return free


def _clip_and_frame(sample: dict[str, Any]) -> tuple[str, str, str]:
    """What is the clip's alone, the name its folder should have, and the frame's, by the sample's JSON. Raises ShardError."""
    key = sample["__key__"]
    try:
        meta = json.loads(sample["json"])
        packed, source = meta.get("packed"), meta["source"]
        if packed:
            clip, name = str(packed["scene"]), str(packed["name"])
            parts = clip.replace("\\", "/").split("/")
            if packed.get("official"):  # their folders' names, train and test, say what SPLIT says
                parts = [p for p in parts if p.lower() not in SPLITS] or parts
        else:
            # The key starts with what is the clip's alone, where two clips have one name.
            window = str(meta["tile"]["window"] if meta.get("tile") else key)
            clip, name = window.rsplit("_", 2)[0], f"{source['target']:06d}{key.removeprefix(window)}"
            parts = clip.replace("\\", "/").split("/")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as e:
        raise ShardError(f"{key}.json: does not say its clip and frame ({type(e).__name__}: {e})") from None
    folder = "_".join(p for p in parts if p not in ("", ".", ".."))
    name = name.replace("/", "_").replace("\\", "_")
    if "\0" in folder + name:
        raise ShardError(f"{key}.json: names its clip or frame with a null byte")
    return clip, folder.lstrip(".") or "clip", name.lstrip(".") or key  # a hidden file is no reader's
