"""Write folders of blurred and sharp pictures as shards (schema 1): for real pairs that no synthesis made.

python benchmarks/pair_shards.py --out DATA --train BLUR SHARP [--train ...] --val BLUR SHARP
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import tarfile
from pathlib import Path

import cv2


def sample_json(key: str, clip: str, path: str, frame: int) -> dict:
    """A sample's JSON for a pair whose exposure is not known: facts that are missing are null, none is invented."""
    return {
        "schema": 1,
        "key": key,
        "seed": 0,
        "recipe_sha256": "0" * 64,
        "version": "pairs",
        "source": {
            "dataset": None,
            "clip": clip,
            "path": path,
            "sha256": "0" * 64,
            "fps": None,
            "first": frame,
            "last": frame,
            "target": frame,
        },
        "exposure": {
            "window": None,
            "stride": None,
            "fps_up": None,
            "interp": "none",
            "profile": None,
            "shutter_ms": None,
            "duty": None,
            "readout_ms": None,
            "substeps": None,
        },
        "camera": {"crf": "display", "highlights": None, "noise": None},
        "flow": {"median_px": None, "p95_px": None, "max_px": None, "fb_error_px": None, "occluded": None},
        "quality": {"score": None, "flags": []},
    }


def png(path: Path) -> bytes:
    return cv2.imencode(".png", cv2.imread(str(path), cv2.IMREAD_COLOR))[1].tobytes()


def write_shard(tar_path: Path, members: list[tuple[str, bytes]]) -> None:
    """A reproducible tar: fixed times and owner; then its sidecar."""
    tar_path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(tar_path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    data = tar_path.read_bytes()
    side = {
        "samples": len({n.split(".")[0] for n, _ in members}),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    tar_path.with_suffix(".json").write_text(json.dumps(side))


def pair_members(blur: Path, sharp: Path, clip: str) -> list[tuple[str, bytes]]:
    members = []
    for number, path in enumerate(sorted(blur.glob("*.png"))):
        key = re.sub(r"[^A-Za-z0-9_-]", "_", f"{clip}-{path.stem}")
        meta = json.dumps(sample_json(key, clip, path.name, number)).encode()
        members += [
            (f"{key}.blur.png", png(path)),
            (f"{key}.sharp.png", png(sharp / path.name)),
            (f"{key}.json", meta),
        ]
    return members


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    for split in ("train", "val"):
        parser.add_argument(f"--{split}", nargs=2, action="append", default=[], metavar=("BLUR", "SHARP"))
    args = parser.parse_args()
    for split in ("train", "val"):
        for number, (blur, sharp) in enumerate(getattr(args, split)):
            clip = Path(blur).resolve().parent.name
            write_shard(args.out / f"{split}-{number:06d}.tar", pair_members(Path(blur), Path(sharp), clip))


if __name__ == "__main__":
    main()
