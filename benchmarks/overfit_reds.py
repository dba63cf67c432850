"""Overfit one 180p REDS clip: a trainer that cannot learn six frames by heart has a bug somewhere.

    python benchmarks/overfit_reds.py --pairs ../shared/media/pairs/reds_180p/000 --out runs/overfit

The same six frames are trained and measured on, on purpose. Prints the gain over the blurred input; exits 1 below +6 dB.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from blursynth import pack
from deblur_train.config import TrainConfig
from deblur_train.training.fit import fit
from deblur_train.training.run_folder import Log


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=Path, default=Path("../shared/media/pairs/reds_180p/000"))
    parser.add_argument("--out", type=Path, default=Path("runs/overfit"))
    parser.add_argument("--backbone", default="mobilenet")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=6)
    parser.add_argument("--init", help="generator to go on from")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    data = args.out / "data"
    pack(args.pairs, data, val_fraction=0)
    for shard in sorted(data.glob("train-*.tar")):
        shutil.copyfile(shard, shard.with_name(shard.name.replace("train", "val")))
    config = TrainConfig.model_validate(
        {
            "name": "overfit",
            "shards": str(data),
            "out": str(args.out / "run"),
            "backbone": args.backbone,
            "steps": args.steps,
            "batch_size": args.batch_size,
            "init": args.init,
            "crop": 160,
            "model": {"near_identity": True},
            "discriminator": {"kind": "off"},
            "data": {"augment": "none", "val_frames": 6, "lanes": 2},
            "loss": {
                "pixel": "charbonnier",
                "pixel_weight": 1.0,
                "pixel_space": "signed",
                "fft_weight": 0.02,
            },
            "optim": {"kind": "adamw", "betas": (0.9, 0.99), "clip_norm": 1.0, "ema": 0.99},
            "schedule": {
                "kind": "modern",
                "lr": 2e-3,
                "lr_end": 1e-6,
                "warmup_share": 0.03,
                "frozen_share": 0.0,
            },
            "run": {"log_every": 20, "val_every": 200, "save_every": 200, "val_norm_stats": "local"},
        }
    )
    fit(config, resume=args.resume)
    scores = [r for r in Log(args.out / "run" / "log.jsonl", False).rows() if "val_psnr" in r]
    gain = scores[-1]["val_psnr"] - scores[-1]["val_psnr_blurred"]
    print(
        f"{args.backbone}, {args.steps} steps: {scores[-1]['val_psnr_blurred']:.2f} -> {scores[-1]['val_psnr']:.2f} dB ({gain:+.2f} dB)"
    )
    return 0 if gain >= 6 else 1


if __name__ == "__main__":
    sys.exit(main())
