from __future__ import annotations

import hashlib
import random
import shutil
from pathlib import Path

import pytest

from blursynth.sources.find import Clip, SourceError, find_clips
from blursynth.sources.splits import assign_splits, clip_sha256
from blursynth.video.clip import ClipInfo
from tests.helpers.films import moving, write_frames, write_video

SMALL = moving(4, (48, 32))


def frames(folder: Path, n: int = 4, seed: int = 0) -> Path:
    return write_frames(folder, moving(n, (48, 32), seed=seed) if seed else SMALL[:n])


def reasons(rejects) -> dict[str, int]:
    out: dict[str, int] = {}
    for r in rejects:
        assert r.what in r.detail and "\n" not in r.detail
        out[r.reason] = out.get(r.reason, 0) + 1
    return out


def names(clips) -> list[tuple]:
    return [(c.dataset, c.rel, c.split) for c in clips]


# What a source may be


def test_a_single_video(open_gop_clip):
    clips, rejects = find_clips([str(open_gop_clip)])
    assert [(c.name, c.rel, c.dataset, c.split, c.window_hint) for c in clips] == [
        ("open", "open.mp4", None, None, None)
    ]
    assert not rejects and clips[0].info.frames == 60


def test_a_folder_of_videos_and_one_of_frame_folders(tmp_path, open_gop_clip):
    root = tmp_path / "Filme, alle übrigen"
    (root / "sub").mkdir(parents=True)
    shutil.copy(open_gop_clip, root / "b.MP4")
    shutil.copy(open_gop_clip, root / "sub" / "a.mp4")
    frames(root / "shots" / "s1")
    frames(root / "shots" / "s2")
    (root / "readme.txt").write_text("x")
    clips, rejects = find_clips([root], fps=240)
    assert [c.rel for c in clips] == ["b.MP4", "shots/s1", "shots/s2", "sub/a.mp4"]
    assert [c.name for c in clips] == ["b", "s1", "s2", "a"]
    assert [c.info.fps for c in clips] == [30, 240, 240, 30]
    assert not rejects


def test_a_folder_of_frames(frame_folder):
    clips, _ = find_clips([frame_folder])
    assert [(c.name, c.rel, c.info.kind, c.info.frames) for c in clips] == [("clip", "clip", "frames", 12)]


def test_hidden_things_and_own_output_are_left_alone(tmp_path, open_gop_clip):
    shutil.copy(open_gop_clip, tmp_path / "a.mp4")
    shutil.copy(open_gop_clip, tmp_path / "._a.mp4")
    frames(tmp_path / ".thumbs")
    frames(tmp_path / "data" / "preview")
    (tmp_path / "data" / "recipe.toml").write_text("")
    (tmp_path / "data" / "train-000000.tar").touch()
    clips, rejects = find_clips([tmp_path])
    assert [c.rel for c in clips] == ["a.mp4"] and not rejects


def test_links_are_followed_and_nothing_is_taken_twice(tmp_path, open_gop_clip):
    shots = frames(tmp_path / "store" / "shot")
    src = tmp_path / "src"
    src.mkdir()
    (src / "linked").symlink_to(shots)
    (src / "film.mp4").symlink_to(open_gop_clip)
    (src / "again.mp4").symlink_to(open_gop_clip)
    (src / "loop").symlink_to(src)
    clips, rejects = find_clips([src])
    assert [(c.name, c.rel) for c in clips] == [("again", "again.mp4"), ("linked", "linked")]
    assert reasons(rejects) == {"same-path": 1}


def test_equal_names_are_told_apart_by_rel(tmp_path):
    for where in ("one", "two", "x/one"):
        frames(tmp_path / where / "000")
    frames(tmp_path / "two" / "001")
    clips, _ = find_clips([tmp_path / "one", tmp_path / "two", tmp_path / "x" / "one"])
    assert sorted(c.name for c in clips) == ["000", "000", "000", "001"]
    rels = [c.rel for c in clips]
    assert len(set(rels)) == 4 and "001" in rels and "two/000" in rels and "x/one/000" in rels
    again, _ = find_clips([tmp_path / "x" / "one", tmp_path / "two", tmp_path / "one"])
    assert again == clips


