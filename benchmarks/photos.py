"""Real blurred photographs as the package's model restores them: no reference, chosen before the model was seen, kept whatever comes out.

    python benchmarks/photos.py --media ../shared/media [--model FILE] [--out docs/photos.jpg] [--first docs/restore.jpg]

GoPro's published blurred picture, and frames of films whose own shutter was long: moving
hands, balls, feet. Left as taken, right restored, pixel for pixel.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import click
import cv2
import numpy as np

from deblur_train.evaluation.plot import text
from deblur_train.inference.tiles import restore
from deblur_train.models.checkpoint import load_generator

SHIPPED = Path(__file__).parents[1] / "deblur_train/weights/nafnet.safetensors"
HEIGHT, WIDTH = 200, 450


class Look(NamedTuple):
    """A crop of a picture, or of a film's frame; left, top in px."""

    words: str
    file: str
    left: int
    top: int
    frame: int | None = None


LOOKS = (
    Look("GoPro (Nah et al. 2017), flowers", "pairs/gopro/Flower_blur1.png", 500, 200),
    Look("GoPro, ground", "pairs/gopro/Flower_blur1.png", 150, 450),
    Look("a ball and a hand (sam2's film)", "video/05_default_juggle.mp4", 560, 230, 49),
    Look("the same film, feet", "video/05_default_juggle.mp4", 560, 510, 49),
    Look("a film's walker (Sports2D)", "video/demo.mp4", 700, 480, 115),
)
LEVIN = (
    Look("Levin et al. 2009, camera shake", "pairs/levin/im1_kernel1_img.png", 0, 20),
    Look("the same, a longer shake", "pairs/levin/im1_kernel4_img.png", 0, 20),
)
"""For research use: not in the repository's picture."""


def picture(path: Path, frame: int | None) -> np.ndarray:
    """RGB uint8 (H, W, 3)."""
    if frame is None:
        bgr = cv2.imread(str(path))
    else:
        film = cv2.VideoCapture(str(path))
        film.set(cv2.CAP_PROP_POS_FRAMES, frame)
        _, bgr = film.read()
    if bgr is None:
        raise click.ClickException(f"{path}: cannot be read")
    return np.ascontiguousarray(bgr[..., ::-1])


@click.command(help=__doc__)
@click.option("--media", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--model", type=click.Path(exists=True, path_type=Path), default=SHIPPED)
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/photos.jpg"))
@click.option("--first", type=click.Path(path_type=Path), help="Write the first photograph alone here.")
@click.option("--levin", is_flag=True, help="Show Levin's camera shakes too.")
def main(media: Path, model: Path, out: Path, first: Path | None, levin: bool) -> None:
    generator, rows = load_generator(model, "tracked"), []
    for look in (*LOOKS, *(LEVIN if levin else ())):
        taken = picture(media / look.file, look.frame)
        row = []
        for rgb in (taken, restore(generator, taken)):
            part = rgb[look.top : look.top + HEIGHT, look.left : look.left + WIDTH]
            right = WIDTH - part.shape[1]
            row.append(cv2.copyMakeBorder(part, 24, 6, 0, right + 6, cv2.BORDER_CONSTANT, value=(255,) * 3))
        text(row[0], look.words + ": as taken", 4, 16)
        text(row[1], "restored", 4, 16)
        rows.append(np.hstack(row))
    for file, shown in ((out, rows), (first, rows[:1])):
        if file is not None:
            quality = [cv2.IMWRITE_JPEG_QUALITY, 92] if file.suffix == ".jpg" else []
            cv2.imwrite(str(file), np.vstack(shown)[..., ::-1], quality)
    click.echo(f"{out}: {len(rows)} photographs")


if __name__ == "__main__":
    main()
