import itertools
import tomllib

import pytest
from click.testing import CliRunner

from deblur_train.cli.main import main
from deblur_train.config import (
    ConfigError,
    ModelConfig,
    ScheduleConfig,
    TrainConfig,
    builtin_configs,
    describe_keys,
    dump_config,
    find_config,
    load_config,
)
from deblur_train.training.schedule import backbone_frozen, learning_rate, norms_tracked


def test_builtin_configs_load_by_either_name_and_round_trip(tmp_path):
    assert {"paper", "article", "modern", "nafnet", "demo"} <= set(builtin_configs())
    for name in builtin_configs():
        config = load_config(name)
        assert config.name == name and find_config(f"train-{name}") == find_config(name)
        path = tmp_path / "c.toml"
        path.write_text(dump_config(config))
        assert load_config(str(path)) == config


def test_the_command_line_wins_and_none_does_not():
    config = load_config("demo", {"steps": 7, "batch_size": None})
    assert (config.steps, config.batch_size) == (7, load_config("demo").batch_size)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("stepz = 3", ["stepz", "did you mean 'steps'"]),
        ("[loss]\npixl = 'mse'", ["loss.pixl", "did you mean 'pixel'"]),
        ("steps = 0", ["steps", "greater than or equal to 1", "got 0"]),
        ("[optim]\nkind = 'sgd'", ["optim.kind", "sgd"]),
        ("crop = 100", ["multiple of 32"]),
        ("backbone = 'inception'\ncrop = 96", ["inception", "128"]),
        ("backbone = 'nafnet'\n[model]\nenc = [1, 1]", ["model", "as many levels"]),
        ("[model]\nwidth = 64", ["for backbone nafnet only"]),
        ("steps = [", ["not a readable TOML"]),
        ("[schedule]\nlr = inf", ["schedule.lr", "finite"]),
        ("[loss]\nfft_weight = inf", ["loss.fft_weight", "finite"]),
        (f"crop = {32 * 10**9}", ["crop", "less than or equal to 16384"]),
        ("[optim]\nbetas = [0.9, 1.0]", ["optim.betas.1", "less than 1"]),
        ("[optim]\nbetas = [nan, 0.9]", ["optim.betas.0", "finite"]),
        (f"seed = {2**63 - 1}0", ["seed", "less than 9223372036854775808"]),
        ("[loss]\npixel_weight = 0\nadversarial_weight = 0", ["loss", "nothing is left to learn from"]),
        (
            "[discriminator]\nkind = 'off'\n[loss]\npixel_weight = 0",
            ["nothing is left to learn from", "discriminator.kind"],
        ),
    ],
)
def test_mistakes_name_the_key_and_the_file(tmp_path, toml, words):
    path = tmp_path / "mine.toml"
    path.write_text(toml)
    with pytest.raises(ConfigError) as e:
        load_config(str(path))
    for word in [*words, "mine.toml"]:
        assert word in str(e.value)
    assert "\n" not in str(e.value) or "TOML" in str(e.value)


def test_a_config_stands_on_another_and_the_command_line_on_both(tmp_path):
    """defaults < base < file < --set < options; tables are merged key by key."""
    (tmp_path / "mine.toml").write_text('base = "modern"\nsteps = 70\n[loss]\nfft_weight = 0.2\n')
    (tmp_path / "other.toml").write_text('base = "mine.toml"\nsteps = 90\n')
    modern = load_config("modern")
    mine = load_config(str(tmp_path / "mine.toml"))
    assert (mine.name, mine.steps, mine.loss.fft_weight) == ("mine", 70, 0.2)
    assert mine.loss.pixel == modern.loss.pixel and mine.optim == modern.optim
    other = load_config(
        str(tmp_path / "other.toml"), {"crop": 64}, ["schedule.lr=2e-3", "loss.pixel=l1", "crop=96"]
    )
    assert (other.name, other.steps, other.crop, other.schedule.lr) == ("other", 90, 64, 2e-3)
    assert other.loss == mine.loss.model_copy(update={"pixel": "l1"})
    assert load_config("modern", {"run": {"val_every": 7}}).run == modern.run.model_copy(
        update={"val_every": 7}
    )


@pytest.mark.parametrize(
    ("base", "words"),
    [("a.toml", "leads back to it"), ("nope", "no config named 'nope'"), (3, "base must be the name")],
)
def test_a_base_that_cannot_be_is_refused(tmp_path, base, words):
    path = tmp_path / "a.toml"
    path.write_text(f"base = {base!r}\n")
    with pytest.raises(ConfigError, match=words):
        load_config(str(path))


@pytest.mark.parametrize(
    ("overrides", "settings", "words"),
    [
        ({"crop": 90}, (), "--crop: must be a multiple of 32"),
        ({"schedule": {"lr": -1}}, (), "--lr: .*greater than 0, got -1"),
        ({"run": {"val_every": 0}}, (), "--val-every: .*got 0"),
        ({"batch_size": 0}, (), "--batch-size: .*got 0"),
        ({"shards": ["a", "b"], "mix": [1]}, (), "--mix: holds 1 weights for 2"),
        ({"shards": ["a", "b"], "mix": [1, -1]}, (), "--mix: weights must be above 0"),
        ({"shards": ["a", "b"], "mix": [float("nan"), 1]}, (), "--mix: .*finite"),
        ({"shards": ["a", "b"], "mix": [1, float("inf")]}, (), "--mix: .*finite"),
        (
            {},
            ("schedule.deca=3",),
            "--set schedule.deca=3: unknown key 'schedule.deca' .did you mean 'decay'",
        ),
        ({}, ("lr",), "--set lr: must be KEY=VALUE"),
        ({}, ("steps=many",), "--set steps=many: .*got 'many'"),
    ],
)
def test_a_message_blames_what_the_user_wrote(overrides, settings, words):
    with pytest.raises(ConfigError, match=words):
        load_config("demo", overrides, settings)


