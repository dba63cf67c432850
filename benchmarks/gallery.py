"""The gallery of docs/recipes.md: the same moment of a film, exposed by each built-in recipe.

    python benchmarks/gallery.py FILM --frame 120 [--fps 240] [--side 200] [--out docs/recipes.jpg]

Every panel is the same crop around the same centre frame, made by `blursynth.make`, at twice its size. What a recipe draws per sample
(the window of deblurgan-v2) stands at its longest, `reds` uses sRGB's curve for want of its authors' own, and gates are off.
"""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

import click
import cv2
import numpy as np

from blursynth import make
from blursynth.recipe import builtin_recipes, load_recipe
from blursynth.shards.picture import decode_image


def expose(film: str, recipe: str, frame: int, fps: float, into: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """Blurred and sharp picture of one window around ``frame``, (H, W, 3) RGB uint8, and the window's frames."""
    frames = load_recipe(recipe)[0].window_range[1]
    first = frame - frames // 2
    extra = {"crf": "srgb"} if recipe == "reds" else {}
    make(
        film, into, recipe, window=str(frames), frames=f"{first}-{first + frames - 1}", fps=fps, gate="off",
        val_fraction=0.0, workers=1, quiet=True, **extra,
    )  # fmt: skip
    (tar,) = into.glob("train-*.tar")
    with tarfile.open(tar) as shard:
        members = {m.name.partition(".")[2]: shard.extractfile(m).read() for m in shard}  # type: ignore[union-attr]
    return decode_image(members["blur.png"]), decode_image(members["sharp.png"]), frames


def panel(crop: np.ndarray, title: str) -> np.ndarray:
    head = np.full((30, 2 * crop.shape[1], 3), 255, np.uint8)
    cv2.putText(head, title, (6, 21), cv2.FONT_HERSHEY_DUPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
    return np.vstack([head, cv2.resize(crop, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)])


@click.command(help=__doc__)
@click.argument("film")
@click.option("--frame", default=120, help="Centre frame of every window.")
@click.option("--fps", default=240.0, help="Rate that the recipes are told.")
@click.option("--side", default=200, help="Side of the crop, px of the film.")
@click.option("--at", type=(int, int), help="Left and top of the crop.  [default: where blur changes most]")
@click.option("--out", default="docs/recipes.jpg")
def main(film: str, frame: int, fps: float, side: int, at: tuple[int, int] | None, out: str) -> None:
    names = ["gopro", "gopro-gamma", "deblurgan-v2", "bin", "reds", "rsblur", "demo", "realistic"]
    if missing := set(builtin_recipes()) - set(names):
        raise click.ClickException(f"no panel for {', '.join(sorted(missing))}: add it to the list")
    made = {}
    with tempfile.TemporaryDirectory() as temp:
        for name in names:
            made[name] = expose(film, name, frame, fps, Path(temp) / name)
    sharp = made["realistic"][1]
    if at is None:
        change = np.abs(made["gopro"][0].astype(np.float32) - sharp).mean(2)
        mean = cv2.boxFilter(change, -1, (side, side), anchor=(0, 0))[: -side or None, : -side or None]
        y, x = np.unravel_index(np.argmax(mean), mean.shape)
        at = (int(x), int(y))
    x, y = at
    panels = [panel(sharp[y : y + side, x : x + side], "sharp")]
    panels += [
        panel(blur[y : y + side, x : x + side], f"{name}, {frames} frames")
        for name, (blur, _, frames) in made.items()
    ]
    rows = [np.hstack(panels[i : i + 3]) for i in range(0, 9, 3)]
    if not cv2.imwrite(out, np.vstack(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88]):
        raise click.ClickException(f"{out}: cannot be written")
    print(f"{out}: {Path(out).stat().st_size / 1000:.0f} kB, crop at {x} {y}")


if __name__ == "__main__":
    main()
