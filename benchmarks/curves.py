"""Loss curves of an FPN generator and of NAFNet on the same data, in one figure.

    blursynth make ../shared/media/stills --stills --shake 2-16 --tile 192 --per-still 6 --out scratch/stills
    python benchmarks/curves.py --shards scratch/stills --work scratch/curves --out docs/curves.png

Both runs see the same crops in the same order, from random weights, with the same loss, optimiser and schedule (config
`nafnet`: Charbonnier + 0.05 FFT, no GAN); only `--backbone` differs. A run that is there already is drawn up to `--steps`,
not made again.
Drawn are the pixel loss (Charbonnier) a logged step, smoothed; NAFNet's over the FPN's, since which crops a step meets moves
both far more than the network does; and the validation PSNR.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from deblur_train.evaluation.plot import panel, save_png
from deblur_train.training.fit import fit
from deblur_train.training.run_folder import Log

BACKBONES = {"mobilenet": "FPN (mobilenet)", "nafnet": "NAFNet"}


def line(rows: list[dict[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    points = np.array([(r["step"], r[key]) for r in rows if key in r], np.float64).reshape(-1, 2)
    return points[:, 0], points[:, 1]


def train(backbone: str, shards: str, folder: Path, steps: int, crop: int, threads: int) -> None:
    """A run of its own, or the rest of one that was stopped."""
    fit(
        "nafnet",
        resume=(folder / "last.pt").exists(),
        shards=shards,
        out=str(folder),
        backbone=backbone,
        steps=steps,
        batch_size=4,
        crop=crop,
        device="cpu",
        workers=1,
        optim={"ema": 0.99},  # 0.999 looks back further than so short a run
        run={"threads": threads, "log_every": 5, "val_every": steps // 8, "save_every": steps // 8},
    )


@click.command()
@click.option("--shards", required=True, help="Shards with both splits.")
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Folder of the runs.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The figure, a PNG.")
@click.option("--steps", default=600, show_default=True)
@click.option("--crop", default=96, show_default=True, help="Side of a crop, px; 4 crops a step.")
@click.option("--threads", default=1, show_default=True)
def main(shards: str, work: Path, out: Path, steps: int, crop: int, threads: int) -> None:
    logs = {}
    for backbone, name in BACKBONES.items():
        folder = work / backbone
        log = Log(folder / "log.jsonl", False)
        if max((r["step"] for r in log.rows()), default=0) < steps:
            train(backbone, shards, folder, steps, crop, threads)
        logs[name] = [r for r in log.rows() if r["step"] <= steps]
    baseline = next(r["val_psnr_blurred"] for r in logs["NAFNet"] if "val_psnr_blurred" in r)
    losses = {name: line(rows, "content") for name, rows in logs.items()}
    psnrs = {name: line(rows, "val_psnr") for name, rows in logs.items()}
    left = panel("pixel loss of training crops", losses)
    right = panel("validation PSNR, dB", psnrs, ("blurred input", float(baseline)))
    fpn, naf = losses.values()
    ratio = panel("its loss over the FPN's, the same crops", {"NAFNet": (naf[0], naf[1] / fpn[1])})
    save_png(out, np.concatenate([left, ratio, right], 1))
    for name, rows in logs.items():
        _, loss = line(rows, "content")
        fifth = max(1, len(loss) // 5)
        last = [r for r in rows if "val_psnr" in r][-1]
        rate = np.median([r["samples_per_s"] for r in rows if "samples_per_s" in r]) / 4
        print(
            f"{name}: pixel loss {loss[:fifth].mean():.4f} -> {loss[-fifth:].mean():.4f} (first and last fifth), "
            f"PSNR {last['val_psnr']:.2f} dB ({last['val_psnr'] - last['val_psnr_blurred']:+.2f}), {rate:.1f} steps a second"
        )
    print(f"written: {out} ({out.stat().st_size / 1e3:.0f} kB)")


if __name__ == "__main__":
    main()
