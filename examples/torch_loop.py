"""A plain PyTorch training loop on blursynth's shards, without deblur_train: thirty lines to put your own network in.

python examples/torch_loop.py data/ --steps 200
"""

from __future__ import annotations

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader

from blursynth.shards import webdataset_pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="folder of shards")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()

    pairs = webdataset_pairs(args.data, crop=args.crop, seed=0)  # (blur, sharp): uint8 RGB (crop, crop, 3)
    batches = DataLoader(pairs.repeat(), batch_size=args.batch_size, num_workers=args.workers)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = nn.Sequential(  # your own goes here
        nn.Conv2d(3, 32, 5, padding=2),
        nn.GELU(),
        nn.Conv2d(32, 32, 5, padding=2),
        nn.GELU(),
        nn.Conv2d(32, 3, 5, padding=2),
    ).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    mean = 0.0
    for step, (blur, sharp) in zip(range(1, args.steps + 1), batches):
        x, y = (t.to(device).permute(0, 3, 1, 2).float() / 255 for t in (blur, sharp))
        loss = nn.functional.l1_loss(x + network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean = loss.item() if step == 1 else 0.95 * mean + 0.05 * loss.item()
        if step % 20 == 0 or step == args.steps:
            print(
                f"step {step}: L1 {mean:.4f}, of the blurred input {nn.functional.l1_loss(x, y).item():.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
