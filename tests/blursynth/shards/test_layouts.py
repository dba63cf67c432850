"""Finished pairs as the field keeps them: found, matched and divided by scene, and known from either side."""

from __future__ import annotations

import pytest

from blursynth.shards.layouts import LayoutError, find_pairs, match_folders
from blursynth.shards.sides import role_of, twin_of
from tests.helpers.pair_trees import put


def files(root, *paths):
    for p in paths:
        (root / p).parent.mkdir(parents=True, exist_ok=True)
        (root / p).write_bytes(p.encode())
    return root


def told(root, **options):
    """{(scene, name, split): (blur, sharp)}, paths relative to the root."""
    found = find_pairs(root, **options)
    assert len({(p.scene, p.name) for p in found.pairs}) == len(found.pairs)
    rel = lambda p: p.relative_to(root).as_posix()  # noqa: E731
    return {(p.scene, p.name, p.split): (rel(p.blur), rel(p.sharp)) for p in found.pairs}


def grid(pattern, scenes, names):
    return [pattern.format(s, n) for s in scenes for n in names]


def test_gopro_takes_blur_and_gamma_only_when_asked(tmp_path):
    scenes, names = ("train/GOPR1_11_00", "test/GOPR2_11_00"), ("000047", "000058")
    for kind in ("blur", "blur_gamma", "sharp"):
        files(tmp_path, *grid("{}/" + kind + "/{}.png", scenes, names))
    got = told(tmp_path)
    assert got == {
        (s, n, "train" if "train" in s else "val"): (f"{s}/blur/{n}.png", f"{s}/sharp/{n}.png")
        for s in scenes
        for n in names
    }
    assert set(told(tmp_path, gamma=True).values()) == {
        (f"{s}/blur_gamma/{n}.png", f"{s}/sharp/{n}.png") for s in scenes for n in names
    }
    assert {s for _, _, s in told(tmp_path / "train")} == {None}, "one official folder alone decides nothing"


def test_gopro_with_gamma_alone(tmp_path):
    files(tmp_path, *grid("{}/{}.png", ("A/blur_gamma", "A/sharp", "B/blur_gamma", "B/sharp"), ("1",)))
    assert len(told(tmp_path, gamma=True)) == 2
    with pytest.raises(LayoutError, match="--gamma takes it"):
        find_pairs(tmp_path)


def test_nafnet_and_basicsr_flat_folders_take_the_scene_from_the_name(tmp_path):
    names = ("GOPR1_07_00-000047", "GOPR1_07_00-000054", "GOPR2_11_00-000001")
    for sides in (("input", "target"), ("lq", "gt")):
        root = files(tmp_path / sides[0], *grid("{}/{}.png", sides, names))
        assert {s for s, _, _ in told(root)} == {"GOPR1_07_00", "GOPR2_11_00"}
        root = files(tmp_path / f"n{sides[0]}", *grid("{}/{}.png", sides, ("0001", "0002")))
        assert {s for s, _, _ in told(root)} == {"0001", "0002"}, (
            "one scene would be left: each picture its own"
        )
    both = files(
        tmp_path / "b",
        *grid("{}/{}.png", ("train/input", "train/target", "test/input", "test/target"), names),
    )
    assert {(s, split) for s, _, split in told(both)} >= {
        ("train/GOPR1_07_00", "train"),
        ("test/GOPR2_11_00", "val"),
    }


def test_realblur_names_match_by_number(tmp_path):
    for s in ("scene001", "scene002"):
        files(tmp_path, *(f"{s}/{k}/{k}_{n}.png" for k in ("blur", "gt") for n in (1, 2, 10)))
    got = told(tmp_path)
    assert [n for s, n, _ in got if s == "scene001"] == ["blur_1", "blur_2", "blur_10"]
    assert got["scene002", "blur_10", None] == ("scene002/blur/blur_10.png", "scene002/gt/gt_10.png")


def test_reds_takes_its_plain_pair_and_names_the_other_versions(tmp_path):
    for kind in ("train_blur", "train_sharp", "train_blur_comp", "val_blur", "val_sharp"):
        files(tmp_path, *grid(kind + "/{}/{}.png", ("000", "001"), ("00000000", "00000001")))
    files(tmp_path, *grid("train_blur_bicubic/X4/{}/{}.png", ("000",), ("00000000",)))
    got = told(tmp_path)
    assert {s for s, _, _ in got} == {"train/000", "train/001", "val/000", "val/001"}
    assert {split for _, _, split in got} == {"train", "val"}
    assert set(got.values()) == {
        (f"{k}_blur/{s}/{n}.png", f"{k}_sharp/{s}/{n}.png")
        for k in ("train", "val")
        for s in ("000", "001")
        for n in ("00000000", "00000001")
    }
    out = find_pairs(tmp_path).left_out
    assert any("train_blur_comp" in what for what, _ in out) and any("bicubic" in what for what, _ in out)


