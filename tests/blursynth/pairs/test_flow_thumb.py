"""Flow colours hold to the Middlebury wheel, and the thumbnail comes back within half a level."""

import base64
import json

import cv2
import numpy as np
import pytest

from blursynth.pairs.flow_thumb import decode_flow_thumb, encode_flow_thumb, flow_colours, wheel_legend


def colour(dx: float, dy: float, full: float = 10.0) -> tuple[int, ...]:
    return tuple(int(c) for c in flow_colours(np.array([[[dx, dy]]], np.float32), full)[0, 0])


def test_wheel_directions_are_middleburys():
    assert colour(10, 0) == (255, 0, 0)  # right: red
    assert colour(10, -0.0) == (255, 0, 0)  # a negative zero is no other direction
    r, g, b = colour(0, 10)  # down (image axes): yellow
    assert r > 200 and g > 200 and b < 40
    r, g, b = colour(-10, 0)  # left: cyan
    assert r < 40 and g > 180 and b == 255
    r, g, b = colour(0, -10)  # up: blue-violet
    assert b == 255 and 60 < r < 200 and g < 40


def test_rest_is_white_speed_saturates_and_overspeed_darkens():
    assert colour(0, 0) == (255, 255, 255)
    assert colour(5, 0) == (255, 127, 127)  # half speed: half saturated
    assert colour(20, 0) == (191, 0, 0)  # beyond the rim: 0.75 of the hue
    flow = np.full((2, 2, 2), np.nan, np.float32)
    assert (flow_colours(flow, 1.0) == 0).all()


def test_wheel_agrees_with_the_published_code_everywhere():
    """The reference, written down from the Middlebury C code (colorcode.cpp), vector by vector."""
    cols = []
    for n, f in [
        (15, lambda i: (255, 255 * i // 15, 0)),
        (6, lambda i: (255 - 255 * i // 6, 255, 0)),
        (4, lambda i: (0, 255, 255 * i // 4)),
        (11, lambda i: (0, 255 - 255 * i // 11, 255)),
        (13, lambda i: (255 * i // 13, 0, 255)),
        (6, lambda i: (255, 0, 255 - 255 * i // 6)),
    ]:
        cols += [f(i) for i in range(n)]
    rng = np.random.default_rng(1)
    for fx, fy in rng.normal(0, 0.8, (300, 2)):
        rad = np.hypot(fx, fy)
        fk = (np.arctan2(-fy, -fx) / np.pi + 1) / 2 * 54
        k0 = int(fk)
        want = []
        for c in range(3):
            col = (1 - (fk - k0)) * cols[k0][c] / 255 + (fk - k0) * cols[(k0 + 1) % 55][c] / 255
            want.append(int(255 * (1 - rad * (1 - col) if rad <= 1 else col * 0.75)))
        assert np.abs(np.array(colour(fx, fy, 1.0)) - want).max() <= 1


def test_legend_shows_the_same_colours_and_is_round():
    legend = wheel_legend(101)
    assert legend.shape == (101, 101, 4) and legend.dtype == np.uint8
    assert legend[0, 0, 3] == 0 and legend[50, 50, 3] == 255
    assert legend[50, 50, :3].min() > 240 and legend[50, 96, 0] > 240 and legend[50, 96, 1] < 40


@pytest.mark.parametrize("shape", [(720, 1280), (1920, 1088), (5, 3), (1, 1), (272, 640)])
def test_thumb_round_trip_is_within_half_a_level(shape):
    rng = np.random.default_rng(0)
    coarse = rng.normal(0, 6, (4, 4, 2)).astype(np.float32)
    flow = cv2.resize(coarse, shape[::-1]).reshape(*shape, 2)
    group = json.loads(json.dumps(encode_flow_thumb(flow)))
    back = decode_flow_thumb(group)
    assert back is not None and back.dtype == np.float32
    assert max(back.shape[:2]) <= 32 and len(group["thumb"]) < 4096
    truth = cv2.resize(flow, back.shape[1::-1], interpolation=cv2.INTER_AREA).reshape(back.shape)
    assert np.abs(back - truth).max() <= group["thumb_scale"] / 2 * (1 + 1e-3)


def test_thumb_channels_are_dx_dy_zero_in_rgb_order():
    flow = np.zeros((8, 8, 2), np.float32)
    flow[..., 0], flow[..., 1] = 4.0, -2.0
    group = encode_flow_thumb(flow)
    bgr = cv2.imdecode(np.frombuffer(base64.b64decode(group["thumb"]), np.uint8), cv2.IMREAD_UNCHANGED)
    r, g, b = bgr[0, 0, ::-1]
    assert r == 254 and 60 <= g <= 68 and b == 0
    assert group == encode_flow_thumb(flow)  # equal flow, equal bytes: shards are reproducible


def test_thumb_of_rest_and_of_unknown_vectors_is_rest():
    for value in (0.0, np.nan, np.inf):
        back = decode_flow_thumb(encode_flow_thumb(np.full((40, 40, 2), value, np.float32)))
        assert back is not None and np.abs(back).max() < 1e-3


@pytest.mark.parametrize(
    "group",
    [
        {},
        {"thumb": 3, "thumb_scale": 1.0},
        {"thumb": "@@@", "thumb_scale": 1.0},
        {"thumb": "iVBORw0KGgo=", "thumb_scale": 1.0},
        {"thumb": "A" * 1_000_000, "thumb_scale": 1.0},
        {**encode_flow_thumb(np.ones((4, 4, 2), np.float32)), "thumb_scale": float("nan")},
        {**encode_flow_thumb(np.ones((4, 4, 2), np.float32)), "thumb_scale": "1"},
        {
            "thumb": base64.b64encode(
                b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\xff\xff\xff\0\xff\xff\xff\x08\x02\0\0\0" + b"\0" * 9
            ).decode(),
            "thumb_scale": 1.0,
        },
    ],
)
def test_bad_thumbs_are_none_never_an_exception(group):
    assert decode_flow_thumb(group) is None


def test_wrong_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match=r"\(H, W, 2\)"):
        flow_colours(np.zeros((4, 4), np.float32), 1.0)
    with pytest.raises(ValueError, match="positive"):
        flow_colours(np.zeros((4, 4, 2), np.float32), 0.0)
    with pytest.raises(ValueError, match="not empty"):
        encode_flow_thumb(np.zeros((0, 4, 2), np.float32))
