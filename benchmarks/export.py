"""What export gains on this machine: eager torch against onnxruntime in fp32 and int8 (and LiteRT), in turn, at equal output.

    python benchmarks/export.py --clips CLIP --clips CLIP [--backbone mobilenet] [--work DIR]

Without --checkpoint it first makes shards of the clips and trains the demo config on them for --steps steps: int8 needs
the activations of a trained network, a random one calibrates on noise. Speed is the median over rounds in which each
runs once; quality is PSNR on whole frames of clips that the training never saw.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from deblur_train.evaluation.bench import Row, bench
from deblur_train.evaluation.pair_sources import pairs_from_shards
from deblur_train.exporting.check import RealFrames, fit, psnr_change, to_input
from deblur_train.exporting.export import ExportOptions, export
from deblur_train.inference.runtimes import Runner, open_exported, torch_runner
from deblur_train.inference.signature import Signature
from deblur_train.models.checkpoint import load_generator


def command(*words: object) -> None:
    """Run a command of this environment, and stop where it fails."""
    text = [str(w) for w in words]
    print("$", *text, flush=True)
    done = subprocess.run([str(Path(sys.executable).parent / text[0]), *text[1:]], stdout=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(done.returncode)


def train(work: Path, clips: list[str], backbone: str, steps: int) -> tuple[Path, Path]:
    """(checkpoint, shards): a briefly trained generator; what is there from an earlier run is used again."""
    data, run = work / "data", work / f"run-{backbone}-{steps}"
    sources = [w for clip in clips for w in ("--src", clip)]
    window = ["--window", "3-5", "--stride", "5", "--gate", "off", "--interp", "dis"]
    command(
        "blursynth", "make", *sources, "--out", data, *window, "--max-samples", 120, "--val-fraction", 0.25
    )
    checkpoint = run / "last.safetensors"
    if not checkpoint.exists():
        fit_words = ["--config", "demo", "--backbone", backbone, "--steps", steps, "--out", run]
        command("deblur-train", "fit", "--shards", data, *fit_words)
    return checkpoint, data


def plain_eager(checkpoint: Path) -> Runner:
    """Eager torch as it comes, NCHW in memory: what a reader of the official code would time."""
    net = load_generator(checkpoint)

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return net(torch.from_numpy(x)).numpy()

    return Runner("eager", Signature(), run, {"backbone": net.backbone_name})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", action="append", default=[], help="videos to make shards of")
    parser.add_argument("--checkpoint", type=Path, help="instead of training one; needs --shards")
    parser.add_argument("--shards", type=Path)
    parser.add_argument("--backbone", default="mobilenet")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--width", type=int, default=1280)
    # Where other programs run, the threads of one operation wait for each other, and torch's wait longer: the ratio of
    # two threads would flatter onnxruntime.
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--frames", type=int, default=6, help="held-out frames to measure PSNR on")
    parser.add_argument("--tflite", action="store_true", help="LiteRT too (extra: tflite)")
    parser.add_argument("--work", type=Path, help="keep shards, checkpoint and files here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        work = args.work or Path(folder)
        if args.checkpoint:
            checkpoint, data = args.checkpoint, args.shards or parser.error("--checkpoint needs --shards")
        else:
            if not args.clips:
                parser.error("give --clips, or --checkpoint and --shards")
            checkpoint, data = train(work, args.clips, args.backbone, args.steps)
        size = (args.height, args.width)
        wanted = {
            "fp32.onnx": ExportOptions("onnx"),
            "int8.onnx": ExportOptions("onnx", "int8", calib=str(data)),
        }
        if args.tflite:
            wanted["fp32.tflite"] = ExportOptions("tflite", size=size)
        runners = [
            ("eager NCHW", plain_eager(checkpoint)),
            ("eager channels_last", torch_runner(load_generator(checkpoint))),
        ]
        for name, options in wanted.items():
            report = export(str(checkpoint), work / name, options)
            print(
                f"{name}: {report['bytes'] / 1e6:.2f} MB, largest difference {max(p['max_abs'] for p in report['parity']):.1e}"
            )
            runners.append((name, open_exported(work / name, args.threads)))
        rows = [row for row in bench(runners, [size], args.rounds) if isinstance(row, Row)]
        best = min(row.median_ms for row in rows[:2])
        print(
            f"\n{args.width} x {args.height}, {args.threads} threads, median of {args.rounds} rounds in turn"
        )
        for row in rows:
            print(
                f"{row.name:20} {row.median_ms:8.1f} ms   {row.speedup:.2f}x eager NCHW   "
                f"{best / row.median_ms:.2f}x the faster eager (of medians)"
            )
        source = pairs_from_shards(str(data), "val", args.frames)
        pairs = [source.read(i) for i in range(len(source.names))]
        pairs = [
            tuple(fit(p, (min(p.shape[0], size[0]), min(p.shape[1], size[1]))) for p in pair)
            for pair in pairs
        ]
        frames = RealFrames([], pairs, "val split, whole frames")
        reference = runners[1][1]
        print(f"\n{len(pairs)} held-out frames of {sorted({p[0].shape[:2] for p in pairs})}")
        for name, runner in runners[2:]:
            if runner.signature.size is None:
                print(name, json.dumps(psnr_change(reference, runner, frames)))
        frame = to_input(fit(pairs[0][0], size))
        want = reference(frame)
        for name, runner in runners[2:]:
            print(f"same frame, {name}: largest difference to torch {np.abs(runner(frame) - want).max():.2e}")


if __name__ == "__main__":
    main()
