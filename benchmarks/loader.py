"""Samples a second of the crop stream against a loader of the official kind, in turn, on the same files and cores.

    python benchmarks/loader.py --workers 2

The official kind (DeblurGANv2's PairedDataset without preloading): a map-style dataset that decodes both full frames
for every 256 crop, augments whole frames' crops with the same transforms, normalises to float32 and collates.
Both run in turn, several times, because other work on the machine would favour whichever ran in the quieter minute.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from blursynth import pack
from deblur_train.data.augment import Augment
from deblur_train.data.index import index_split
from deblur_train.data.loader import load_batches
from deblur_train.data.stream import CropOptions, CropStream
from deblur_train.inference.tensors import to_device

CROP, BATCH = 256, 4


def make_frames(folder: Path, count: int) -> None:
    """720p frames with a photograph's PNG size (about 1.5 MB), as shards and as plain files."""
    rng = np.random.default_rng(0)
    sizes = []
    for i in range(count):
        coarse = rng.integers(0, 256, (90, 160, 3)).astype(np.uint8)
        sharp = cv2.resize(coarse, (1280, 720), interpolation=cv2.INTER_CUBIC)
        sharp = np.clip(sharp + rng.normal(0, 3, sharp.shape), 0, 255).astype(np.uint8)
        pair = {"blur": cv2.blur(sharp, (3, 1)), "sharp": sharp}
        for role, picture in pair.items():
            data = cv2.imencode(".png", picture)[1].tobytes()
            (folder / role).mkdir(parents=True, exist_ok=True)
            (folder / role / f"{i:03d}.png").write_bytes(data)
            sizes.append(len(data))
    pack(None, folder, blur=folder / "blur", sharp=folder / "sharp", val_fraction=0)
    print(f"{count} frames of 1280x720, {np.mean(sizes) / 1e6:.2f} MB a PNG")


class OfficialStyle(Dataset):
    """Both full frames decoded for each crop."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.files = [(p, folder / "sharp" / p.name) for p in sorted((folder / "blur").glob("*.png"))]
        self.kind = kind
        self.augment: Augment | None = None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        if self.augment is None:
            self.augment = Augment(self.kind)
        blur, sharp = (cv2.cvtColor(cv2.imread(str(p)), cv2.COLOR_BGR2RGB) for p in self.files[i])
        rng = np.random.default_rng(int(torch.randint(2**31, ()).item()))
        y, x = int(rng.integers(blur.shape[0] - CROP + 1)), int(rng.integers(blur.shape[1] - CROP + 1))
        blur, sharp = self.augment(blur[y : y + CROP, x : x + CROP], sharp[y : y + CROP, x : x + CROP], rng)
        planes = [
            torch.from_numpy(np.ascontiguousarray((a.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)))
            for a in (blur, sharp)
        ]
        return {"a": planes[0], "b": planes[1]}


def start_worker(worker: int) -> None:
    torch.set_num_threads(1)


def official(folder: Path, workers: int, kind: str, seconds: float) -> float:
    def endless():
        while True:
            yield from DataLoader(
                OfficialStyle(folder, kind),
                BATCH,
                shuffle=True,
                num_workers=workers,
                worker_init_fn=start_worker,
                drop_last=True,
            )

    return rate(endless(), seconds, lambda b: (b["a"], b["b"]))


def ours(folder: Path, workers: int, kind: str, crops: int, seconds: float) -> float:
    stream = CropStream(
        index_split(folder, "train"), CropOptions(BATCH, CROP, crops_per_frame=crops, augment=kind), seed=0
    )
    batches = load_batches(stream, workers)
    cpu = torch.device("cpu")
    try:
        # The conversion to float on the device is counted too: the official style does it in its workers.
        return rate(batches, seconds, lambda b: (to_device(b["blur"], cpu), to_device(b["sharp"], cpu)))
    finally:
        batches.close()


def rate(batches, seconds: float, use) -> float:
    """Samples a second after the first batch has come (start-up of processes is not the question)."""
    use(next(batches))
    n, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        n += len(use(next(batches))[0])
    return n / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--augment", default="article")
    parser.add_argument("--crops", type=int, nargs="*", default=[8, 16])
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        make_frames(Path(folder), args.frames)
        results: dict[str, list[float]] = {}
        for _ in range(args.rounds):
            results.setdefault("official style", []).append(
                official(Path(folder), args.workers, args.augment, args.seconds)
            )
            for crops in args.crops:
                results.setdefault(f"ours, {crops} crops a frame", []).append(
                    ours(Path(folder), args.workers, args.augment, crops, args.seconds)
                )
    base = statistics.median(results["official style"])
    for name, values in results.items():
        print(
            f"{name:26} {statistics.median(values):7.1f} samples/s  {statistics.median(values) / base:5.2f}x   rounds: {', '.join(f'{v:.0f}' for v in values)}"
        )


if __name__ == "__main__":
    main()