def test_bsd_and_the_outer_folders_of_dvd_and_reds4(tmp_path):
    bsd = files(
        tmp_path / "bsd",
        *grid("{}/{}.png", ("7/Blur/RGB", "7/Sharp/RGB", "9/Blur/RGB", "9/Sharp/RGB"), ("0", "1")),
    )
    assert {s for s, _, _ in told(bsd)} == {"7", "9"}
    dvd = files(
        tmp_path / "dvd",
        *grid("{}/{}.jpg", ("gt/720p_1", "blur/720p_1", "gt/IMG_3", "blur/IMG_3"), ("00000", "00001")),
    )
    assert {s for s, _, _ in told(dvd)} == {"720p_1", "IMG_3"}
    reds4 = files(
        tmp_path / "r4",
        *grid("REDS4/{}/{}.png", ("GT/000", "blur/000", "GT/011", "blur/011"), ("00000000", "00000001")),
    )
    assert {s for s, _, _ in told(reds4)} == {"REDS4/000", "REDS4/011"}
    gt = files(
        tmp_path / "gt",
        *grid(
            "{}/{}.png",
            ("train_GT/000", "train_GT_blurred/000", "train_GT/001", "train_GT_blurred/001"),
            ("1", "2"),
        ),
    )
    assert got_sides(gt) == {("train_GT_blurred", "train_GT")}


def got_sides(root):
    return {(b.split("/")[0], s.split("/")[0]) for b, s in told(root).values()}


def rsblur(root):
    for scene in ("0001", "0002"):
        for n in ("000001", "000002"):
            d = f"RSBlur/{scene}/{n}"
            files(root, f"{d}/real_blur/real_blur.png", f"{d}/gt/gt_sharp.png", f"{d}/avg65_img/avg_blur.png")
    return root


def test_rsblur_by_its_folders_and_by_its_lists(tmp_path):
    want = {
        (f"RSBlur/{s}/{n}/real_blur/real_blur.png", f"RSBlur/{s}/{n}/gt/gt_sharp.png")
        for s in ("0001", "0002")
        for n in ("000001", "000002")
    }
    root = rsblur(tmp_path)
    got = told(root)
    assert set(got.values()) == want and {s.split("/")[-1] for s, _, _ in got} == {"0001", "0002"}
    line = "RSBlur/{0}/{1}/gt/gt_sharp.png RSBlur/{0}/{1}/real_blur/real_blur.png\n"
    lists = root / "datalist"
    lists.mkdir()
    (lists / "RSBlur_real_train.txt").write_text(
        "".join(line.format("0001", n) for n in ("000001", "000002", "000009"))
    )
    (lists / "RSBlur_real_test.txt").write_text(line.format("0002", "000001"))
    (lists / "RSBlur_syn_train.txt").write_text(
        "RSBlur/0002/000002/gt/gt_sharp.png RSBlur/0002/000002/avg65_img/avg_blur.png\n"
    )
    found = find_pairs(root)
    assert [(p.scene.split("/")[-1], p.split) for p in found.pairs] == [("0001", "train")] * 2 + [
        ("0002", "val")
    ]
    assert [w for w, why in found.left_out if "not there" in why and "000009" in w]
    assert len(find_pairs(lists / "RSBlur_real_test.txt").pairs) == 1


def test_what_has_no_partner_is_named(tmp_path):
    files(
        tmp_path,
        "a/blur/1.png",
        "a/blur/2.png",
        "a/sharp/1.png",
        "a/sharp/3.png",
        "b/blur/9.png",
        "b/sharp/8.png",
        "c/blur/1.png",
    )
    found = find_pairs(tmp_path)
    assert [(p.scene, p.name) for p in found.pairs] == [("1", "1")]
    left = {w[len(str(tmp_path)) + 1 :]: why for w, why in found.left_out}
    assert left.keys() == {"a/blur/2.png", "a/sharp/3.png", "b/blur/9.png", "b/sharp/8.png", "c/blur"}