def test_unknown_names_list_what_there_is():
    with pytest.raises(ConfigError, match="built in: article, demo"):
        load_config("nope")
    with pytest.raises(ConfigError, match="no such config file"):
        load_config("nope.toml")


def rates(c: ScheduleConfig, steps: int = 100) -> list[float]:
    return [learning_rate(c, s, steps) for s in range(steps)]


def test_paper_schedule_is_flat_then_linear_to_the_end():
    r = rates(ScheduleConfig(kind="paper", lr=1e-4, lr_end=1e-7, flat_share=0.5))
    assert r[:50] == [1e-4] * 50
    assert r[-1] == pytest.approx(1e-7)  # the official code ends at 2.7e-5
    steps = [a - b for a, b in itertools.pairwise(r[50:])]
    assert steps == pytest.approx([steps[0]] * len(steps))


def test_article_schedule_has_three_phases():
    c = ScheduleConfig(
        kind="article",
        lr=1e-4,
        warmup_lr=1e-5,
        warmup_share=0.1,
        decay=0.99,
        epoch_steps=10,
        finetune_share=0.2,
        finetune_lr=1e-6,
    )
    r = rates(c)
    assert r[:10] == [1e-5] * 10 and r[80:] == [1e-6] * 20
    assert (
        r[10:20] == [1e-4] * 10 and r[20] == pytest.approx(0.99e-4) and r[79] == pytest.approx(1e-4 * 0.99**6)
    )
    assert [backbone_frozen(c, s, 100) for s in (0, 9, 10, 99)] == [True, True, False, False]


def test_modern_schedule_warms_up_and_ends_at_the_least_rate():
    c = ScheduleConfig(kind="modern", lr=1e-3, lr_end=1e-6, warmup_share=0.1, frozen_share=0.05)
    r = rates(c)
    assert r[0] == pytest.approx(1e-4) and r[9] == pytest.approx(1e-3) and r[-1] == pytest.approx(1e-6)
    assert r[10:] == sorted(r[10:], reverse=True)
    assert r[54] == pytest.approx((1e-3 + 1e-6) / 2, rel=0.02)
    assert [backbone_frozen(c, s, 100) for s in (0, 4, 5)] == [True, True, False]


def test_norms_are_tracked_in_the_last_steps():
    c = ScheduleConfig(norm_tracked_share=0.3)
    assert [norms_tracked(c, s, 10) for s in range(10)] == [False] * 7 + [True] * 3
    assert not any(norms_tracked(ScheduleConfig(), s, 10) for s in range(10))
    assert all(norms_tracked(ScheduleConfig(norm_tracked_share=1), s, 10) for s in range(10))


@pytest.mark.parametrize("kind", ["paper", "article", "modern"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_schedules_stand_very_short_runs(kind, steps):
    assert all(r > 0 for r in rates(ScheduleConfig(kind=kind), steps))


def test_dump_is_plain_toml():
    d = tomllib.loads(dump_config(TrainConfig(shards="x")))
    assert tomllib.loads(dump_config(TrainConfig(shards=("x", "y"), mix=(3, 1))))["shards"] == ["x", "y"]
    assert d["shards"] == "x" and "init" not in d and d["loss"]["pixel"] == "mse"


def test_another_backbone_leaves_the_shape_of_the_configs_nafnet_behind(tmp_path):
    (tmp_path / "a.toml").write_text('backbone = "nafnet"\n[model]\nwidth = 16\nnear_identity = true\n')
    name = str(tmp_path / "a.toml")
    assert load_config(name).model.width == 16
    other = load_config(name, {"backbone": "mobilenet"})
    assert (other.model.width, other.model.near_identity) == (ModelConfig().width, True)
    with pytest.raises(ConfigError, match="for backbone nafnet only"):
        load_config(name, {"backbone": "mobilenet"}, ["model.width=8"])


def test_every_key_says_what_it_does_and_its_default():
    keys = {key: (default, about) for key, default, about in describe_keys()}
    dumped = tomllib.loads(dump_config(TrainConfig(shards=("a",), out="b", workers=1)))
    flat = {f"{k}.{i}" if i else k for k, v in dumped.items() for i in (v if isinstance(v, dict) else [""])}
    assert flat <= set(keys)
    assert [k for k, (_, about) in keys.items() if len(about) < 8 or about == "None"] == []
    assert keys["model.enc"][0] == "[1, 1, 2]" and keys["schedule.lr"][0] == "0.0001"
    assert keys["run.threads"][0] == "torch chooses"


def test_paths_are_taken_from_python(tmp_path):
    config = load_config("demo", {"shards": [tmp_path / "a", "b"], "out": tmp_path, "init": tmp_path / "c"})
    assert config.shards == (str(tmp_path / "a"), "b") and config.run_folder == tmp_path
    assert load_config("demo", {"shards": tmp_path}).shards == (str(tmp_path),)
    assert config.init == str(tmp_path / "c")


@pytest.mark.parametrize("held", [b"x = [", b"name = '\xff'", b"\x89PNG\0", b"stepz = 1"])
def test_configs_shows_configs_only(tmp_path, held):
    (tmp_path / "c.toml").write_bytes(held)
    done = CliRunner().invoke(main, ["configs", str(tmp_path / "c.toml")])
    assert done.exit_code == 2 and "c.toml: " in done.output and isinstance(done.exception, SystemExit)
