"""PSNR and SSIM on the field's test sets, out of folders that you have, for one checkpoint or several.

    python benchmarks/real.py --checkpoint runs/a/best.safetensors --gopro GOPRO_Large --realblur RealBlur-J_ECC --reds REDS

Each set is read as its authors lay it out (``deblur-train eval --pairs``); of GoPro and REDS the held-out part is measured.
A set that is not given stands in the table as "not run here".
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from deblur_train import evaluate
from deblur_train.distributed import choose_device
from deblur_train.evaluation.pair_sources import pairs_from_tree

SETS = {"gopro": "GoPro", "realblur": "RealBlur", "rsblur": "RSBlur", "reds": "REDS"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", action="append", required=True, help="may be given several times")
    for option, name in SETS.items():
        parser.add_argument(f"--{option}", metavar="ROOT", help=f"{name}'s folder, or a list file of it")
    parser.add_argument("--limit", type=int, help="at most this many pairs of each set, evenly spread")
    parser.add_argument("--norm-stats", default="tracked", choices=["tracked", "image"])
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    left_out = 0
    print("| set | checkpoint | pairs | blurred, dB / SSIM | restored, dB / SSIM |\n|---|---|---|---|---|")
    for option, name in SETS.items():
        root = getattr(args, option)
        if root is None:
            print(f"| {name} | | | not run here | |")
            continue
        source = pairs_from_tree(root, "val", args.limit)
        for checkpoint in args.checkpoint:
            got = evaluate(
                source,
                checkpoint,
                norm_stats=args.norm_stats,
                device=choose_device(args.device),
                console=Console(stderr=True),
            )
            m = got["mean"]
            before, after = (f"{m['psnr' + s]:.2f} / {m['ssim' + s]:.4f}" for s in ("_blurred", ""))
            print(f"| {name} | {Path(checkpoint).name} | {got['images']} | {before} | {after} |", flush=True)
            left_out += len(got["left_out"])
    if left_out:
        print(f"{left_out} pairs left out; see above", file=sys.stderr)
    return 1 if left_out else 0


if __name__ == "__main__":
    sys.exit(main())