# Known data sets


def gopro(root: Path) -> Path:
    for split, clip in (("train", "GOPR0372_07_00"), ("train", "GOPR0374_11_00"), ("test", "GOPR0384_11_00")):
        frames(root / "GOPRO_Large_all" / split / clip)
        for kind in ("blur", "blur_gamma", "sharp"):
            frames(root / "GOPRO_Large" / split / clip / kind)
    return root


@pytest.mark.parametrize("where", ["", "GOPRO_Large_all", "GOPRO_Large_all/train"])
def test_gopro_is_known_by_its_layout(tmp_path, where):
    clips, rejects = find_clips([gopro(tmp_path / "gopro") / where])
    got = {c.name: (c.dataset, c.split, c.window_hint, c.info.fps) for c in clips}
    want = {"GOPR0372_07_00": ("gopro", "train", 7, 240.0), "GOPR0374_11_00": ("gopro", "train", 11, 240.0)}
    if "train" not in where:
        want["GOPR0384_11_00"] = ("gopro", "test", 11, 240.0)
    assert got == want
    assert reasons(rejects) == ({} if where else {"not-high-rate": 9})
    assert all("GOPRO_Large_all" in r.detail for r in rejects)


def test_reds_orig_is_known_and_its_24_fps_sets_are_refused(tmp_path):
    for folder in (
        "train_orig",
        "val_orig",
        "train_sharp",
        "train_blur",
        "val_sharp",
        "train_sharp_bicubic/X4",
    ):
        for clip in ("000", "001"):
            frames(tmp_path / "REDS" / folder / clip)
    clips, rejects = find_clips([tmp_path / "REDS"])
    assert names(clips) == [
        ("reds", "train_orig/000", "train"),
        ("reds", "train_orig/001", "train"),
        ("reds", "val_orig/000", "val"),
        ("reds", "val_orig/001", "val"),
    ]
    assert {c.info.fps for c in clips} == {120.0}
    assert reasons(rejects) == {"not-high-rate": 8} and all("REDS_orig" in r.detail for r in rejects)


def test_adobe240_and_x4k1000fps_are_known(tmp_path, open_gop_clip):
    films = tmp_path / "DeepVideoDeblurring" / "original_high_fps_videos"
    films.mkdir(parents=True)
    shutil.copy(open_gop_clip, films / "720p_240fps_1.MOV")
    shutil.copy(open_gop_clip, films / "IMG_0001.m4v")
    frames(tmp_path / "X4K" / "test" / "Type1" / "TEST01_003_f0433")
    (tmp_path / "X4K" / "encoded_train" / "002").mkdir(parents=True)
    shutil.copy(open_gop_clip, tmp_path / "X4K" / "encoded_train" / "002" / "occ008.mp4")
    clips, _ = find_clips([tmp_path])
    assert {(c.dataset, c.name, c.split, c.info.fps) for c in clips} == {
        ("adobe240", "720p_240fps_1", None, 30.0),  # a video file says its own rate
        ("adobe240", "IMG_0001", None, 30.0),
        ("x4k1000fps", "TEST01_003_f0433", "test", 1000.0),
        ("x4k1000fps", "occ008", "train", 30.0),
    }


PAIR_SETS = {
    "a repack with clips": ("GoPro/train/blur/A", "GoPro/train/sharp/A"),
    "input and gt": ("GoPro/test/input/A", "GoPro/test/gt/A"),
    "flat": ("GoPro/train/input", "GoPro/train/target"),
    "blurry and gt": ("x/blurry", "x/GT"),
    "the DeblurGAN set": ("train_GT/000", "train_GT_blurred/000"),
    "BSD": ("1/Blur/RGB", "1/Sharp/RGB"),
    "DVD": ("gt/720p_240fps_1", "blur/720p_240fps_1"),
    "REDS4": ("REDS4/GT/000", "REDS4/blur/000"),
}


