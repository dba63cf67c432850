import json
import multiprocessing
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from blursynth.camera.response import load_response
from blursynth.pairs.synthesis import Synthesizer
from blursynth.recipe import Recipe
from deblur_train.config import ConfigError, DataConfig
from deblur_train.data.augment import Augment, redraw_noise
from deblur_train.data.index import DataError, index_split
from deblur_train.data.loader import load_batches, usable_workers
from deblur_train.data.order import Mixture, ShardSet
from deblur_train.data.stream import CropOptions, CropStream
from deblur_train.inference.tensors import image_to_tensor, tensor_to_image, to_device
from tests.helpers.train_shards import encode as encode_png
from tests.helpers.train_shards import make_data, meta, sample, scene, write_tar


def stream(folder, first=0, seed=3, rank=0, ranks=1, **options):
    o = CropOptions(
        **({"batch_size": 2, "crop": 32, "crops_per_frame": 3, "frames_in_flight": 2, "lanes": 4} | options)
    )
    return CropStream(index_split(folder, "train"), o, seed, rank, ranks, first)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("augment", ["none", "dihedral", "article"])
def test_a_batch_depends_on_nothing_but_its_number(data, augment):
    """Any start, any number of workers: what --resume rests on."""
    straight = load_batches(stream(data, augment=augment), 0)
    want = [next(straight) for _ in range(24)]
    for first, workers in ((0, 2), (5, 0), (7, 2), (11, 1)):
        got = load_batches(stream(data, first, augment=augment), workers)
        for number in range(first, min(first + 9, 24)):
            b = next(got)
            assert b["number"] == number
            assert torch.equal(b["blur"], want[number]["blur"]) and torch.equal(
                b["sharp"], want[number]["sharp"]
            )
        got.close()


@pytest.mark.timeout(60)
def test_workers_start_after_opencv_used_its_threads_here(data):
    """OpenCV's pool does not survive a fork: without care the workers hang in their first call."""
    cv2.setNumThreads(4)
    cv2.GaussianBlur(np.zeros((2000, 2000), np.float32), (31, 31), 5)
    batches = load_batches(stream(data), 2)
    assert next(batches)["number"] == 0
    batches.close()


ABANDONED = """
import sys
from deblur_train.data.stream import CropOptions, CropStream
from deblur_train.data.loader import load_batches
from deblur_train.data.index import index_split
o = CropOptions(batch_size=2, crop=32, crops_per_frame=3, frames_in_flight=2, lanes=4)
batches = load_batches(CropStream(index_split(sys.argv[1], "train"), o, 3, 0, 1, 0), 2)
next(batches)
if sys.argv[2] == "fails":
    raise SystemExit("a mistake of the caller's")
"""


@pytest.mark.parametrize("how", ["ends", "fails"])
def test_a_stream_left_open_does_not_keep_the_program_from_ending(data, how):
    """The workers ignore SIGTERM, with which multiprocessing ends them at exit before it waits for them."""
    command = [sys.executable, "-c", ABANDONED, str(data), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.strip()) == (
        (0, "") if how == "ends" else (1, "a mistake of the caller's")
    )


def test_seeds_and_ranks_differ(data):
    a = next(load_batches(stream(data), 0))
    assert not torch.equal(a["blur"], next(load_batches(stream(data, seed=4), 0))["blur"])
    assert not torch.equal(a["blur"], next(load_batches(stream(data, rank=1, ranks=2), 0))["blur"])


