"""The typed recipe: layers, one-line refusals, the hash, windows that a clip's name decides."""

import tomllib
from pathlib import Path

import pytest

from blursynth.recipe import (
    DEFAULT,
    Recipe,
    RecipeError,
    builtin_recipes,
    dump_recipe,
    find_recipe,
    load_recipe,
)
from blursynth.run.plan import make_plan
from blursynth.sources.find import Clip
from blursynth.video.clip import ClipInfo


def test_layers(tmp_path):
    (tmp_path / "mine.toml").write_text('window = 7\nnoise = "rsblur"\nout = "there"\n')
    recipe, run = load_recipe(str(tmp_path / "mine.toml"), {"noise": "off", "workers": 2, "seed": None})
    assert (recipe.name, recipe.window, recipe.noise, recipe.crf) == ("mine", "7", "off", "auto")
    assert (run.out, run.workers) == ("there", 2)


def test_no_name_is_the_built_in_default():
    assert load_recipe()[0] == load_recipe(DEFAULT)[0]
    assert load_recipe()[0].noise == "restore+realblur"
    assert Recipe().noise == "off"


def test_numbers_may_stand_for_ranges():
    recipe, _ = load_recipe("demo", {"window": 9, "duty": 0.5, "highlights": 3, "jpeg": 90})
    assert (recipe.window, recipe.duty, recipe.highlights, recipe.jpeg) == ("9", "0.5", "3", "90")


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("window", "2", "3 <= N"),
        ("window", "9-5", "3 <= N"),
        ("window", "hint:7-9", "hint"),
        ("window", "many", "N-M"),
        ("duty", "1.5", "duty"),
        ("highlights", "bright", "off, rsblur, auto"),
        ("noise", "loud", "off, rsblur, realblur"),
        ("jpeg", "200", "1 to 100"),
        ("target_camera", "both", "clean"),
        ("fps_up", 0, "must be greater"),
        ("shake_about", "centre", "add shake"),
        ("windw", 9, "window"),
    ],
)
def test_a_refusal_is_one_line_that_names_the_key(key, value, word):
    with pytest.raises(RecipeError) as e:
        load_recipe("demo", {key: value})
    assert f"--{key.replace('_', '-')}" in str(e.value) or key in str(e.value)
    assert word in str(e.value)
    assert "\n" not in str(e.value)


def test_a_refusal_says_where(tmp_path):
    (tmp_path / "r.toml").write_text("colour = 1\n")
    with pytest.raises(RecipeError, match=r"r\.toml"):
        load_recipe(str(tmp_path / "r.toml"))
    with pytest.raises(RecipeError, match="command line"):
        load_recipe(None, {"colour": 1})
    (tmp_path / "r.toml").write_text("window = 5\nduty = 2\n")
    with pytest.raises(
        RecipeError, match=r"r\.toml: duty: must be"
    ) as e:  # the file's key, and the caller's option
        load_recipe(str(tmp_path / "r.toml"), {"window": "2"})
    assert "--window: must be" in str(e.value) and "r.toml: window" not in str(e.value)
    (tmp_path / "r.toml").write_text("window = \n")
    with pytest.raises(RecipeError, match="TOML"):
        load_recipe(str(tmp_path / "r.toml"))
    with pytest.raises(RecipeError, match="gopro"):
        find_recipe("gorpo")


def test_plain_means_have_no_shutter():
    with pytest.raises(RecipeError, match="interpolated"):
        load_recipe("gopro", {"readout_ms": 5.0})


def test_the_hash_is_of_what_decides_bytes():
    base = Recipe()
    assert Recipe(name="x", cite="y").sha256 == base.sha256
    for change in (
        {"seed": 1},
        {"noise": "rsblur"},
        {"jpeg": "90"},
        {"crf_out": "gamma2.2"},
        {"window": "hint"},
    ):
        assert Recipe(**change).sha256 != base.sha256


def test_a_dump_loads_as_itself(tmp_path):
    for name in builtin_recipes():
        recipe, _ = load_recipe(name)
        (tmp_path / "r.toml").write_text(dump_recipe(recipe))
        assert load_recipe(str(tmp_path / "r.toml"))[0] == recipe


def clip(name: str, hint: int | None, frames: int = 60) -> Clip:
    info = ClipInfo(f"/src/{name}", "frames", frames, 240.0, 64, 48, "image")
    return Clip(name, None, name, None, info, hint)


def windows(recipe: Recipe, clips: list[Clip]) -> dict[str, list[tuple[int, int]]]:
    plan = make_plan(clips, {c.rel: "train" for c in clips}, recipe)
    found: dict[str, list[tuple[int, int]]] = {}
    for task in plan.tasks("out"):
        for run in task.runs:
            spans = [(w.first, w.last) for w in run.windows]
            found.setdefault(run.source.clip.name, []).extend(spans)
    return {k: sorted(v) for k, v in found.items()}


def test_hint_takes_the_window_of_the_clips_name_and_a_stated_fallback():
    clips = [clip("GOPR0372_07_00", 7, 30), clip("GOPR0871_11_00", 11, 30), clip("holiday", None, 30)]
    got = windows(Recipe(window="hint"), clips)
    assert got["GOPR0372_07_00"] == [(0, 6), (7, 13), (14, 20), (21, 27)]  # stride = N
    assert got["GOPR0871_11_00"] == [(0, 10), (11, 21)]
    assert got["holiday"] == [(0, 10), (11, 21)]
    assert windows(Recipe(window="hint:13"), clips)["holiday"] == [(0, 12), (13, 25)]
    assert windows(Recipe(window="9"), clips)["GOPR0372_07_00"] == [(0, 8), (9, 17), (18, 26)]


def test_every_key_of_the_shipped_recipes_is_known_and_cited():
    for path in builtin_recipes().values():
        table = tomllib.loads(Path(path).read_text())
        assert table["name"] == path.stem
        assert len(table["cite"]) > 20
        assert table.keys() <= Recipe.model_fields.keys()
