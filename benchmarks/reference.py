"""Reference ways to turn n sharp frames (H, W, 3 uint8, BGR, sRGB-encoded) into one blurred frame.

Slow and plain on purpose: they are what the product is held against, in quality and in time.
`article_*` is the pipeline of the article the project started from; `bidir` is the textbook
SuperSloMo-style intermediate flow with consistency weights; `ffmpeg_mci` is what a user has today.
"""

import os, random, subprocess, tempfile
import cv2, numpy as np
from truth import to_linear, to_srgb8


def gray(x):
    return cv2.cvtColor(x, cv2.COLOR_BGR2GRAY)


def warp(im, f):
    """Sample im at x + f(x): f is (H, W, 2) float32 pixels."""
    h, w = f.shape[:2]
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    return cv2.remap(im, x + f[..., 0], y + f[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def flow_fn(kind):
    if kind == "deepflow":
        o = cv2.optflow.createOptFlow_DeepFlow()
        return lambda a, b: o.calc(gray(a), gray(b), None)
    o = cv2.DISOpticalFlow_create({"dis_ultrafast": 0, "dis_fast": 1, "dis_medium": 2}[kind])
    return lambda a, b: o.calc(gray(a), gray(b), None)


def naive_display(fr):
    return np.mean([f.astype(np.float32) for f in fr], 0).round().astype(np.uint8)


def naive_linear(fr):
    return to_srgb8(np.mean([to_linear(f) for f in fr], 0))


def article(fr, k=16, kind="deepflow"):
    """As the article prints it: one-sided warp along +flow, 8 random sub-frames, display-domain mean."""
    ff = flow_fn(kind)
    out = []
    for a, b in zip(fr, fr[1:]):
        f = ff(a, b)
        out += [warp(a, f * np.float32(j)) for j in np.linspace(0, 1, k)]
    return np.mean(random.Random(0).sample(out, 8), 0).astype(np.uint8)


def one_sided(fr, k=16, kind="deepflow"):
    """The article's idea with its sign and its sampling repaired."""
    ff = flow_fn(kind)
    acc = 0
    for a, b in zip(fr, fr[1:]):
        f = ff(a, b)
        la = to_linear(a)
        for j in (np.arange(k) + 0.5) / k:
            acc = acc + warp(la, -f * np.float32(j))
    return to_srgb8(acc / (k * (len(fr) - 1)))


def bidir(fr, k=16, kind="deepflow"):
    ff = flow_fn(kind)
    acc = 0
    L = [to_linear(f) for f in fr]
    for i in range(len(fr) - 1):
        F, B = ff(fr[i], fr[i + 1]), ff(fr[i + 1], fr[i])
        wa = np.exp(-np.linalg.norm(F + warp(B, F), axis=2))
        wb = np.exp(-np.linalg.norm(B + warp(F, B), axis=2))
        for t in ((np.arange(k) + 0.5) / k).astype(np.float32):
            fa = -(1 - t) * t * F + t * t * B
            fb = (1 - t) ** 2 * F - t * (1 - t) * B
            ua = (1 - t) * warp(wa, fa) + 1e-4
            ub = t * warp(wb, fb) + 1e-4
            acc = (
                acc
                + (ua[..., None] * warp(L[i], fa) + ub[..., None] * warp(L[i + 1], fb)) / (ua + ub)[..., None]
            )
    return to_srgb8(acc / (k * (len(fr) - 1)))


def ffmpeg_mci(fr, k=16):
    import imageio_ffmpeg

    with tempfile.TemporaryDirectory() as d:
        for i, f in enumerate(fr):
            cv2.imwrite(f"{d}/{i:03d}.png", f)
        subprocess.run(
            [
                imageio_ffmpeg.get_ffmpeg_exe(),
                "-y",
                "-loglevel",
                "error",
                "-framerate",
                "1",
                "-i",
                f"{d}/%03d.png",
                "-vf",
                f"minterpolate=fps={k}:mi_mode=mci:mc_mode=aobmc:me_mode=bidir:vsbmc=1:scd=none",
                f"{d}/o%04d.png",
            ],
            check=True,
        )
        return to_srgb8(
            np.mean(
                [to_linear(cv2.imread(f"{d}/{x}")) for x in sorted(os.listdir(d)) if x.startswith("o")], 0
            )
        )
