"""Does every exported format give what torch gives? All backbones, several sizes, largest difference in [-1, 1].

    python benchmarks/export_parity.py [--formats onnx,pt2] [--backbones mobilenet,mobilenet-dsc,inception,official]

Weights are filled by the rule of tests/data/deblurganv2, so that every layer has a say: with torch's own random weights the
residual nearly vanishes, and an identity proves nothing (``moved`` is how far the output is from the input). ``official``
is the official checkpoint layout with the image's own norm statistics. Exits 1 when a difference reaches 1e-3.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from deblur_train import build_generator, load_generator
from deblur_train.exporting.check import synthetic
from deblur_train.exporting.export import ExportOptions, export
from deblur_train.exporting.to_pt2 import pt2_runner
from deblur_train.inference.runtimes import open_exported
from deblur_train.models.checkpoint import export_official, save_generator
from tests.helpers.golden import fill, fixture

SIZES = ((256, 256), (101, 135), (333, 257))
LIMIT = 1e-3


def checkpoint_of(name: str, folder: Path) -> Path:
    rule = fixture("mobilenet")
    if name == "official":
        path = folder / "official.h5"
        export_official(fill(build_generator("mobilenet"), rule["gain"], rule["alias_groups"]).eval(), path)
    else:
        path = folder / f"{name}.safetensors"
        save_generator(path, name, fill(build_generator(name), rule["gain"]).state_dict())
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--formats", default="onnx,pt2", help="of onnx, pt2, tflite")
    parser.add_argument("--backbones", default="mobilenet,mobilenet-dsc,inception,official")
    args = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        for name in args.backbones.split(","):
            checkpoint = checkpoint_of(name, folder)
            stats = "image" if name == "official" else "tracked"
            net = load_generator(checkpoint, stats)
            for format_ in args.formats.split(","):
                sizes = SIZES[1:2] if format_ == "tflite" else SIZES
                options = ExportOptions(
                    format_, norm_stats=stats, size=sizes[0] if format_ == "tflite" else None
                )
                moved = 0.0
                out, began = folder / f"{name}.{format_}", time.perf_counter()
                size = export(str(checkpoint), out, options)["bytes"]
                took, found = time.perf_counter() - began, []
                exported = pt2_runner(out.read_bytes(), str(out)) if format_ == "pt2" else open_exported(out)
                for i, (h, w) in enumerate(sizes):
                    x = synthetic((h, w), seed=i)
                    with torch.no_grad():
                        want = net(torch.from_numpy(x)).numpy()
                    moved = max(moved, float(np.abs(want - x).max()))
                    found.append(float(np.abs(exported(x) - want).max()))
                worst = max(worst, *found)
                differences = ", ".join(f"{h}x{w} {d:.1e}" for (h, w), d in zip(sizes, found, strict=True))
                print(
                    f"{name:14} {format_:7} {stats:8} {size / 1e6:6.1f} MB {took:5.0f} s   moved {moved:.2f}   {differences}",
                    flush=True,
                )
    print(f"largest difference {worst:.1e}, limit {LIMIT:g}")
    return int(not worst < LIMIT)


if __name__ == "__main__":
    sys.exit(main())
