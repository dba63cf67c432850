"""Scenes with a known continuous exposure: the reference that synthesised blur is held against.

A scene is a textured background and foreground cut-outs, each moved by a smooth similarity
transform of time, composited in linear light.  `frames()` samples it at integer times (what a
high-frame-rate camera delivers, 8-bit sRGB); `exposure()` integrates it over a window with many
sub-samples (what one long exposure would have delivered).
"""

import numpy as np, cv2, os, skimage

D = os.path.join(os.path.dirname(skimage.__file__), "data")


def to_linear(u8):
    x = np.asarray(u8, np.float32) / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_srgb8(x):
    x = np.clip(x, 0, 1)
    y = np.where(x <= 0.0031308, x * 12.92, 1.055 * np.power(np.maximum(x, 1e-9), 1 / 2.4) - 0.055)
    return np.round(y * 255).astype(np.uint8)


def tex(name):
    im = cv2.imread(os.path.join(D, name), cv2.IMREAD_COLOR)
    return to_linear(im)


class Layer:
    def __init__(s, im, alpha, centre, vel, acc, rot, zoom, scale):
        s.im, s.alpha, s.c, s.v, s.a, s.r, s.z, s.s = im, alpha, centre, vel, acc, rot, zoom, scale

    def matrix(s, t):
        h, w = s.im.shape[:2]
        th = s.r * t
        k = s.s * (1 + s.z * t)
        c, n = np.cos(th) * k, np.sin(th) * k
        px = s.c[0] + s.v[0] * t + 0.5 * s.a[0] * t * t
        py = s.c[1] + s.v[1] * t + 0.5 * s.a[1] * t * t
        return np.array([[c, -n, px - c * w / 2 + n * h / 2], [n, c, py - n * w / 2 - c * h / 2]], np.float64)


class Scene:
    def __init__(s, seed, size=(360, 640), speed=4.0, n_fg=3, lights=True):
        g = np.random.default_rng(seed)
        s.h, s.w = size
        bgs = [
            "coffee.png",
            "rocket.jpg",
            "motorcycle_left.png",
            "hubble_deep_field.jpg",
            "brick.png",
            "grass.png",
            "gravel.png",
            "ihc.png",
        ]
        fgs = [
            "astronaut.png",
            "chelsea.png",
            "coffee.png",
            "motorcycle_right.png",
            "brick.png",
            "retina.jpg",
        ]
        im = tex(bgs[g.integers(len(bgs))])
        k = 1.6 * max(s.w / im.shape[1], s.h / im.shape[0])
        im = cv2.resize(im, None, fx=k, fy=k, interpolation=cv2.INTER_AREA if k < 1 else cv2.INTER_CUBIC)
        im = np.clip(im, 0, None)
        ang = g.uniform(0, 2 * np.pi)
        v = speed * 0.5 * np.array([np.cos(ang), np.sin(ang)])
        s.layers = [
            Layer(
                im,
                None,
                (s.w / 2, s.h / 2),
                v,
                g.normal(0, 0.04 * speed, 2),
                g.normal(0, 0.0006 * speed),
                g.normal(0, 0.0004 * speed),
                1.0,
            )
        ]
        for _ in range(n_fg):
            t = tex(fgs[g.integers(len(fgs))])
            n = int(g.uniform(0.25, 0.5) * s.h)
            t = cv2.resize(t, (n, n), interpolation=cv2.INTER_AREA)
            t = np.clip(t, 0, None)
            yy, xx = np.mgrid[-1 : 1 : n * 1j, -1 : 1 : n * 1j]
            th = np.arctan2(yy, xx)
            rad = 0.78 + 0.12 * np.sin(g.integers(2, 6) * th + g.uniform(0, 6))
            al = np.clip((rad - np.hypot(xx, yy)) * n / 2 + 0.5, 0, 1).astype(np.float32)
            if lights and g.random() < 0.6:
                for _ in range(4):
                    cx, cy = (g.uniform(0.3, 0.7, 2) * n).astype(int)
                    cv2.circle(t, (int(cx), int(cy)), int(g.integers(2, 5)), (6.0,) * 3, -1, cv2.LINE_AA)
            ang = g.uniform(0, 2 * np.pi)
            sp = speed * g.uniform(0.6, 1.6)
            s.layers.append(
                Layer(
                    t,
                    al,
                    (g.uniform(0.2, 0.8) * s.w, g.uniform(0.2, 0.8) * s.h),
                    sp * np.array([np.cos(ang), np.sin(ang)]),
                    g.normal(0, 0.06 * speed, 2),
                    g.normal(0, 0.004 * speed),
                    g.normal(0, 0.001 * speed),
                    1.0,
                )
            )

    def at(s, t, origin=0.0, camera=None):
        """Linear light at time t; camera: 2x3 matrix that takes a place in the still camera's picture to its own."""
        t = t - origin
        out = None
        for L in s.layers:
            M = L.matrix(t)
            if camera is not None:
                M = camera @ np.vstack([M, [0, 0, 1]])
            if out is None:
                out = cv2.warpAffine(
                    L.im, M, (s.w, s.h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
                )
            else:
                al = cv2.warpAffine(L.alpha, M, (s.w, s.h), flags=cv2.INTER_LINEAR, borderValue=0)[..., None]
                im = cv2.warpAffine(
                    L.im, M, (s.w, s.h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
                )
                out = out * (1 - al) + im * al
        return out

    def frames(s, n):
        return [to_srgb8(s.at(i, (n - 1) / 2)) for i in range(n)]

    def camera(s, path, u):
        """2x3 matrix of the picture at share u of a camera's path."""
        x, y, roll = (np.interp(u, np.linspace(0, 1, len(path)), v) for v in np.asarray(path).T)
        c = np.array([(s.w - 1) / 2, (s.h - 1) / 2])
        turn = np.array(
            [
                [np.cos(np.radians(roll)), -np.sin(np.radians(roll))],
                [np.sin(np.radians(roll)), np.cos(np.radians(roll))],
            ]
        )
        return np.hstack([turn, (c - turn @ c + (x, y))[:, None]])

    def exposure(s, n, sub=32, t0=0.0, t1=None, path=None):
        """8-bit exposure from t0 to t1; path (P, 3): the camera's over it, x, y px and roll in degrees (DESIGN 3)."""
        t1 = (n - 1) if t1 is None else t1
        k = int(round((t1 - t0) * sub))
        ts = t0 + (np.arange(k) + 0.5) / k * (t1 - t0)
        acc = np.zeros((s.h, s.w, 3), np.float64)
        for t in ts:
            acc += s.at(t, (n - 1) / 2, None if path is None else s.camera(path, (t - t0) / (t1 - t0)))
        return to_srgb8(acc / k)


def psnr(a, b):
    """dB between two 8-bit images of one shape; 99 where they are equal."""
    e = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return 99.0 if e == 0 else 10 * np.log10(255**2 / e)