@pytest.mark.parametrize("kind", PAIR_SETS)
def test_finished_pairs_are_refused_and_pack_is_named(tmp_path, kind, open_gop_clip):
    sides = PAIR_SETS[kind]
    for p in sides:
        frames(tmp_path / p)
    with pytest.raises(SourceError, match=r"2 pairs.*blursynth pack") as e:
        find_clips([tmp_path], fps=240)
    assert e.value.exit_code == 1
    for p in sides:  # pointed at directly
        with pytest.raises(SourceError, match=r"finished pairs .*blursynth pack") as e:
            find_clips([tmp_path / p], fps=240)
    shutil.copy(open_gop_clip, tmp_path / "film.mp4")
    clips, rejects = find_clips([tmp_path], fps=240)
    assert [c.rel for c in clips] == ["film.mp4"] and reasons(rejects) == {"pairs": 2}


def test_both_sides_in_one_folder_are_pairs_and_the_whole_source_is_named_for_pack(tmp_path):
    for side in ("blur", "sharp"):
        write_frames(tmp_path / "set" / "a", SMALL, f"flower_{side}{{:03d}}.png")
        frames(tmp_path / "set" / "b" / side)
    with pytest.raises(
        SourceError, match=r"3 pairs.*finished pairs \(flower_blur000.png and flower_sharp000.png"
    ) as e:
        find_clips([tmp_path / "set"], fps=240)
    assert f"'blursynth pack {tmp_path / 'set'} --out DATA'" in str(e.value) and e.value.exit_code == 1
    clips, rejects = find_clips([tmp_path / "set"], stills=True)
    assert {c.rel for c in clips} == {f"a/flower_sharp{i:03d}.png" for i in range(4)} | {
        f"b/sharp/{i:06d}.png" for i in range(4)
    }
    assert reasons(rejects) == {"pairs": 2}


def test_films_that_are_not_read_are_named(tmp_path, open_gop_clip):
    for name in ("GX010001.MP4", "b.mp4"):
        shutil.copy(open_gop_clip, tmp_path / name)
    for name in (
        "GL010001.LRV",
        "b.lrf",
        "alone.LRV",
        "a.R3D",
        "a.braw",
        "c.m2t",
        "notes.txt",
        "x.dpx",
        "y.dpx",
    ):
        (tmp_path / name).write_bytes(b"x")
    clips, rejects = find_clips([tmp_path])
    assert [c.rel for c in clips] == ["GX010001.MP4", "b.mp4"]
    assert reasons(rejects) == {"proxy": 3, "unsupported": 4}
    told = {r.what.rpartition("/")[2]: r.detail for r in rejects}
    assert "small copy of GX010001.MP4" in told["GL010001.LRV"] and "small copy of b.mp4" in told["b.lrf"]
    assert "give the recording" in told["alone.LRV"] and ".mkv" in told["c.m2t"]
    assert "ProRes" in told["a.R3D"] and ".mkv" not in told["a.R3D"]  # no tool copies it into one


def test_a_gopro_sharp_folder_is_refused_when_pointed_at(tmp_path):
    gopro(tmp_path)
    with pytest.raises(SourceError, match=r"GOPRO_Large holds every 7th to 13th frame.*use GOPRO_Large_all"):
        find_clips([tmp_path / "GOPRO_Large" / "train" / "GOPR0372_07_00" / "sharp"])


def test_a_folder_named_sharp_with_nothing_beside_it_is_an_ordinary_clip(tmp_path):
    clips, rejects = find_clips([frames(tmp_path / "my film" / "sharp")])
    assert len(clips) == 1 and not rejects


# What cannot be used


