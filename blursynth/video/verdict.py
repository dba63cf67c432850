"""The figures of an audited clip, and the verdict and advice that come of them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from blursynth.common.text import counted

WINDOW = 9  # the default window
HIGH_RATE = 90.0  # frames per second from which the default window is an exposure that cameras have
Verdict = Literal["ok", "warn", "reject"]


class ClipAudit(BaseModel):
    """One clip. Positions are frame numbers: the second frame of the interval in question."""

    model_config = ConfigDict(extra="forbid")

    clip: str = Field(description="Clip.rel")
    path: str
    dataset: str | None
    frames: int = Field(description="promised by the file")
    read: int = Field(description="looked at (max_frames)")
    width: int
    height: int
    decoder: str
    transfer: str = Field("srgb", description="the curve its file names: srgb (all of SDR), pq, hlg, linear")
    gamut: str = Field("bt709", description="the primaries its file names: bt709 (all of SDR), bt2020, p3")
    fps: float | None = Field(description="nominal, from the file or the known set")
    fps_measured: float | None = Field(description="of the longest steady stretch of timestamps")
    rate_jitter: float | None = Field(description="spread of timestamp steps over their median")
    faults: dict[str, int] = Field(description="frames that cannot be trusted, by reason")
    gaps: list[int]
    rate_changes: list[int] = Field(
        default_factory=list, description="steps of another length than those before"
    )
    cuts: list[int]
    takes: list[str] = Field(
        default_factory=list, description="first frame of each take, where a folder holds several"
    )
    duplicates: list[int]
    duplicate_period: int | None = Field(description="repeats come every so many frames")
    blend_period: int | None = Field(description="every so many frames one is a blend of its neighbours")
    soft_period: int | None = Field(description="every so many frames one is softer: interpolated")
    soft_share: float = Field(
        description="frames blurred in some direction, against their neighbourhood's sharpest"
    )
    clipped_high: float = Field(description="share of pixels with a channel at 255")
    clipped_low: float = Field(description="share of pixels at 0")
    noise_sigma: float = Field(description="code values")
    motion_px: float = Field(description="median motion a frame, full-size px")
    motion_p95_px: float
    window: int = Field(WINDOW, description="frames of the windows that are counted")
    windows: int = Field(description="windows, end to end, that hold no bad interval")
    windows_possible: int
    verdict: Verdict
    advice: list[str]


def low_rate(fps: float, window: int) -> str:
    """What to say of a film below HIGH_RATE: the window that lasts a thirtieth of a second, or 3 frames."""
    short = max(3, round(fps / 30) + 1)
    ways = [f"--window {short} ({1000 * (short - 1) / fps:.0f} ms)"] if short < window else []
    ways += ["--recipe demo, which exposes a part of 3 frames"] if short == 3 else []
    said = f"{fps:.4g} frames/s is a low rate: {window} frames last {1000 * (window - 1) / fps:.0f} ms"
    return said + (f"; try {' or '.join(ways)}" if ways else "")


def known_undecoded(
    frames: int, gaps: int, rate_changes: int, rate_jitter: float | None, transfer: str
) -> list[str]:
    """Advice on what a file's header and time stamps say: ``make`` gives it too, which decodes nothing for it."""
    found = []
    if gaps:
        found.append(f"{counted(gaps, 'place')} where frames are missing (timestamps or file numbers)")
    if rate_jitter is not None and rate_jitter > 0.25 and frames > 2:
        found.append("variable frame rate: each sample has the rate of its own stretch of film")
    if rate_changes:
        found.append(
            f"the rate changes in {counted(rate_changes, 'place')}: windows across {'it' if rate_changes == 1 else 'them'} are left out"
        )
    if transfer != "srgb":
        found.append(f"{transfer} film: its light above white is kept; --crf auto, the default, reads it so")
    return found


def several_takes(firsts: list[str]) -> list[str]:
    """What to say of a folder of frames that holds several takes, by the name of each one's first frame."""
    if not firsts:
        return []
    shown = ", ".join(firsts[:3]) + (" ..." if len(firsts) > 3 else "")
    return [
        f"{len(firsts)} takes in one folder (from {shown}) count as one clip: no window crosses from one to the next; "
        "give each a folder of its own to have a clip of each"
    ]


def judge(a: ClipAudit) -> tuple[Verdict, list[str]]:
    """Verdict and advice out of the figures. "reject": nothing good comes of this clip as it is."""
    stop, warn = [], []
    if a.windows_possible and not a.windows:
        stop.append(
            f"no window of {a.window} frames is free of cuts, repeats and faults: try a shorter --window"
        )
    if a.duplicate_period or len(a.duplicates) > 0.3 * a.read:
        share = len(a.duplicates) / a.read
        true = f" (about {a.fps * (1 - share):.3g} fps in truth)" if a.fps else ""
        stop.append(
            f"{share:.0%} of the frames are repeats{true}: find the original, or drop the repeats first"
        )
    elif a.duplicates:
        warn.append(f"{counted(len(a.duplicates), 'repeated frame')}: windows across one are left out")
    if a.blend_period and not a.duplicate_period:
        stop.append(
            f"every {_nth(a.blend_period)} frame is a blend of its neighbours (converted rate): find the original"
        )
    elif a.soft_period and not a.duplicate_period:
        warn.append(
            f"every {_nth(a.soft_period)} frame is softer than the others (interpolated?): find the original"
        )
    if not a.windows_possible:
        warn.append(f"only {a.read} frames: too short for a window of {a.window}")
    lost = {k: n for k, n in sorted(a.faults.items()) if k not in ("size", "interlaced")}
    if lost:
        kinds = ", ".join(f"{n} {k}" for k, n in lost.items())
        warn.append(f"frames that cannot be read or trusted: {kinds}; copy or extract the clip again")
    if "size" in a.faults:
        warn.append(
            f"{counted(a.faults['size'], 'frame')} of another size than {a.width}x{a.height}: keep one film in each folder"
        )
    if "interlaced" in a.faults:
        warn.append(f"interlaced film ({counted(a.faults['interlaced'], 'frame')}): add --deinterlace")
    warn += several_takes(a.takes)
    warn += known_undecoded(a.read, len(a.gaps), len(a.rate_changes), a.rate_jitter, a.transfer)
    if a.soft_share > 0.2:
        warn.append(
            f"{a.soft_share:.0%} of the frames are blurred already: --gate default leaves them out; film with a faster shutter"
        )
    if a.clipped_high > 0.02:
        warn.append(
            f"{a.clipped_high:.1%} of the pixels are clipped: streaks come out grey without --highlights"
        )
    if a.motion_p95_px > 24:
        warn.append(
            f"fast motion ({a.motion_p95_px:.0f} px a frame): the flow is at its limit; film at a higher frame rate"
        )
    elif a.motion_p95_px < 0.5:
        warn.append("hardly anything moves: samples will be almost sharp")
    if a.fps is None:
        warn.append("frame rate unknown: give --fps, or exposure times stay empty")
    elif a.fps < HIGH_RATE:
        warn.append(low_rate(a.fps, a.window))
    return ("reject" if stop else "warn" if warn else "ok"), stop + warn


def _nth(n: int) -> str:
    return {2: "2nd", 3: "3rd"}.get(n, f"{n}th")
