"""The commands that leave torch behind: ``export`` and ``bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from blursynth.common.atomic import write_atomic
from blursynth.common.command import Command, say
from blursynth.common.text import counted
from deblur_train.cli.shared import checkpoint_option

WHOLE_STATS = click.option(
    "--norm-stats",
    type=click.Choice(["tracked", "image"]),
    default="tracked",
    show_default=True,
    help="Statistics that the norm layers of checkpoints use: those of training, or the picture's own.",
)
"""The statistics that a file for another runtime can hold: no windows, as `local` has."""


@click.command("export", cls=Command)
@checkpoint_option("ours or an official file")
@click.option(
    "--format",
    "format_",
    required=True,
    type=click.Choice(["onnx", "tflite", "pt2"]),
    help="onnx (onnxruntime, TensorRT), tflite (LiteRT), pt2 (torch.export).",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    show_default=True,
    help="Type of the numbers inside. int8 is smallest, and fastest on CPUs; it needs --calib.",
)
@click.option(
    "--calib",
    metavar="DATA",
    help="Shards to calibrate int8 on, and to measure PSNR on. Example: --calib data",
)
@click.option(
    "--out",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write. Example: model.onnx",
)
@click.option(
    "--height",
    type=click.IntRange(min=1),
    help="Fix the height of the input, together with --width.  [default: any size; tflite: 256]",
)
@click.option(
    "--width",
    type=click.IntRange(min=1),
    help="Fix the width of the input, together with --height.  [default: any size; tflite: 256]",
)
@click.option(
    "--io",
    type=click.Choice(["float32", "float16", "uint8"]),
    default="float32",
    show_default=True,
    help="Input and output: floats in [-1, 1], or bytes of shape (N, H, W, 3).",
)
@WHOLE_STATS
@click.option(
    "--int8-for",
    type=click.Choice(["cpu", "tensorrt"]),
    default="cpu",
    show_default=True,
    help="What int8 is for: CPUs (unsigned, 7-bit weights) or TensorRT (signed, symmetric).",
)
@click.option(
    "--calib-frames",
    type=click.IntRange(min=2),
    default=24,
    show_default=True,
    help="Frames of --calib to use.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    help="Refuse a file that differs more than this from torch, on values in [-1, 1]; for int8: that loses more PSNR, in dB.  [default: fp32 0.001, fp16 0.02, int8 0.3]",
)
@click.option(
    "--opset", type=click.IntRange(18, 23), default=20, show_default=True, help="ONNX operator set."
)
def export_command(
    checkpoint: str, format_: Any, out: Path, height: int | None, width: int | None, **options: Any
) -> None:
    """Write a network as a file for another runtime.

    The file is compared with torch before it is kept. FILE.json says how much it differs and how fast it is.

    \b
    deblur-train export --checkpoint runs/first/best.safetensors --format onnx --out model.onnx
    """
    from deblur_train.exporting.export import ExportOptions, export

    if (height is None) != (width is None):
        raise click.UsageError("give both --height and --width, or neither")
    size = (height, width) if height and width else None

    report = export(checkpoint, out, ExportOptions(format=format_, size=size, **options))
    for row in report["parity"]:
        say(
            f"{row['height']} x {row['width']}: largest difference {row['max_abs']:.1e}, {row['psnr_db']:.1f} dB"
        )
    change = report["psnr_change"]
    if change:
        say(
            f"PSNR on {change['frames']} frames: fp32 {change['fp32_db']:.3f}, exported "
            f"{change['exported_db']:.3f} (loss {change['loss_db']:+.3f} dB); {change['against_fp32_db']:.1f} dB "
            f"between the two; {change['note']}"
        )
    took = report["latency"]
    say(
        f"{took['height']} x {took['width']}, {counted(took['threads'], 'thread')}: {took['median_ms']:.1f} ms, "
        f"{took['speedup']:.2f}x eager torch's speed"
    )
    say(f"written: {out} ({report['bytes'] / 1e6:.2f} MB) and {out}.json")


def _sizes(context: click.Context, parameter: click.Parameter, value: str) -> list[tuple[int, int]]:
    sizes = []
    for part in value.split(","):
        h, x, w = part.strip().lower().partition("x")
        if not (x and h.isdigit() and w.isdigit() and int(h) > 0 and int(w) > 0):
            raise click.BadParameter(f"{part!r} is not HEIGHTxWIDTH, for example 720x1280")
        sizes.append((int(h), int(w)))
    return sizes


@click.command("bench", cls=Command)
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE_OR_CHECKPOINT...", type=click.Path(path_type=Path)
)
@click.option(
    "--sizes",
    default="256x256,720x1280,1080x1920",
    show_default=True,
    metavar="HxW,...",
    callback=_sizes,
    help="Heights and widths to run at.",
)
@click.option(
    "--runtime",
    "torch_runtimes",
    type=click.Choice(["eager", "compile"]),
    multiple=True,
    default=["eager"],
    show_default=True,
    help="How to run checkpoints; give it twice for both. Exported files run in their own runtime.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all cores]")
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=7,
    show_default=True,
    help="Runs of each file; the table shows the median and the least.",
)
@WHOLE_STATS
@click.option(
    "--json", "report", metavar="FILE", type=click.Path(path_type=Path), help="Write all values to this file."
)
def bench_command(
    files: tuple[Path, ...],
    sizes: list[tuple[int, int]],
    torch_runtimes: tuple[str, ...],
    threads: int | None,
    rounds: int,
    norm_stats: Any,
    report: Path | None,
) -> None:
    """Time checkpoints and exported files on this machine, in turn.

    \b
    deblur-train bench runs/first/best.safetensors model.onnx --sizes 720x1280
    """
    import torch

    from deblur_train.evaluation.bench import Skipped, as_json, bench, count, model_of
    from deblur_train.inference.runtimes import EXPORTED, open_any

    if threads:
        torch.set_num_threads(threads)
    used = torch.get_num_threads()
    runners = []
    for path in files:
        kinds = [False] if path.suffix.lower() in EXPORTED else [k == "compile" for k in torch_runtimes]
        runners += [(str(path), open_any(path, used, norm_stats, compiled)) for compiled in kinds]
    rows = bench(runners, sizes, rounds)
    # Plain columns: a drawn table loses its figures where a terminal is narrow or there is none.
    wide = max(4, *(len(name) for name, _ in runners))
    heads = f"{'median ms':>10}{'least ms':>10}{'frames/s':>10}{'MP/s':>8}{'speed-up':>10}{'GMAC':>8}"
    say(f"{'file':{wide}}  {'runtime':11} {'size':10}{heads}")
    for row in rows:
        start = f"{row.name:{wide}}  "
        size = f"{row.height}x{row.width}"
        if isinstance(row, Skipped):
            say(f"{start}{'-':11} {size:10}  {row.reason}")
            continue
        gmacs = "-" if row.gmacs is None else f"{row.gmacs:.1f}"
        say(
            f"{start}{row.runtime:11} {size:10}{row.median_ms:10.1f}{row.least_ms:10.1f}"
            f"{row.frames_per_s:10.2f}{row.megapixels_per_s:8.2f}{row.speedup:9.2f}x{gmacs:>8}",
        )
    models = sorted({model_of(r) for _, r in runners if r.info.get("backbone")})
    costs = {" ".join(model).strip(): count(*model) for model in models}
    for name, (macs, parameters) in costs.items():
        say(f"{name}: {macs / 1e3:.1f} kMAC a pixel, {parameters / 1e6:.2f} M parameters used")
    say(f"{counted(used, 'thread')}, median of {rounds} rounds; speed-up over the first file of its size")
    if report:
        held = {
            "threads": used,
            "rounds": rounds,
            "models": {n: {"kmacs_per_pixel": m / 1e3, "parameters": p} for n, (m, p) in costs.items()},
            "rows": as_json(rows),
        }
        text = json.dumps(held, indent=1) + "\n"
        write_atomic(report, text.encode())