def test_two_given_folders(tmp_path):
    files(
        tmp_path,
        "x/s/img_blur1.png",
        "x/s/img_blur2.jpg",
        "y/s/img_sharp1.png",
        "y/s/img_sharp2.png",
        "y/t/1.png",
    )
    found = match_folders(tmp_path / "x", tmp_path / "y")
    assert [(p.blur.name, p.sharp.name) for p in found.pairs] == [
        ("img_blur1.png", "img_sharp1.png"),
        ("img_blur2.jpg", "img_sharp2.png"),
    ]
    assert len(found.left_out) == 1
    (tmp_path / "z").symlink_to(tmp_path / "x")
    with pytest.raises(LayoutError, match="both the blurred and the sharp"):
        match_folders(tmp_path / "x", tmp_path / "z")


def test_both_sides_in_one_folder(tmp_path):
    files(tmp_path, "a/f_blur1.png", "a/f_sharp1.png", "a/f_blur2.png", "a/f_sharp2.png", "a/f_blur9.png")
    found = find_pairs(tmp_path)
    assert [(p.blur.name, p.sharp.name) for p in found.pairs] == [
        (f"f_blur{i}.png", f"f_sharp{i}.png") for i in (1, 2)
    ]
    assert [w.rpartition("/")[2] for w, _ in found.left_out] == ["f_blur9.png"]


def test_a_number_alone_pairs_only_where_names_mean_nothing(tmp_path):
    files(tmp_path, "s/blur/IMG_1.png", "s/blur/IMG_2.png", "s/gt/DSC_1.png", "s/gt/DSC_2.png")
    files(tmp_path, "t/blur/a_1.png", "t/blur/b_2.png", "t/gt/a_1.png", "t/gt/c_2.png")
    found = find_pairs(tmp_path)
    assert [(p.blur.name, p.sharp.name) for p in found.pairs] == [
        ("IMG_1.png", "DSC_1.png"),
        ("IMG_2.png", "DSC_2.png"),
        ("a_1.png", "a_1.png"),
    ]
    assert {w.rpartition("/")[2] for w, _ in found.left_out} == {"b_2.png", "c_2.png"}


def test_nothing_says_what_is_known(tmp_path):
    files(tmp_path, "holiday/1.png")
    with pytest.raises(LayoutError, match="give --blur DIR --sharp DIR"):
        find_pairs(tmp_path)
    with pytest.raises(LayoutError, match="no such folder"):
        find_pairs(tmp_path / "none")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("GoPro/train/blur/CLIP", "GoPro/train/sharp/CLIP"),
        ("GoPro/test/input/CLIP", "GoPro/test/gt/CLIP"),
        ("train_GT/000", "train_GT_blurred/000"),
        ("BSD/7/Blur/RGB", "BSD/7/Sharp/RGB"),
        ("DVD/gt/IMG_3", "DVD/blur/IMG_3"),
        ("REDS4/GT/000", "REDS4/blur/000"),
        ("X/blur_gamma", "X/sharp"),
        ("X/Input", "X/TARGET"),
    ],
)
def test_a_twin_is_seen_from_either_side_at_any_level(tmp_path, one, other):
    files(tmp_path, f"{one}/1.png", f"{other}/1.png")
    assert twin_of(tmp_path / one) == tmp_path / other and twin_of(tmp_path / other) == tmp_path / one


@pytest.mark.parametrize(
    "lonely", ["my film/sharp", "input/film", "blur/a", "films/blurry night", "targets/sharp turn"]
)
def test_a_word_without_a_twin_means_nothing(tmp_path, lonely):
    files(tmp_path, f"{lonely}/1.png", "target/other/1.png", "films/day/1.png")
    assert twin_of(tmp_path / lonely) is None


def test_words_are_whole(tmp_path):
    assert role_of("input") == ("blur", frozenset()) and role_of("train_GT_blurred") == (
        "blur",
        frozenset({"train"}),
    )
    assert role_of("inputs2") is None and role_of("sharpness") is None and role_of("motion") is None


def test_what_is_left_out_has_one_order(tmp_path):
    """It goes into dataset.json: the same call again writes the same bytes."""
    put(tmp_path / "b" / "0.png"), put(tmp_path / "s" / "0.png")
    for name in "gcahbedf":
        put(tmp_path / "s" / name / "1.png")
    told = [what for what, _ in match_folders(tmp_path / "b", tmp_path / "s").left_out]
    assert len(told) == 8 and told == sorted(told)
