"""How far made blur is from a true exposure when the source's own frames are blurred: dB against their open time.

    python benchmarks/open_time.py [--seeds 1,2] [--speeds 2,6,16] [--shares 0,25,50,75,100] [--figure docs/open_time.png]

A camera at F frames a second whose frames are open for a share s of 1 / F blurs each by s of its motion. Scenes of known
motion (truth.py) give nine such frames, each the exposure centred on its instant, and the truth: one exposure of all
eight intervals, 64 sub-frames each. Windows are made of the frames and held against it, PSNR in dB less an 8-pixel border;
`plain` is the linear mean of the same frames with trapezoid ends.
"""

from __future__ import annotations

from pathlib import Path

import click
import cv2
import numpy as np
import realism
from truth import Scene, psnr

SUB = 16
"""Sub-frames of a frame's own exposure."""


def frames_open_for(scene: Scene, share: float) -> realism.Frames:
    """Nine frames, RGB uint8, each exposed for `share` of an interval around its instant."""
    if share == 0:
        return [f[..., ::-1].copy() for f in scene.frames(9)]
    sub = SUB / share  # `exposure` takes sub-frames an interval
    return [scene.exposure(9, sub, t0=i - share / 2, t1=i + share / 2)[..., ::-1].copy() for i in range(9)]


@click.command(help=__doc__)
@click.option("--seeds", default="1,2")
@click.option("--speeds", default="2,6,16", help="px a frame")
@click.option("--shares", default="0,25,50,75,100", help="Open time, % of the interval.")
@click.option("--size", default="360x640")
@click.option("--method", default="dis")
@click.option("--figure", type=click.Path(path_type=Path))
def main(seeds: str, speeds: str, shares: str, size: str, method: str, figure: Path | None) -> None:
    cv2.setNumThreads(1)
    h, w = map(int, size.split("x"))
    open_for = [float(s) for s in shares.split(",")]
    run = realism.methods(method, 16)[method]
    rows = {}
    for speed in map(float, speeds.split(",")):
        db = np.zeros((2, len(open_for)))
        for seed in (seed_list := [int(s) for s in seeds.split(",")]):
            scene = Scene(seed, size=(h, w), speed=speed, lights=False)
            truth = scene.exposure(9, 64)[..., ::-1]
            for j, share in enumerate(open_for):
                frames = frames_open_for(scene, share / 100)
                for row, made in enumerate((run(frames), realism.plain(frames))):
                    inner = realism.INNER
                    db[row, j] += float(psnr(made[inner], truth[inner])) / len(seed_list)
        rows[speed] = db
        for name, line in zip((method, "plain"), db, strict=True):
            click.echo(f"{speed:g} px, {name}: " + ", ".join(
                f"{s:g} % {v:.1f} dB" for s, v in zip(open_for, line, strict=True)))  # fmt: skip
    if figure:
        draw(figure, open_for, rows, method)


def draw(figure: Path, open_for: list[float], rows: dict[float, np.ndarray], method: str) -> None:
    """Lines of each speed: made with `method` full, the plain mean thin. Drawn twice as large and halved."""
    h, w, (left, top, right, bottom) = 840, 1400, (130, 40, 40, 110)
    picture = np.full((h, w, 3), 255, np.uint8)
    low = np.floor(min(db.min() for db in rows.values()) / 5) * 5
    high = np.ceil(max(db.max() for db in rows.values()) / 5) * 5

    def at(share: float, db: float) -> tuple[int, int]:
        x = left + (w - left - right) * share / 100
        return round(x), round(h - bottom - (h - top - bottom) * (db - low) / (high - low))

    def write(text: str, x: int, y: int, colour: tuple[int, int, int] = (40, 40, 40)) -> None:
        cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.8, colour, 2, cv2.LINE_AA)

    for db in np.arange(low, high + 1, 5):
        cv2.line(picture, at(0, db), at(100, db), (225, 225, 225), 1)
        write(f"{db:g}", 70, at(0, db)[1] + 10)
    for share in open_for:
        cv2.line(picture, at(share, low), at(share, high), (225, 225, 225), 1)
        write(f"{share:g}", at(share, low)[0] - 18, h - bottom + 36)
    write("dB", 12, top + 12)
    write("open time of a source frame, % of its interval", 420, h - 28)
    for n, ((speed, lines), colour) in enumerate(
        zip(rows.items(), ((60, 150, 40), (200, 110, 20), (40, 40, 200)), strict=False)
    ):
        for db, thick in zip(lines, (4, 1), strict=True):
            points = [at(s, v) for s, v in zip(open_for, db, strict=True)]
            cv2.polylines(picture, [np.array(points)], False, colour, thick, cv2.LINE_AA)
            for point in points:
                cv2.circle(picture, point, thick + 4, colour, -1, cv2.LINE_AA)
        write(f"{speed:g} px a frame: {method} thick, plain mean thin", 690, h - bottom - 96 + 34 * n, colour)
    cv2.imwrite(str(figure), cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))


if __name__ == "__main__":
    main()