def test_bad_files_are_counted_and_the_good_ones_kept(tmp_path, open_gop_clip):
    shutil.copy(open_gop_clip, tmp_path / "good.mp4")
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "empty.mov").touch()
    write_video(tmp_path / "one.mp4", moving(1))
    (tmp_path / "cover.png").write_bytes(b"x")
    frames(tmp_path / "two", 2)
    clips, rejects = find_clips([tmp_path])
    assert [c.rel for c in clips] == ["good.mp4"]
    assert reasons(rejects) == {"unreadable": 1, "empty": 1, "too-short": 2, "stray-pictures": 1}


def test_nothing_usable_names_the_path_and_what_was_found(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.pdf").touch()
    (docs / "b.pdf").touch()
    text = tmp_path / "t.mp4"
    text.write_text("no film")
    for src, what in {
        tmp_path / "none": "no such file or folder",
        empty: "is empty",
        docs: r"found 2 \.pdf",
        text: "not a readable video",
        docs / "a.pdf": "is empty|not a readable",
    }.items():
        with pytest.raises(SourceError, match=what) as e:
            find_clips([src])
        assert str(src) in str(e.value) and "\n" not in str(e.value)
    with pytest.raises(SourceError, match="no source"):
        find_clips([])
    with pytest.raises(SourceError, match="single picture"):
        find_clips([frames(tmp_path / "f") / "000000.png"])


def test_one_missing_source_stops_the_run(open_gop_clip, tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        find_clips([open_gop_clip, tmp_path / "none"])


# Splits


def clip(rel: str, split=None, tmp: Path | None = None) -> Clip:
    path = str(tmp / rel) if tmp else f"/nowhere/{rel}"
    return Clip(Path(rel).stem, None, rel, split, ClipInfo(path, "video", 10 + len(rel), 240.0, 64, 48, "av"))


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("n", [2, 3, 10, 57])
def test_both_splits_get_a_clip_and_about_the_fraction(n, fraction):
    clips = [clip(f"{i}") for i in range(n)]
    splits = assign_splits(clips, fraction, seed=3)
    assert set(splits) == {c.rel for c in clips}
    val = sum(s == "val" for s in splits.values())
    assert 1 <= val <= n - 1 and abs(val - fraction * n) <= 1


def test_splits_depend_on_seed_and_names_alone():
    clips = [clip(f"clip{i}") for i in range(20)]
    want = assign_splits(clips, 0.3, seed=1)
    for k in range(5):
        mixed = clips[:]
        random.Random(k).shuffle(mixed)
        assert assign_splits(mixed, 0.3, seed=1) == want
    assert any(assign_splits(clips, 0.3, seed=s) != want for s in range(2, 6))


def test_one_clip_trains_and_no_fraction_means_no_val():
    assert assign_splits([clip("a")], 0.5, 0) == {"a": "train"}
    assert set(assign_splits([clip(f"{i}") for i in range(9)], 0.0, 0).values()) == {"train"}
    assert assign_splits([], 0.1, 0) == {}


def test_official_splits_hold_and_test_serves_as_val():
    clips = [
        clip("a", "train"),
        clip("b", "test"),
        clip("c", "val"),
        clip("d", "train"),
        clip("x"),
        clip("y"),
    ]
    s = assign_splits(clips, 0.5, 0)
    assert (s["a"], s["b"], s["c"], s["d"]) == ("train", "val", "val", "train")
    assert {s["x"], s["y"]} == {"train", "val"}


def test_official_train_clips_alone_still_give_a_val_clip():
    s = assign_splits([clip(f"{i}", "train") for i in range(10)], 0.1, 0)
    assert sorted(s.values()).count("val") == 1


def test_copies_of_one_film_stay_in_one_split(tmp_path):
    for i in range(8):
        (tmp_path / f"{i}.mp4").write_bytes(bytes([i]) * 3_000_000)
    original = (tmp_path / "0.mp4").read_bytes()
    (tmp_path / "c.mp4").write_bytes(original)
    other = bytearray(original)
    other[1_500_000] ^= 1  # equal ends, another middle: no copy
    (tmp_path / "m.mp4").write_bytes(other)
    clips = [clip(p.name, None, tmp_path) for p in sorted(tmp_path.glob("*.mp4"))]
    apart = 0
    for seed in range(40):
        s = assign_splits(clips, 0.4, seed)
        assert s["0.mp4"] == s["c.mp4"], seed
        apart += s["0.mp4"] != s["m.mp4"]
    assert apart > 5
    held = [c if c.rel != "c.mp4" else clip("c.mp4", "test", tmp_path) for c in clips]
    assert assign_splits(held, 0.1, 0)["0.mp4"] == "val"


# Content hash


def test_sha256_of_a_file_is_that_of_its_bytes(open_gop_clip):
    info = find_clips([open_gop_clip])[0][0].info
    assert clip_sha256(info) == hashlib.sha256(open_gop_clip.read_bytes()).hexdigest()


def test_sha256_of_a_folder_covers_names_and_bytes(tmp_path):
    one, two = frames(tmp_path / "one"), frames(tmp_path / "two")

    def sha(folder):
        return clip_sha256(find_clips([folder])[0][0].info)

    want = "".join(
        f"{f.name}\0{hashlib.sha256(f.read_bytes()).hexdigest()}\n" for f in sorted(one.glob("*.png"))
    )
    assert sha(one) == sha(two) == hashlib.sha256(want.encode()).hexdigest()
    first = sha(two)
    (two / "000003.png").rename(two / "000009.png")
    assert sha(two) != first
    (two / "000009.png").rename(two / "000003.png")
    shutil.copy(two / "000001.png", two / "000002.png")
    assert sha(two) != first


def test_frames_beside_a_recipe_are_film(tmp_path):
    """A folder is passed over only where a run's shards or index lie beside the recipe."""
    write_frames(tmp_path / "film", moving(4), "clip-{:06d}.png")
    (tmp_path / "film" / "recipe.toml").write_text("")
    clips, _ = find_clips([tmp_path])
    assert [c.rel for c in clips] == ["film"]
    (tmp_path / "film" / "train-000000.json").write_text("{}")
    with pytest.raises(SourceError):
        find_clips([tmp_path])


def test_films_beside_shards_are_named(tmp_path, open_gop_clip):
    """They are not taken, as shards may be of them; silence would be a loss."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(open_gop_clip, tmp_path / name / "a.mp4")
    (tmp_path / "one" / "recipe.toml").write_text("")
    (tmp_path / "one" / "train-000000.tar").touch()
    clips, rejects = find_clips([tmp_path])
    assert [c.rel for c in clips] == ["two/a.mp4"] and reasons(rejects) == {"output": 1}
    with pytest.raises(SourceError, match="holds shards that blursynth made"):
        find_clips([tmp_path / "one"])
    (tmp_path / "one" / "day").mkdir()
    (tmp_path / "one" / "a.mp4").rename(tmp_path / "one" / "day" / "a.mp4")
    assert reasons(find_clips([tmp_path])[1]) == {"output": 1}


def test_a_small_copy_that_a_pattern_names_beside_its_recording_is_not_used_too(tmp_path, open_gop_clip):
    """The same film twice, in two sizes, could be split into train and val."""
    for name in ("GX010001.MP4", "GL010001.LRV"):
        shutil.copy(open_gop_clip, tmp_path / name)
    for given in (["*"], ["**"], ["GX*", "GL*"], ["GL010001.LRV", "GX010001.MP4"]):
        clips, rejects = find_clips([tmp_path / g for g in given])
        assert [c.name for c in clips] == ["GX010001"] and reasons(rejects)["proxy"] == 1
    assert [c.name for c in find_clips([tmp_path / "GL010001.LRV"])[0]] == [
        "GL010001"
    ]  # by itself it is meant
