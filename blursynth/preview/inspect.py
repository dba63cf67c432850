"""``blursynth inspect``: a data folder, a shard, a video or a folder of frames, in figures and pictures.

Writes one HTML file that needs nothing else, and a static sheet beside it. Gathering lives in `dataset` (after
synthesis) and `source` (before it); both fill the one ``InspectReport`` that is shown.
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2

from blursynth.png.chunks import is_signed, signed
from blursynth.preview.dataset import inspect_data, is_data
from blursynth.preview.page import page
from blursynth.preview.report import InspectError, InspectReport
from blursynth.preview.sheet import sheet
from blursynth.preview.source import inspect_source
from blursynth.preview.terminal import print_report

SHEET_BYTES = 3_000_000
# px a picture of the sheet, and the share of the rows: the first whose sheet is not too large.
STEPS = ((400, 1.0), (320, 1.0), (256, 1.0), (200, 1.0), *((150, 0.5**n) for n in range(20)))

__all__ = ["InspectError", "InspectReport", "inspect", "print_report"]


def inspect(target: str | Path, out: str | Path = "preview.html", samples: int = 16) -> InspectReport:
    """Look at a data set, or at a source before synthesis.

    Args:
        target: what ``blursynth make`` wrote (its folder or one .tar), or what it would read (a video, a folder of
            videos, a folder of frames).
        out: the page to write; the sheet goes beside it as ``.png``, over an earlier sheet only. Folders on the way are made.
        samples: how many samples (windows of a source) to show, at least 1.

    Returns the report; ``report.html`` and ``report.png`` are what was written. Raises InspectError: one line on why
    nothing can be shown or written; ``exit_code`` 2 where the call is wrong.
    """
    target, out = Path(target), Path(out)
    if samples < 1:
        raise InspectError(f"--samples {samples}: must be at least 1", 2)
    if out.suffix.lower() not in (".html", ".htm"):
        raise InspectError(f"--out {out}: must end in .html (the sheet is written beside it as .png)", 2)
    if out.is_dir():
        raise InspectError(f"--out {out}: is a folder; name a file in it, such as {out / 'preview.html'}", 2)
    picture = out.with_suffix(".png")
    try:
        if os.path.lexists(picture) and not is_signed(picture):
            raise InspectError(
                f"{picture}: the sheet goes there, and it is no sheet of inspect; move it away or give another --out",
                2,
            )
        if not target.exists():
            raise InspectError(f"{target}: no such file or folder", 2)
        report = inspect_data(target, samples) if is_data(target) else inspect_source(target, samples)
    except OSError as e:
        raise InspectError(f"{e.filename or target}: {e.strerror or e}") from None

    for step in STEPS:
        _, png = cv2.imencode(".png", sheet(report, *step)[..., ::-1])
        if len(png) <= SHEET_BYTES:
            break
    html = page(report).encode("utf-8", "replace")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for path, data in ((out, html), (picture, signed(png.tobytes()))):
            path.write_bytes(data)
    except OSError as e:
        raise InspectError(f"{e.filename or out}: cannot be written ({e.strerror or e})") from None
    report.html, report.png = out, picture
    return report