@pytest.mark.parametrize("shards", [1, 2, 6])
def test_every_frame_is_used_equally_often_over_all_ranks(tmp_path, monkeypatch, shards):
    """Six samples, two ranks: in an epoch each sample is decoded once, on one rank, and gives crops_per_frame crops,
    with fewer shards than readers too."""
    data = make_data(tmp_path, shards, 6 // shards)
    seen = []
    decode = CropStream._decode
    monkeypatch.setattr(
        CropStream,
        "_decode",
        lambda self, position: (
            seen.append((position, int(self.sets[0].order(position // 6)[position % 6]))),
            decode(self, position),
        )[1],
    )
    for rank in range(2):
        s = stream(data, rank=rank, ranks=2, lanes=3, batch_size=1)
        for number in range(3 * 2 * 3 * 4):  # lanes x frames_in_flight x crops_per_frame x chunks
            s.batch(number)
    positions = sorted(p for p, _ in seen)
    assert positions == list(range(2 * 3 * 2 * 4)), "every position once, over ranks and lanes"
    for epoch in range(8):
        assert sorted(n for p, n in seen if p // 6 == epoch) == list(range(6))
    orders = {tuple(n for p, n in sorted(seen) if p // 6 == e) for e in range(8)}
    assert len(orders) > 4, "epochs are shuffled afresh"


def test_one_shard_feeds_two_ranks_of_four_decoding_processes(tmp_path):
    """The same crops as without processes, and the two ranks share the shard's samples evenly."""
    data = make_data(tmp_path, 1, 8)
    for rank in range(2):
        alone = load_batches(stream(data, rank=rank, ranks=2), 0)
        shared = load_batches(stream(data, rank=rank, ranks=2), 4)
        for _ in range(12):
            a, b = next(alone), next(shared)
            assert a["number"] == b["number"] and torch.equal(a["blur"], b["blur"])
        alone.close()
        shared.close()


def test_shards_are_read_one_after_the_other(data):
    own = ShardSet(index_split(data, "train"), 3, 0)
    shards = own.shard_of[own.order(0)]
    assert np.count_nonzero(np.diff(shards)) == 1


def test_crops_are_aligned_and_within_the_frame(data):
    """Without augmentation, each crop is found at the same place of both pictures of one frame."""
    frames = {i: scene(i) for i in (0, 1, 2, 10, 11, 12)}
    b = stream(data, augment="none").batch(0)
    assert b["blur"].dtype == torch.uint8 and b["blur"].shape == (2, 3, 32, 32)
    assert b["blur"].is_contiguous(memory_format=torch.channels_last)
    for blur, sharp in zip(
        b["blur"].permute(0, 2, 3, 1).numpy(), b["sharp"].permute(0, 2, 3, 1).numpy(), strict=True
    ):
        places = [
            (i, y, x)
            for i, (fb, fs) in frames.items()
            for y in range(72 - 31)
            for x in range(96 - 31)
            if fs[y, x, 0] == sharp[0, 0, 0]
            and np.array_equal(fs[y : y + 32, x : x + 32], sharp)
            and np.array_equal(fb[y : y + 32, x : x + 32], blur)
        ]
        assert len(places) == 1


def test_crops_stay_clear_of_the_sides_that_a_shaking_camera_brought_in(tmp_path):
    """Left, top, right, bottom are marked in the picture: no crop shows a mark; of a tile nothing is taken off."""
    left, top, right, bottom = 9, 4, 17, 11
    picture = np.zeros((72, 96, 3), np.uint8)
    picture[top : 72 - bottom, left : 96 - right] = 255
    told = meta("k")
    told["exposure"]["shake"] = {
        "px": 20.0,
        "path": [[0.0, 0.0, 0.0]] * 33,
        "border": [left, top, right, bottom],
    }
    members = [(f"k.{role}.png", encode_png(picture)) for role in ("blur", "sharp")]
    for tile, least in ((None, 255), ({"x": 0, "y": 0, "size": 72, "window": "k"}, 0)):
        whole = told | ({"tile": tile} if tile else {})
        write_tar(tmp_path / "train-000000.tar", [*members, ("k.json", json.dumps(whole).encode())])
        got = [int(stream(tmp_path, augment="none").batch(n)["blur"].min()) for n in range(12)]
        assert min(got) == least


def test_small_frames_are_reflected_up_to_the_crop(tmp_path):
    write_tar(tmp_path / "train-000000.tar", sample("k", 1, h=20, w=40))
    b = stream(tmp_path, augment="none").batch(0)
    assert b["sharp"].shape == (2, 3, 32, 32)


def test_a_broken_frame_gives_way_to_the_next_and_is_named(tmp_path):
    bad = sample("bad", 1)
    bad[0] = (bad[0][0], bad[0][1][:-30])
    write_tar(tmp_path / "train-000000.tar", [*bad, *sample("good", 2)])
    got = load_batches(stream(tmp_path, augment="none", lanes=2), 0)
    batches = [next(got) for _ in range(12)]
    faults = [f for b in batches for f in b["faults"]]
    assert len(faults) == 1 and "train-000000.tar:bad" in faults[0] and "PNG" in faults[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_decodable_is_one_clear_error(tmp_path, workers):
    bad = sample("bad", 1)
    bad[0] = (bad[0][0], bad[0][1][:-30])
    write_tar(tmp_path / "train-000000.tar", bad)
    with pytest.raises(DataError, match="none of the 1 samples can be decoded") as e:
        next(load_batches(stream(tmp_path), workers))
    assert "\n" not in str(e.value)
    assert e.tb is not None and not multiprocessing.active_children()  # not even while the traceback is kept


def test_workers_divide_the_lanes():
    assert [usable_workers(n, 8) for n in (0, 1, 2, 3, 5, 7, 8, 100)] == [0, 1, 2, 2, 4, 4, 8, 8]


def test_article_augmentation_moves_both_pictures_alike_and_drops_only_from_the_input():
    augment = Augment("article")
    dropped = moved = 0
    for seed in range(40):
        x = scene(seed, 64, 64)[1]
        blur, sharp = augment(x.copy(), x.copy(), np.random.default_rng(seed))
        differs = np.any(blur != sharp, axis=2)
        # Where the input was not dropped (to black), both pictures went through the very same change.
        assert np.all(blur[differs] == 0)
        dropped += bool(differs.any())
        moved += not np.array_equal(sharp, x)
    assert 2 <= dropped <= 25
    assert moved >= 25


def test_dihedral_reaches_all_eight_and_keeps_pairs():
    x = scene(0, 64, 64)[1]
    seen = set()
    for seed in range(64):
        blur, sharp = Augment("dihedral")(x, x, np.random.default_rng(seed))
        assert np.array_equal(blur, sharp)
        seen.add(sharp.tobytes())
    assert len(seen) == 8


WHOLE = (slice(0, 192), slice(0, 256))


@pytest.mark.parametrize("kind", ["rsblur", "realblur", "4e-4,3e-3", "rgb:4e-4,3e-3"])
@pytest.mark.parametrize("quality", [None, 85])
def test_noise_drawn_anew_is_what_make_puts_in(kind, quality):
    """Deviation and correlation between neighbours, channel by channel; same curve, same JPEG."""
    rng = np.random.default_rng(0)
    light = cv2.GaussianBlur(rng.random((192, 256, 3)).astype(np.float32), (0, 0), 12)
    light = 0.1 + 0.5 * (light - light.min()) / np.ptp(light)
    frames = [load_response("gamma2.2").encode(light)] * 3
    options = {"interp": "none", "crf": "gamma2.2", "noise": kind, "store": "linear16"}
    maker = Synthesizer(Recipe(**options, jpeg=str(quality or "off")))

    def facts(pictures: list[np.ndarray]) -> np.ndarray:
        d = np.stack(pictures).astype(float)
        d -= d.mean(0)
        near = [(d[..., :-1, c] * d[..., 1:, c]).mean() / d[..., c].var() for c in range(3)]
        return np.array([*d.std((0, 1, 2)), *near])

    made = [maker.sample("c", frames, 0, None, np.random.default_rng(s)) for s in range(24)]
    drawn = [
        redraw_noise(made[0].linear16, WHOLE, kind, "gamma2.2", quality, np.random.default_rng(100 + s))
        for s in range(24)
    ]
    want, got = facts([m.blur_rgb for m in made]), facts(drawn)
    assert np.allclose(got[:3], want[:3], rtol=0.12), (got, want)
    assert np.allclose(got[3:], want[3:], atol=0.05), (got, want)


def test_a_crop_keeps_its_place_on_the_jpegs_grid():
    linear = np.random.default_rng(0).integers(8000, 50000, (96, 96, 3)).astype(np.uint16)
    window = (slice(21, 61), slice(37, 77))
    tiny = "rgb:0,0"  # no noise: JPEG alone
    crop = redraw_noise(linear, window, tiny, "srgb", 60, np.random.default_rng(0))
    whole = redraw_noise(linear, (slice(0, 96), slice(0, 96)), tiny, "srgb", 60, np.random.default_rng(0))
    inner = np.s_[:24, :24]  # blocks that lie in the crop whole
    assert np.array_equal(crop[inner], whole[window][inner])


def test_noise_drawn_anew_differs_from_crop_to_crop(tmp_path):
    write_tar(tmp_path / "train-000000.tar", sample("k", 1, linear=True))
    batch = stream(tmp_path, noise="rsblur", augment="none", batch_size=4).batch(0)
    assert len({x.numpy().tobytes() for x in batch["blur"]}) > 1


@pytest.mark.parametrize("crf", ["somewhere/crf.npy", "gamma0", "nonsense"])
def test_a_response_curve_that_is_not_there_is_said(crf):
    linear = np.zeros((192, 256, 3), np.uint16)
    with pytest.raises(DataError, match="to off"):
        redraw_noise(linear, WHOLE, "rsblur", crf, None, np.random.default_rng(0))


def test_a_curve_from_a_file_is_used(tmp_path):
    np.save(tmp_path / "curve.npy", np.linspace(0, 1, 256) ** 3)
    linear = np.full((192, 256, 3), 65535 // 8, np.uint16)
    codes = redraw_noise(
        linear, WHOLE, "rgb:0,0", str(tmp_path / "curve.npy"), None, np.random.default_rng(0)
    )
    assert np.abs(codes - 127.5).max() <= 1


def test_noise_settings_of_a_config():
    for good in ("off", "rsblur", "iso", "1e-4,1e-3", "rgb:1e-4,1e-3"):
        assert DataConfig(noise=good).noise == good
    for bad, why in (("restore", "source's frames"), ("loud", "is not off, rsblur")):
        with pytest.raises(ValueError, match=why):
            DataConfig(noise=bad)


def test_noise_without_linear_images_is_a_clear_error(data):
    with pytest.raises(DataError, match="linear16"):
        stream(data, noise="rsblur").batch(0)


def test_pixel_values_map_to_signed_range_and_back():
    x = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    assert to_device(x, torch.device("cpu")).flatten().tolist() == [-1.0] * 3 + [1.0] * 3
    for dtype in (np.uint8, np.uint16):
        values = np.linspace(0, np.iinfo(dtype).max, 256).astype(dtype).reshape(1, -1, 1).repeat(3, 2)
        np.testing.assert_array_equal(tensor_to_image(image_to_tensor(values), dtype), values)


@pytest.mark.parametrize(
    ("weights", "parts"), [([3, 1], [3, 1]), ([0.7, 0.3], [7, 3]), ([2, 2, 4], [1, 1, 2])]
)
def test_a_mixed_row_holds_each_set_by_its_weight_and_misses_no_place_of_any(weights, parts):
    """In every block of places each set has exactly its share, and its own places come in order, each once, whichever
    place is asked for first."""
    n = sum(parts)
    mixture = Mixture(weights, seed=5)
    found = [mixture.find(p) for p in range(60 * n)]
    for block in range(60):
        sets = [s for s, _ in found[block * n : (block + 1) * n]]
        assert [sets.count(i) for i in range(len(parts))] == parts
    for i, part in enumerate(parts):
        assert [at for s, at in found if s == i] == list(range(60 * part))
    assert [Mixture(weights, seed=5).find(p) for p in (111, 7, 58)] == [found[p] for p in (111, 7, 58)]
    assert len({tuple(s for s, _ in found[b * n : (b + 1) * n]) for b in range(60)}) > 1, "no fixed pattern"


@pytest.mark.parametrize("weights", [[1, 1e-5], [1, 0.0001], [997, 991, 983, 977, 971]])
def test_weights_too_unlike_are_refused(weights):
    with pytest.raises(ConfigError, match="too unlike"):
        Mixture(weights, seed=0)


def test_a_mixed_stream_is_a_function_of_seed_and_batch(tmp_path, data):
    """Two sets, 3 to 1: any start, any number of workers, and the ranks share the places of one row."""
    other = make_data(tmp_path / "b", shards=1, samples=3, val=0)
    indexes = [index_split(d, "train") for d in (data, other)]
    o = CropOptions(batch_size=2, crop=32, crops_per_frame=3, frames_in_flight=2, lanes=4)

    def mixed(first=0, rank=0, ranks=1):
        return CropStream(indexes, o, 3, rank, ranks, first, mix=(3, 1))

    straight = load_batches(mixed(), 0)
    want = [next(straight) for _ in range(16)]
    for first, workers in ((0, 2), (5, 0), (7, 4)):
        got = load_batches(mixed(first), workers)
        for number in range(first, first + 8):
            assert torch.equal(next(got)["blur"], want[number]["blur"])
        got.close()
    one = CropStream(indexes[0], o, 3)
    assert not all(torch.equal(one.batch(i)["blur"], want[i]["blur"]) for i in range(16))

    seen = []
    for rank in range(2):
        s = mixed(rank=rank, ranks=2)
        find = s.mixture.find
        s.mixture.find = lambda place, find=find: seen.append((place, *find(place))) or find(place)
        for number in range(4 * 3 * 4):
            s.batch(number)
    assert sorted(p for p, _, _ in seen) == list(range(len(seen))), "every place once, over ranks and lanes"
    assert np.mean([s for _, s, _ in seen]) == 0.25


def test_a_set_without_a_sound_sample_is_named_though_the_other_is_whole(tmp_path, data):
    folder = tmp_path / "b"
    folder.mkdir()
    members = [(n, b"no picture" if n.endswith("blur.png") else d) for n, d in sample("k", 1)]
    write_tar(folder / "train-000000.tar", members)
    s = CropStream(
        [index_split(data, "train"), index_split(folder, "train")],
        CropOptions(batch_size=8, crop=32, crops_per_frame=1, lanes=1),
        0,
        mix=(1, 1),
    )
    with pytest.raises(
        DataError, match=r"none of the 1 samples can be decoded; the last: train-000000.tar:k"
    ):
        s.batch(0)
