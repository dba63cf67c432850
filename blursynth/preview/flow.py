"""Flow for the preview alone: small, fast, and from real frames only.

Nothing here touches what the synthesiser computes. Where no frame can be had there is no flow, and the reason is
said: a flow guessed from a blurred picture would look like a measurement.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from blursynth.preview.pictures import to_display

_MEASURE_PX = 480  # DIS at this size takes some 10 ms a pair and still sees motion of a quarter of a pixel


def dis_flow(
    first: np.ndarray, second: np.ndarray, longest: int = _MEASURE_PX, fine: bool = False
) -> np.ndarray:
    """DIS flow from one frame to the next, computed at a reduced size.

    ``first``, ``second``: (H, W, 3) uint8 RGB of one shape. Returns (h, w, 2) float32, (dx, dy) in pixels of the full
    size, h and w at most ``longest``. ``fine`` takes DIS's medium preset: for the eye, as the fast one is blocky.
    """
    a, b = (cv2.cvtColor(to_display(f, longest), cv2.COLOR_RGB2GRAY) for f in (first, second))
    h, w = a.shape
    pad = [max(0, 16 - h), max(0, 16 - w)]  # DIS needs a patch or two to stand on
    if any(pad):
        a, b = (cv2.copyMakeBorder(g, 0, pad[0], 0, pad[1], cv2.BORDER_REPLICATE) for g in (a, b))
    dis: Any = cv2.DISOpticalFlow.create(
        cv2.DISOPTICAL_FLOW_PRESET_MEDIUM if fine else cv2.DISOPTICAL_FLOW_PRESET_FAST
    )
    flow = dis.calc(a, b, None)[:h, :w]
    return flow * np.array([first.shape[1] / w, first.shape[0] / h], np.float32)


def speeds(flow: np.ndarray) -> tuple[float, float]:
    """Median and 95th percentile of the speed of an (H, W, 2) flow, in its unit."""
    speed = np.hypot(flow[..., 0], flow[..., 1])
    median, p95 = np.percentile(speed, [50, 95])
    return float(median), float(p95)


class SourceFlow:
    """Flow recomputed from the sources of a data folder, for samples that carry no thumbnail of it."""

    def __init__(self, folder: Path, dataset: dict[str, Any], deadline: float):
        self.roots = _recorded_sources(dataset, folder)
        self.deadline = deadline
        self.clips: dict[str, Any] = {}

    def of(self, source: dict[str, Any], sharp: np.ndarray) -> tuple[np.ndarray | None, str]:
        """(flow or None, what it is or why there is none) for a sample's ``source`` group.

        The source's target frame must equal ``sharp``, (H, W, 3) uint8 RGB, byte for byte: a file of that name could
        by now be another one, and flow of other frames would be worse than none.
        """
        rel, target, last = source.get("path"), source.get("target"), source.get("last")
        if not isinstance(rel, str) or not rel or type(target) is not int or type(last) is not int:
            return None, "not stored with the sample, and its source is not named"
        missing = "not stored with the sample, and its source is not where it was"
        if time.monotonic() > self.deadline:
            return None, "not stored with the sample; recomputing it for more samples would take long"
        if not 0 <= target < last:
            return None, missing
        info = self._clip(rel)
        if info is None or last >= info.frames:
            return None, missing
        from blursynth.video.clip import read_frames

        frames = [f.rgb for f in read_frames(info, target, target + 1)]
        if len(frames) != 2 or frames[0] is None or frames[1] is None:
            return None, "not stored with the sample, and its source can no longer be decoded there"
        if frames[0].shape != sharp.shape or not np.array_equal(frames[0], sharp):
            return None, "not stored with the sample, and its source is no longer the same picture"
        return dis_flow(
            frames[0], frames[1]
        ), f"recomputed (DIS) from source frames {target} and {target + 1}"

    def _clip(self, rel: str) -> Any:
        if rel not in self.clips:
            from blursynth.video.clip import ClipError, probe_clip

            self.clips[rel] = None
            for root in self.roots:
                for path in (root / rel, root.parent / rel, root):
                    # `rel` comes out of a shard: it may name a file below the roots, never climb out of them.
                    if (
                        ".." in Path(rel).parts
                        or Path(rel).is_absolute()
                        or not path.exists()
                        or path.name != Path(rel).name
                    ):
                        continue
                    try:
                        self.clips[rel] = probe_clip(path)
                    except ClipError:
                        continue
                    return self.clips[rel]
        return self.clips[rel]


def _recorded_sources(dataset: dict[str, Any], folder: Path) -> list[Path]:
    """Where the sources were: the ``src`` of the last start in run.jsonl, or of dataset.json where a program put it there."""
    from blursynth.run.report import RunLog

    found = (RunLog.last_start(folder / "run.jsonl") or dataset).get("src")
    return [Path(text) for text in found if isinstance(text, str) and text] if isinstance(found, list) else []
