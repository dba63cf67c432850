"""webdataset_pairs: every pair once a pass, right pixels, an order that follows from the seed, whoever reads."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np
import pytest

from blursynth.shards import webdataset_pairs
from blursynth.shards.picture import encode_image
from blursynth.shards.shard import ShardError, ShardWriter

SIDE = {"recipe_sha256": "r", "plan_sha256": "p", "counts": {"written": 1, "rejected": {}}}
H, W = 12, 20


def pair(n):
    """Blur holds its own number in red, x in green, y in blue; sharp is its negative."""
    y, x = np.mgrid[:H, :W]
    blur = np.stack([np.full((H, W), n), x, y], -1).astype(np.uint8)
    return blur, 255 - blur


def write(folder, shards=3, each=4, labels=True, border=None, deep=False, tile=None):
    folder.mkdir(exist_ok=True)
    for s in range(shards):
        with ShardWriter(folder, f"train-{s:06d}") as w:
            for i in range(each):
                blur, sharp = pair(s * each + i)
                wide = (lambda x: x.astype(np.uint16) * 257) if deep else (lambda x: x)
                members = {
                    "blur.png": encode_image(wide(blur), "png"),
                    "sharp.png": encode_image(wide(sharp), "png"),
                }
                if labels:
                    flow = io.BytesIO()
                    np.save(flow, np.stack([blur[..., 1], blur[..., 2]], -1).astype(np.float16))
                    mask = encode_image(np.repeat(blur[..., 1:2] * 10, 3, 2), "png")
                    members |= {"flow.npy": flow.getvalue(), "mask.png": grey(mask)}
                shake = {"border": border} if border else None
                members["json"] = json.dumps({"exposure": {"shake": shake}, "tile": tile}).encode()
                w.add(f"k{s * each + i}", members)
            w.commit(SIDE)
    return folder


def grey(png):
    import cv2

    return cv2.imencode(".png", cv2.imdecode(np.frombuffer(png, np.uint8), 0))[1].tobytes()


def numbers(pairs):
    return [int(p[0][0, 0, 0]) for p in pairs]


def test_in_order_whole_and_with_the_pixels_that_went_in(tmp_path):
    got = list(webdataset_pairs(write(tmp_path / "d"), shuffle=0))
    assert numbers(got) == list(range(12))
    for n, (blur, sharp) in enumerate(got):
        assert blur.dtype == sharp.dtype == np.uint8
        np.testing.assert_array_equal(blur, pair(n)[0])
        np.testing.assert_array_equal(sharp, pair(n)[1])


def test_a_pass_has_every_pair_once_and_the_next_pass_another_order(tmp_path):
    data = webdataset_pairs(write(tmp_path / "d"), crop=8, shuffle=5, seed=3)
    passes = [list(data) for _ in range(4)]
    assert all(sorted(numbers(p)) == list(range(12)) for p in passes)
    assert len({tuple(numbers(p)) for p in passes}) == 4
    places = [[(int(b[0, 0, 1]), int(b[0, 0, 2])) for b, _ in p] for p in passes]
    assert places[0] != places[1], "and other crops"
    again = webdataset_pairs(tmp_path / "d", crop=8, shuffle=5, seed=3)
    for p in passes:
        for (b, s), (b2, s2) in zip(p, list(again), strict=True):
            np.testing.assert_array_equal(b, b2)
            np.testing.assert_array_equal(s, s2)
    assert numbers(webdataset_pairs(tmp_path / "d", shuffle=5, seed=4)) != numbers(passes[0])


def test_a_crop_is_the_same_square_of_everything(tmp_path):
    data = webdataset_pairs(write(tmp_path / "d"), crop=6, labels=("flow", "mask"))
    for blur, sharp, flow, mask in data:
        assert blur.shape == sharp.shape == (6, 6, 3) and flow.shape == (6, 6, 2) and mask.shape == (6, 6)
        np.testing.assert_array_equal(sharp, 255 - blur)
        np.testing.assert_array_equal(flow, blur[..., 1:].astype(np.float16))
        np.testing.assert_array_equal(mask, blur[..., 1] * 10)


def test_crops_keep_out_of_what_shake_filled(tmp_path):
    data = webdataset_pairs(write(tmp_path / "d", each=30, border=[3, 2, 1, 1]), crop=8)
    x, y = zip(*[(int(b[0, 0, 1]), int(b[0, 0, 2])) for b, _ in data], strict=True)
    assert (min(x), max(x), min(y), max(y)) == (3, 20 - 1 - 8, 2, 12 - 1 - 8)


def test_a_tile_has_no_such_sides(tmp_path):
    """Its JSON tells the border of the frame that it was cut from."""
    data = webdataset_pairs(write(tmp_path / "d", each=40, border=[3, 2, 1, 1], tile={"x": 40}), crop=8)
    x, y = zip(*[(int(b[0, 0, 1]), int(b[0, 0, 2])) for b, _ in data], strict=True)
    assert (min(x), max(x), min(y), max(y)) == (0, 20 - 8, 0, 12 - 8)


def test_sixteen_bits_come_as_eight(tmp_path):
    got = list(webdataset_pairs(write(tmp_path / "d", deep=True), shuffle=0))
    np.testing.assert_array_equal(got[5][0], pair(5)[0])


def test_what_is_asked_for_and_not_there_is_an_error(tmp_path):
    write(tmp_path / "d", labels=False)
    with pytest.raises(ShardError, match="has no flow"):
        next(iter(webdataset_pairs(tmp_path / "d", labels=("flow",))))
    with pytest.raises(ShardError, match="20x12 is smaller than a crop of 16"):
        next(iter(webdataset_pairs(tmp_path / "d", crop=16)))
    with pytest.raises(ShardError, match=r"holds no val-\*.tar"):
        webdataset_pairs(tmp_path / "d", split="val")
    with pytest.raises(ValueError, match="depth"):
        webdataset_pairs(tmp_path / "d", labels=("depth",))


def test_a_damaged_picture_is_warned_of_by_name_and_passed_over(tmp_path):
    path = write(tmp_path / "d") / "train-000000.tar"
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT")
    data[at + 6] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.warns(UserWarning, match=r"k0.blur.png: not a decodable image"):
        assert numbers(webdataset_pairs(tmp_path / "d", shuffle=0)) == list(range(1, 12))


def test_patterns_and_lists_name_the_same_shards(tmp_path):
    d = write(tmp_path / "d")
    want = numbers(webdataset_pairs(d, shuffle=0))
    for urls in (
        f"{d}/train-{{000000..000002}}.tar",
        f"{d}/train-*.tar",
        sorted(d.glob("*.tar")),
        [str(p) for p in sorted(d.glob("*.tar"))],
    ):
        assert numbers(webdataset_pairs(urls, shuffle=0)) == want


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_ranks_share_a_pass_with_more_shards_than_ranks_or_fewer(tmp_path, monkeypatch, ranks):
    write(tmp_path / "d")
    parts = []
    for rank in range(ranks):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(ranks))
        parts.append(numbers(webdataset_pairs(tmp_path / "d", seed=1)))
    assert sorted(n for part in parts for n in part) == list(range(12))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1, "shards of one size give equal parts"


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("workers", [2, 5])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_torch_loader_workers_share_a_pass_and_go_on_to_the_next(tmp_path, workers, persistent):
    torch = pytest.importorskip("torch")
    write(tmp_path / "d")
    data = webdataset_pairs(tmp_path / "d", crop=8, seed=2)
    loader = torch.utils.data.DataLoader(
        data, batch_size=None, num_workers=workers, persistent_workers=persistent
    )
    passes = [[int(blur[0, 0, 0]) for blur, _ in loader] for _ in range(3)]
    assert all(sorted(p) == list(range(12)) for p in passes)
    assert len({tuple(p) for p in passes}) == 3


def test_no_torch_is_needed(tmp_path):
    """In a process where torch cannot be imported."""
    write(tmp_path / "d")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from blursynth.shards import webdataset_pairs\n"
        f"print(len(list(webdataset_pairs({str(tmp_path / 'd')!r}, crop=8))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "12", done.stderr
