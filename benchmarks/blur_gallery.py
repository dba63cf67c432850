"""Pictures of what `--shake` and `--blur-px` do: one window at four lengths, and one still under twelve shakes.

    python benchmarks/blur_gallery.py PHOTO --out docs [--corner 190,70]

Writes OUT/blur_lengths.jpg and OUT/blur_shakes.jpg. The pictures in docs/ are of kodak-21 of the Kodak Lossless True
Color Image Suite, which Kodak released for unrestricted use.
"""

from __future__ import annotations

from pathlib import Path

import click
import cv2
import numpy as np

from blursynth.pairs.synthesis import Synthesizer
from blursynth.recipe import Recipe

LENGTHS = (4, 8, 16, 32)
SHAKES = 12
GAP = 6


def pair(codes: np.ndarray, seed: int, **options: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Blurred, sharp (H, W, 3) RGB uint8 and the camera's path (P, 3) of a whole picture."""
    sample = Synthesizer(Recipe.model_validate({"stills": True, **options})).still(
        codes, np.random.default_rng(seed)
    )
    return sample.blur_rgb, sample.sharp_rgb, np.array(sample.exposure["shake"]["path"])


def named(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture with a word in its lower left corner."""
    out = np.ascontiguousarray(picture)
    at = (8, out.shape[0] - 10)
    cv2.putText(out, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(out, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return out


def with_path(picture: np.ndarray, path: np.ndarray) -> np.ndarray:
    """The picture with the camera's path in its upper right corner on black, up to four times its size."""
    side = 64
    inset = np.zeros((side, side, 3), np.uint8)
    spots = path[:, :2] - (path[:, :2].max(0) + path[:, :2].min(0)) / 2
    fit = min(4.0, 0.42 * side / max(np.abs(spots).max(), 1e-6))
    points = np.rint((spots * fit + side / 2) * 8).astype(np.int32)
    cv2.polylines(inset, [points], False, (255, 255, 255), 1, cv2.LINE_AA, 3)
    out = picture.copy()
    out[:side, -side:] = inset
    return out


def grid(tiles: list[np.ndarray], columns: int) -> np.ndarray:
    """Tiles of one size in rows, with white gaps."""
    h, w = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    out = np.full((rows * (h + GAP) - GAP, columns * (w + GAP) - GAP, 3), 255, np.uint8)
    for n, tile in enumerate(tiles):
        y, x = n // columns * (h + GAP), n % columns * (w + GAP)
        out[y : y + h, x : x + w] = tile
    return out


def write(path: Path, rgb: np.ndarray) -> None:
    """A JPEG of quality 88."""
    cv2.imwrite(str(path), np.ascontiguousarray(rgb[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 88])
    click.echo(f"{path}: {rgb.shape[1]}x{rgb.shape[0]}, {path.stat().st_size / 1000:.0f} kB")


@click.command()
@click.argument("photo", type=click.Path(exists=True, dir_okay=False))
@click.option("--out", default="docs", type=click.Path(file_okay=False, path_type=Path))
@click.option("--corner", default="190,70", help="X,Y of the window in the photo.")
@click.option("--seed", default=0, help="Of the window; the twelve shakes have the seeds after it.")
def main(photo: str, out: Path, corner: str, seed: int) -> None:
    bgr = cv2.imread(photo, cv2.IMREAD_COLOR)
    if bgr is None:
        raise click.BadParameter(f"{photo}: not a picture")
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    x, y = map(int, corner.split(","))
    window = np.s_[y : y + 240, x : x + 240]
    tiles = []
    for px in LENGTHS:
        blur, sharp, _ = pair(rgb, seed, blur_px=f"{px}")
        tiles = tiles or [named(sharp[window], "sharp")]
        tiles.append(named(blur[window], f"{px} px"))
    write(out / "blur_lengths.jpg", grid(tiles, len(tiles)))
    shaken = [pair(rgb, seed + 1 + n, shake="20") for n in range(SHAKES)]
    write(out / "blur_shakes.jpg", grid([with_path(blur[window], path) for blur, _, path in shaken], 4))


if __name__ == "__main__":
    main()
