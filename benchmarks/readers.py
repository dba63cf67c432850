"""Read a data set as others do: plain webdataset, timm's reader, ``datasets.load_dataset("webdataset")``.

    python3 -m venv /tmp/readers && /tmp/readers/bin/pip install torch torchvision timm datasets webdataset
    /tmp/readers/bin/python benchmarks/readers.py DATA [--readers webdataset,timm,datasets] [--split train] [--json]

Needs nothing of blursynth's. Prints, for each reader, how many samples it gave and whether every pixel and key is that of
the tars as Python's own tarfile and Pillow read them. Exit code 1 when one differs.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Rows = list[list[str]]  # of each sample, in order: key, sha256 of the blurred pixels, of the sharp ones


def pixels(image: Any) -> str:
    """sha256 of (H, W, 3) RGB."""
    return hashlib.sha256(np.asarray(image.convert("RGB")).tobytes()).hexdigest()


def by_tarfile(data: Path, split: str) -> Rows:
    rows = []
    for path in sorted(data.glob(f"{split}-*.tar")):
        with tarfile.open(path) as tar:
            found: dict[str, dict[str, bytes]] = {}
            for m in tar:
                key, _, ext = m.name.partition(".")
                found.setdefault(key, {})[ext] = tar.extractfile(m).read()  # type: ignore[union-attr]
        for key, parts in found.items():
            rows.append(
                [key, *(pixels(Image.open(io.BytesIO(parts[f"{n}.png"]))) for n in ("blur", "sharp"))]
            )
    return rows


def by_webdataset(data: Path, split: str) -> Rows:
    import webdataset

    urls = sorted(map(str, data.glob(f"{split}-*.tar")))
    samples = webdataset.WebDataset(urls, shardshuffle=False).decode("pil")
    return [[s["__key__"], pixels(s["blur.png"]), pixels(s["sharp.png"])] for s in samples]


def by_timm(data: Path, split: str) -> Rows:
    """timm gives one picture and an integer target a sample, by its order: read twice, for either picture.

    ``;jpg``: its reader calls whatever it decoded so before it looks for the key again.
    """
    import torch

    # torchvision's CUDA build does not import beside a CPU torch unless these two operators are known.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from timm.data.readers import create_reader

    seen = []
    for picture in ("blur.png", "sharp.png"):
        reader = create_reader(
            "wds/", root=str(data), split=split, is_training=False, batch_size=1, input_key=f"{picture};jpg", target_key="seed",
        )  # fmt: skip
        seen.append([(int(target), pixels(image)) for image, target in reader])
    keys = [row[0] for row in by_tarfile(data, split)]
    assert {target for target, _ in seen[0]} == {
        json.loads((data / "dataset.json").read_text())["recipe"]["seed"]
    }
    return [[key, blur[1], sharp[1]] for key, blur, sharp in zip(keys, *seen, strict=True)]


def by_datasets(data: Path, split: str) -> Rows:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import datasets

    datasets.disable_progress_bars()
    files = sorted(map(str, data.glob(f"{split}-*.tar")))
    with tempfile.TemporaryDirectory() as cache:
        loaded = datasets.load_dataset("webdataset", data_files={split: files}, split=split, cache_dir=cache)
        rows = [[s["__key__"], pixels(s["blur.png"]), pixels(s["sharp.png"])] for s in loaded]
        assert all(s["json"]["key"] == s["__key__"] for s in loaded)
    streamed = datasets.load_dataset("webdataset", data_files={split: files}, split=split, streaming=True)
    assert [[s["__key__"], pixels(s["blur.png"]), pixels(s["sharp.png"])] for s in streamed] == rows
    return rows


READERS: dict[str, Callable[[Path, str], Rows]] = {
    "webdataset": by_webdataset,
    "timm": by_timm,
    "datasets": by_datasets,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--readers", default=",".join(READERS))
    parser.add_argument("--split", default="train")
    parser.add_argument("--json", action="store_true", help="print what each reader gave")
    a = parser.parse_args()
    want, wrong, got = by_tarfile(a.data, a.split), 0, {}
    for name in a.readers.split(","):
        got[name] = READERS[name](a.data, a.split)
        wrong += got[name] != want
        if not a.json:
            version = __import__(name).__version__
            verdict = "every key and pixel is equal" if got[name] == want else "DIFFERS"
            print(f"{name} {version}: {len(got[name])} of {len(want)} samples, {verdict}")
    if a.json:
        print(json.dumps(got))
    return 1 if wrong or not want else 0


if __name__ == "__main__":
    sys.exit(main())
