"""fit as a whole: what it writes, that it resumes to the bit, and that it fails in one clear line."""

import errno
import io
import itertools
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from rich.console import Console
from safetensors.torch import load_file

from deblur_train import load_generator
from deblur_train.cli.main import main
from deblur_train.config import ConfigError, TrainConfig, dump_config
from deblur_train.data.index import DataError, index_split
from deblur_train.evaluation.pair_sources import pairs_from_shards
from deblur_train.models.checkpoint import CheckpointError, read_state
from deblur_train.models.pretrained import VGGFeatures
from deblur_train.training.fit import fit
from deblur_train.training.pace import Pace
from deblur_train.training.run_folder import FILES, Log, TrainError, alone, load_initial
from deblur_train.training.step import Learner
from deblur_train.training.validate import read_validation_frames
from deblur_train.training.words import first_and_last, forecast, shared_sources, small_frames, what_next
from tests.helpers.golden import image
from tests.helpers.train_shards import encode, make_data, meta, sample, scene, write_tar

TINY = {
    "name": "tiny",
    "backbone": "mobilenet-dsc",
    "steps": 6,
    "batch_size": 2,
    "crop": 32,
    "workers": 0,
    "device": "cpu",
    "model": {"near_identity": True},
    "discriminator": {"kind": "patch", "width": 8},
    "data": {"val_frames": 1, "lanes": 2, "crops_per_frame": 2, "frames_in_flight": 2, "augment": "article"},
    "optim": {"kind": "adamw", "clip_norm": 1.0, "ema": 0.9},
    "schedule": {"kind": "modern", "lr": 1e-3},
    "run": {"log_every": 2, "val_every": 4, "save_every": 2},
}


def tiny(folder: Path, shards: Path, **changes) -> TrainConfig:
    merged = {k: v | changes.pop(k, {}) if isinstance(v, dict) else v for k, v in TINY.items()}
    return TrainConfig.model_validate(merged | {"shards": str(shards), "out": str(folder)} | changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("shards"))


def quiet() -> Console:
    return Console(quiet=True)


def same_bits(a: Path, b: Path) -> bool:
    x, y = load_file(a), load_file(b)
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """An uninterrupted run."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("straight")
    fit(tiny(out, data), console=quiet())
    return out


def test_nafnet_without_a_gan_learns_resumes_and_starts_from_its_file(data, tmp_path):
    """Its shape comes from the config and is told from the file; there is no discriminator to pay for."""
    small = {
        "backbone": "nafnet",
        "model": {"width": 4, "enc": (1, 1), "middle": 1, "dec": (1, 1), "near_identity": True},
        "discriminator": {"kind": "off"},
        "loss": {"pixel": "charbonnier", "fft_weight": 0.05, "adversarial_weight": 0.0},
    }
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    fit(tiny(whole, data, **small), console=quiet())
    fit(tiny(halves, data, steps=3, **small), console=quiet())
    for key, other, words in (
        ("width", 8, "model.width = 4, not 8"),
        ("dec", (1, 2), r"model.dec = \[1, 1\], not \[1, 2\]"),
    ):
        changed = small | {"model": small["model"] | {key: other}}
        with pytest.raises(CheckpointError, match=words):
            fit(tiny(halves, data, **changed), resume=True, console=quiet())
    assert fit(tiny(halves, data, **small), resume=True, console=quiet()).steps == 6
    rows = Log(whole / "log.jsonl", False).rows()
    assert "fft" in rows[0] and not {"loss_d", "adversarial"} & rows[0].keys()
    again = load_generator(whole / "last.safetensors")
    assert again.shape.width == 4 and again.shape.unshuffle == 2
    assert load_generator(whole / "last.pt").shape == again.shape
    learner = Learner(tiny(whole, data, **small), torch.device("cpu"))
    assert len(learner.discriminators) == 0 and learner.opt_d is None
    more = tiny(tmp_path / "more", data, init=str(whole / "last.safetensors"), **small)
    assert fit(more, console=quiet()).steps == 6


def test_the_run_folder(straight):
    names = {p.name for p in straight.iterdir()}
    assert names == {
        "config.toml",
        "log.jsonl",
        "last.pt",
        "last.safetensors",
        "best.safetensors",
        "curves.png",
        "val.png",
    }
    rows = [json.loads(line) for line in (straight / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if "loss_g" in r] == [2, 4, 6]
    assert [r["step"] for r in rows if "val_psnr" in r] == [4, 6]
    assert all(
        {"loss_g", "loss_d", "content", "adversarial", "lr", "samples_per_s", "wait_share"} <= r.keys()
        for r in rows
        if "loss_g" in r
    )
    assert all(
        {"val_psnr", "val_ssim", "val_psnr_blurred", "val_ssim_blurred"} <= r.keys()
        for r in rows
        if "val_psnr" in r
    )
    for name in ("best", "last"):
        assert load_generator(straight / f"{name}.safetensors").backbone_name == "mobilenet-dsc"
        assert read_state(straight / f"{name}.safetensors")[1]["crop"] == "32"
    assert load_generator(straight / "last.pt").backbone_name == "mobilenet-dsc", (
        "the moving average out of the whole state"
    )
    last, ema = (
        load_file(straight / "last.safetensors"),
        torch.load(straight / "last.pt", weights_only=True)["ema"],
    )
    assert all(torch.equal(v, ema[k]) for k, v in last.items())


@pytest.mark.parametrize(("stop_after", "workers"), [(1, 2), (3, 0), (5, 2)])
def test_resume_is_bit_exact(straight, data, tmp_path, monkeypatch, stop_after, workers):
    """A crash (here: an exception in the step) at any step; the last saved state leads to the very same weights."""
    step, calls = Learner.step, []

    def crash(self, *args):
        if len(calls) == stop_after:
            raise RuntimeError("power cut")
        calls.append(1)
        return step(self, *args)

    with monkeypatch.context() as m:
        m.setattr(Learner, "step", crash)
        with pytest.raises(RuntimeError, match="power cut"):
            fit(tiny(tmp_path, data, workers=workers), console=quiet())
    torch.randn(7)  # the RNG of a fresh process is another
    fit(tiny(tmp_path, data, workers=2 - workers), resume=True, console=quiet())
    for name in ("last", "best"):
        assert same_bits(tmp_path / f"{name}.safetensors", straight / f"{name}.safetensors")
    a, b = (torch.load(f / "last.pt", weights_only=True) for f in (tmp_path, straight))
    for part in ("generator", "discriminators"):
        assert all(torch.equal(v, b[part][k]) for k, v in a[part].items())
    for side in ("fake", "real"):
        pool, other = a["pools"]["patch"][side], b["pools"]["patch"][side]
        assert (
            torch.equal(pool["sums"], other["sums"])
            and pool["counts"] == other["counts"]
            and len(pool["counts"]) == 12
        )
    assert a["batch"] == b["batch"] == 6
    steps = [r["step"] for r in Log(tmp_path / "log.jsonl", False).rows() if "loss_g" in r]
    assert steps == [2, 4, 6], "no line twice"


def command(out: Path, data: Path, config: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "deblur_train.cli.main",
        "fit",
        "--shards",
        str(data),
        "--config",
        str(config),
        "--out",
        str(out),
        *more,
    ]


def write_config(path: Path, **changes) -> Path:
    import tomli_w

    d = {k: v | changes.pop(k, {}) if isinstance(v, dict) else v for k, v in TINY.items()} | changes
    path.write_text(tomli_w.dumps(d))
    return path


ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


def wait_for_step(log: Path, step: int, process: subprocess.Popen) -> None:
    for _ in range(6000):
        if log.exists() and any(r["step"] >= step for r in Log(log, False).rows()):
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    raise AssertionError("no progress")


@pytest.mark.slow
def test_sigkill_at_a_random_step_then_resume_is_bit_exact(data, tmp_path):
    config = write_config(tmp_path / "c.toml", steps=16, workers=1, run={"log_every": 1, "save_every": 3})
    subprocess.run(command(tmp_path / "a", data, config), env=ONE_THREAD, check=True, capture_output=True)
    victim = random.SystemRandom().randint(2, 14)
    process = subprocess.Popen(
        command(tmp_path / "b", data, config),
        env=ONE_THREAD,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_step(tmp_path / "b" / "log.jsonl", victim, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "b" / "curves.png").exists()
    subprocess.run(
        command(tmp_path / "b", data, config, "--resume", "--workers", "2"),
        env=ONE_THREAD,
        check=True,
        capture_output=True,
    )
    assert same_bits(tmp_path / "a" / "last.safetensors", tmp_path / "b" / "last.safetensors"), (
        f"killed at step {victim}"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "to"), [(signal.SIGTERM, os.kill), (signal.SIGINT, os.kill), (signal.SIGTERM, os.killpg)]
)
def test_a_signal_saves_and_exits_cleanly(data, tmp_path, number, to):
    """Sent to the process alone, or, as a batch system does, to its decoding workers as well."""
    config = write_config(
        tmp_path / "c.toml",
        steps=5000,
        workers=1,
        run={"log_every": 1, "save_every": 5000, "val_every": 5000},
    )
    process = subprocess.Popen(
        command(tmp_path / "run", data, config),
        env=ONE_THREAD,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_step(tmp_path / "run" / "log.jsonl", 3, process)
    to(process.pid, number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1 and "Traceback" not in err + out
    assert "stopped after step" in err and "--resume" in err
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert state["step"] >= 3 and f"after step {state['step']}" in err
    assert (tmp_path / "run" / "curves.png").exists()


def test_two_runs_never_write_one_folder_at_once(data, tmp_path):
    """While somebody holds the folder a fit ends in one line and leaves what is there; afterwards it goes on."""
    config = tiny(tmp_path / "run", data)
    fit(config, console=quiet())
    with (tmp_path / "run" / "log.jsonl").open("a") as log:  # the run at work is further than what it saved
        log.write('{"step": 999, "loss_g": 1.0}\n')
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    with alone(tmp_path / "run"), pytest.raises(TrainError, match="another fit is at work"):
        fit(config, resume=True, console=quiet())
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before
    fit(config, resume=True, console=quiet())


def test_what_a_killed_run_left_half_written_is_removed(data, tmp_path):
    """Only by the run that has the folder to itself, and only what is a run's."""
    config = tiny(tmp_path / "r", data, steps=1, **PLAIN)
    fit(config, console=quiet())
    assert {p.name for p in (tmp_path / "r").iterdir()} == set(FILES)
    half = tmp_path / "r" / "last.pt.0123456789ab.part"
    other = tmp_path / "r" / "photo.jpg.0123456789ab.part"
    half.write_bytes(b"x")
    other.write_bytes(b"x")
    with alone(tmp_path / "r"):
        half.write_bytes(b"being written")
        with pytest.raises(TrainError, match="another fit"):
            fit(config, resume=True, console=quiet())
        assert half.exists()
    fit(config, resume=True, console=quiet())
    assert other.exists() and not half.exists()


def test_a_nan_stops_and_names_the_last_good_state(data, tmp_path, monkeypatch):
    step, calls = Learner.step, []

    def poison(self, *args):
        calls.append(1)
        if len(calls) == 4:
            with torch.no_grad():
                next(self.generator.parameters()).fill_(float("nan"))
        return step(self, *args)

    monkeypatch.setattr(Learner, "step", poison)
    with pytest.raises(
        TrainError, match=r"not finite at or before step 4; the last good state is .*last\.pt \(step 2\)"
    ):
        fit(tiny(tmp_path, data), console=quiet())
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert state["step"] == 2
    assert all(torch.isfinite(v).all() for v in state["generator"].values())


def invoke(*args: str):
    return CliRunner().invoke(main, list(args))


def test_without_validation_it_goes_on_and_says_so(tmp_path):
    data = make_data(tmp_path / "d", shards=1, val=0)
    result = invoke(
        "fit",
        "--shards",
        str(data),
        "--config",
        str(write_config(tmp_path / "c.toml", steps=2)),
        "--out",
        str(tmp_path / "r"),
    )
    assert result.exit_code == 0, result.output
    assert "no validation: no val-*.tar shard" in result.output
    assert "perceptual loss: off" in result.output
    told = next(line for line in result.output.splitlines() if "deblur-train eval" in line)
    assert invoke(*shlex.split(told, comments=True)[1:]).exit_code == 0
    assert same_bits(tmp_path / "r" / "best.safetensors", tmp_path / "r" / "last.safetensors")


def test_broken_shards_are_named_and_the_rest_is_used(tmp_path):
    data = make_data(tmp_path / "d", shards=2)
    cut = data / "train-000001.tar"
    cut.write_bytes(cut.read_bytes()[:9000])
    (data / "train-000002.tar").write_bytes(b"not a tar" * 200)
    result = invoke(
        "fit",
        "--shards",
        str(data),
        "--config",
        str(write_config(tmp_path / "c.toml", steps=2)),
        "--out",
        str(tmp_path / "r"),
    )
    assert result.exit_code == 0, result.output
    assert (
        "left out 2x truncated or damaged tar: train-000001.tar, train-000002.tar"
        in result.output.replace("\n", " ")
    )


LEFT = ["best.safetensors", "last.safetensors", "log.jsonl", "val.png", "curves.png"]


@pytest.mark.parametrize(
    ("name", "resume"),
    [("config.toml", []), *((name, resume) for name in LEFT for resume in ([], ["--resume"]))],
)
def test_what_lies_in_the_folder_is_not_written_over(tmp_path, data, name, resume):
    """The best weights of a run whose large last.pt was removed; somebody's config, log and pictures."""
    (tmp_path / name).write_bytes(b"mine")
    result = invoke("fit", "--shards", str(data), "--out", str(tmp_path), "--steps", "1", *resume)
    assert (
        result.exit_code == 1 and name in result.output and "move it away" in " ".join(result.output.split())
    )
    assert [p.name for p in tmp_path.iterdir()] == [name] and (tmp_path / name).read_bytes() == b"mine"


def test_a_run_whose_state_was_removed_is_not_begun_anew_over_its_weights(straight, data, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    (tmp_path / "run" / "last.pt").unlink()
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    with pytest.raises(TrainError, match=r"last\.pt, which --resume goes on from, is gone"):
        fit(tiny(tmp_path / "run", data), resume=True, console=Console(quiet=True))
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before
    # Killed between its first validation and its first save: it begins anew.
    (tmp_path / "run" / "last.safetensors").unlink()
    fit(tiny(tmp_path / "run", data, steps=1), resume=True, console=Console(quiet=True))
    assert (tmp_path / "run" / "last.pt").exists()


def test_an_unfinished_folder_is_told_once(data, tmp_path):
    """It holds both what is trained on and what is validated with."""
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "recipe.toml").write_text("")  # make was killed before its dataset.json
    said = io.StringIO()
    fit(tiny(tmp_path / "run", tmp_path / "data", steps=1), console=Console(file=said, width=500))
    assert said.getvalue().count("make has not finished") == 1


def test_a_set_that_trains_on_what_another_validates_with_is_told(tmp_path):
    """One film in two sets, made apart: train in one, val in the other."""
    made = {}
    for name, train, val in (("a", "1", "2"), ("b", "2", "3"), ("c", "4", "5")):
        for split, sha in (("train", train), ("val", val)):
            members = sample(f"{split}-0", 1, sha256=sha * 64, clip=f"film{sha}")
            write_tar(tmp_path / name / f"{split}-000000.tar", members)
        made[name] = index_split(tmp_path / name, "train")
    val = index_split(tmp_path / "a", "val")
    told = {name: shared_sources(name, index, "a", val) for name, index in made.items()}
    assert not told["a"] and not told["c"]
    assert "b: trains on 1 source that a validates with (film2)" in told["b"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--shards", "{t}/missing"], 1, "no such folder"),
        (["--shards", "{t}/empty"], 1, "holds no train-*.tar"),
        (["--shards", "{t}/bad"], 1, "no usable sample in 1 train shard"),
        (["--shards", "{d}", "--config", "nope"], 2, "no config named 'nope'"),
        (["--shards", "{d}", "--crop", "50"], 2, "multiple of 32"),
        (["--shards", "{d}", "--batch-size", "0"], 2, "batch-size"),
        (["--shards", "{d}", "--backbone", "resnet"], 2, "mobilenet-dsc"),
        (["--shards", "{d}", "--perceptual", "{t}/vgg.pth"], 1, "no such checkpoint"),
        (["--shards", "{d}", "--init", "{t}/text"], 1, "neither a safetensors nor a PyTorch file"),
        (["--shards", "{d}", "--out", "{t}/text"], 1, "text"),
        (["--shards", "{d}", "--resume"], 1, "nothing to resume"),
        (["--shards", "{d}", "--out", "{r}"], 1, "holds a run already; add --resume"),
        (
            ["--shards", "{d}", "--out", "{r}", "--resume", "--backbone", "mobilenet"],
            1,
            "backbone = 'mobilenet-dsc', not 'mobilenet'",
        ),
        ([], 2, "--shards"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, data, straight, arguments, code, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello")
    write_tar(tmp_path / "bad" / "train-000000.tar", [("x.json", b"{}")])
    config = [] if "--config" in arguments else ["--config", str(write_config(tmp_path / "c.toml"))]
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "run")]
    given = [a.format(t=tmp_path, d=data, r=straight) for a in arguments]
    result = invoke("fit", *given, *config, *out)
    assert result.exit_code == code, result.output
    assert words in result.output.replace("\n", " ") and "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_init_takes_an_official_layout_and_refuses_another_backbone(straight, data, tmp_path):
    g = load_generator(straight / "last.safetensors")
    torch.save({"model": {f"module.{k}": v for k, v in g.state_dict().items()}}, tmp_path / "g.h5")
    learner = Learner(tiny(tmp_path, data), torch.device("cpu"))
    load_initial(learner.generator, str(tmp_path / "g.h5"))
    assert all(torch.equal(v, g.state_dict()[k]) for k, v in learner.generator.state_dict().items())
    other = Learner(tiny(tmp_path, data, backbone="mobilenet"), torch.device("cpu"))
    with pytest.raises(CheckpointError, match="holds mobilenet-dsc, but --backbone is mobilenet"):
        load_initial(other.generator, str(tmp_path / "g.h5"))


def pairs(n: int, size: int = 32):
    return [(image(i, [2, 3, size, size]), image(50 + i, [2, 3, size, size])) for i in range(n)]


def test_accumulated_batches_equal_one_large_batch(data, tmp_path):
    """Without batch-dependent layers in the way (frozen statistics), k small batches make the large batch's step."""
    results = []
    for accumulate in (1, 2):
        torch.manual_seed(0)
        learner = Learner(
            tiny(
                tmp_path, data, optim={"ema": None}, loss={"adversarial_means": "batch", "detach_means": True}
            ),
            torch.device("cpu"),
        )
        small = pairs(2)
        given = small if accumulate == 2 else [tuple(torch.cat(x) for x in zip(*small, strict=True))]
        results.append((learner.step(given, 1e-3, fix_norms=True), learner.generator.state_dict()))
    (one, a), (two, b) = results
    assert one["content"].item() == pytest.approx(two["content"].item(), rel=1e-5)
    assert one["grad_norm"].item() == pytest.approx(two["grad_norm"].item(), rel=0.05)
    assert max((a[k] - b[k]).abs().max().item() for k in a if a[k].is_floating_point()) < 3e-3


def test_the_discriminators_learn_from_their_own_step_only(data, tmp_path):
    """The generator's loss must leave no gradient in the discriminators for the next step."""
    torch.manual_seed(0)
    learner = Learner(tiny(tmp_path, data), torch.device("cpu"))
    learner.start()
    learner.step(pairs(1), 1e-3)
    assert all(p.grad is None for p in learner.discriminators.parameters())
    assert all(p.grad is None for p in learner.generator.parameters())


def test_the_moving_average_follows(data, tmp_path):
    torch.manual_seed(0)
    learner = Learner(tiny(tmp_path, data), torch.device("cpu"))
    learner.start()
    key = "smooth.0.1.weight"
    first = learner.generator.state_dict()[key].clone()
    learner.step(pairs(1), 1e-2)
    decay = min(0.9, 2 / 11)
    want = first * decay + learner.generator.state_dict()[key] * (1 - decay)
    torch.testing.assert_close(learner.weights()[key], want)


@pytest.mark.parametrize(
    "changes",
    [
        {"discriminator": {"kind": "off"}},
        {"discriminator": {"kind": "double", "norm": "virtual"}, "crop": 64},
        {"discriminator": {"norm": "batch", "spectral": True}},
        {
            "model": {"weight_init": "xavier"},
            "loss": {"pixel": "l1", "fft_weight": 0.1, "adversarial_means": "batch"},
        },
        {"loss": {"pixel": "charbonnier", "pixel_space": "signed"}, "optim": {"accumulate": 2, "ema": None}},
        {"schedule": {"kind": "article", "warmup_share": 0.5}},
        {"run": {"channels_last": False}},
        {"run": {"amp": "bf16", "val_norm_stats": "local"}},
    ],
    ids=lambda c: "-".join(f"{k}" for k in c),
)
def test_every_option_trains_and_resumes(data, tmp_path, changes):
    fit(tiny(tmp_path / "a", data, steps=2, **changes), console=quiet())
    fit(
        tiny(
            tmp_path / "b",
            data,
            steps=1,
            **changes,
        ),
        console=quiet(),
    )
    assert all(torch.isfinite(v).all() for v in load_file(tmp_path / "a" / "last.safetensors").values())
    fit(tiny(tmp_path / "b", data, steps=2, **changes), resume=True, console=quiet())
    assert torch.load(tmp_path / "b" / "last.pt", weights_only=True)["step"] == 2


def test_norm_statistics_stand_still_in_their_share_of_the_steps(data, tmp_path):
    never = {"schedule": {"norm_tracked_share": 0.0}}
    always = {"schedule": {"norm_tracked_share": 1.0}}
    for name, changes in (("never", never), ("always", always)):
        fit(tiny(tmp_path / name, data, steps=2, **changes), console=quiet())
    moved, still = (
        load_file(tmp_path / n / "last.safetensors")["smooth.1.running_var"] for n in ("never", "always")
    )
    assert not torch.equal(moved, torch.ones_like(moved)) and torch.equal(still, torch.ones_like(still))


def test_perceptual_weights_are_used(data, tmp_path):
    torch.save(VGGFeatures().state_dict(), tmp_path / "vgg.pth")
    result = invoke(
        "fit",
        "--shards",
        str(data),
        "--config",
        str(write_config(tmp_path / "c.toml", steps=1)),
        "--out",
        str(tmp_path / "r"),
        "--perceptual",
        str(tmp_path / "vgg.pth"),
    )
    assert result.exit_code == 0, result.output
    assert "perceptual loss: VGG19 from" in result.output
    assert Log(tmp_path / "r" / "log.jsonl", False).rows()[0]["perceptual"] > 0


def test_it_learns(tmp_path):
    """A fixed blur on a few textures: the restored frames come nearer to the sharp ones than the blurred are."""
    data = make_data(tmp_path / "d", shards=1, samples=4, val=2)
    config = tiny(
        tmp_path / "r",
        data,
        steps=60,
        batch_size=4,
        discriminator={"kind": "off"},
        data={"augment": "none", "val_frames": 2},
        loss={"pixel": "charbonnier", "pixel_weight": 1.0, "pixel_space": "signed"},
        schedule={"lr": 3e-3},
        run={"val_every": 60, "save_every": 60},
    )
    fit(config, console=quiet())
    score = Log(tmp_path / "r" / "log.jsonl", False).rows()[-1]
    assert score["val_psnr"] > score["val_psnr_blurred"] + 0.5


def test_tensorboard_missing_names_the_extra(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"\[tensorboard\]"):
        fit(tiny(tmp_path, data, run={"tensorboard": True}), console=quiet())


def test_one_sample_is_enough(tmp_path):
    write_tar(tmp_path / "d" / "train-000000.tar", sample("only", 1))
    fit(tiny(tmp_path / "r", tmp_path / "d", steps=2), console=quiet())


def test_two_sets_are_mixed_by_weight_and_resumed_exactly(data, tmp_path, monkeypatch):
    """A power cut in the fourth step, gone on with from step 2: the bits of a run without one."""
    other = make_data(tmp_path / "b", shards=1, samples=3, val=2)
    changes = {"shards": (str(data), str(other)), "mix": (3.0, 1.0), "val_shards": str(other)}
    said = Console(record=True, width=200, file=io.StringIO())
    fit(tiny(tmp_path / "a", data).model_copy(update=changes), console=said)
    assert "mixed: 75.0%" in said.export_text()
    config = tiny(tmp_path / "c", data).model_copy(update=changes)
    step, count = Learner.step, itertools.count()

    def cut(self, *args):
        if next(count) == 3:
            raise RuntimeError("power cut")
        return step(self, *args)

    with monkeypatch.context() as m, pytest.raises(RuntimeError, match="power cut"):
        m.setattr(Learner, "step", cut)
        fit(config, console=quiet())
    fit(config, resume=True, console=quiet())
    assert same_bits(tmp_path / "a" / "last.safetensors", tmp_path / "c" / "last.safetensors")
    alone = fit(tiny(tmp_path / "d", data), console=quiet())
    assert not same_bits(tmp_path / "a" / "last.safetensors", alone.folder / "last.safetensors")


def test_a_longer_schedule_says_what_the_rate_will_do(data, tmp_path):
    config = tiny(tmp_path / "a", data)
    fit(config.model_copy(update={"steps": 2}), console=quiet())
    said = Console(record=True, width=200, file=io.StringIO())
    fit(config, resume=True, console=said)
    text = said.export_text()
    assert "resumed after step 2 of 2, now of 6" in text and "the rate goes from 1e-07 to" in text, text


def test_fit_from_python_takes_a_name_and_options(data, tmp_path):
    file = write_config(tmp_path / "c.toml", steps=2)
    for config, out in ((str(file), str(tmp_path / "r")), (file, tmp_path / "p")):
        result = fit(config, shards=str(data), out=out, console=quiet())
        assert result.steps == 2 and (Path(out) / "best.safetensors").exists()
    with pytest.raises(ConfigError, match="given beside a whole config"):
        fit(tiny(tmp_path / "x", data), steps=3)
    with pytest.raises(ConfigError, match="no shards to train on"):
        fit("demo", out=str(tmp_path / "y"))


def test_what_a_run_says_of_frames_and_of_resuming(data, straight, tmp_path):
    """A crop larger than the frames, a run that is done, and a folder with nothing to resume: each is said."""
    common = ["--shards", str(data), "--config", str(write_config(tmp_path / "c.toml", steps=1))]
    result = invoke("fit", *common, "--crop", "224", "--out", str(tmp_path / "a"))
    assert result.exit_code == 0 and "than --crop 224 and are mirrored up to it" in result.output, (
        result.output
    )
    result = invoke("fit", *common, "--out", str(tmp_path / "b"), "--workers", "3")
    assert "--workers 3: 2 are used, the most that divide data.lanes = 2" in " ".join(result.output.split())
    assert "mirrored" not in result.output and "means of the first and the last fifth" in result.output
    result = invoke("fit", *common, "--out", str(tmp_path / "b"), "--resume")
    assert "resumed after step 1: nothing is left to do; --steps above 1" in " ".join(result.output.split())
    (tmp_path / "new").mkdir()
    result = invoke("fit", *common, "--out", str(tmp_path / "new"), "--resume")
    assert "no last.pt to resume; begun at step 0" in " ".join(result.output.split())
    assert invoke("fit", *common, "--steps", "2", "--steps", "3").exit_code == 2


@pytest.mark.parametrize("stopped", [True, False])
def test_a_line_of_the_log_is_the_mean_of_the_steps_since_the_line_before(
    data, tmp_path, monkeypatch, stopped
):
    """Whatever ended the run between two lines, and whenever it goes on."""
    config = tiny(tmp_path, data, run={"log_every": 4, "save_every": 3}, **PLAIN)
    step, told = Learner.step, []

    def watched(self, *args):
        if len(told) == 4 and not (tmp_path / "again").exists():
            (tmp_path / "again").touch()
            if not stopped:
                raise RuntimeError("power cut")
            os.kill(os.getpid(), signal.SIGTERM)
        values = step(self, *args)
        told.append(float(values["loss_g"]))
        return values

    monkeypatch.setattr(Learner, "step", watched)
    if stopped:
        assert fit(config, console=quiet()).interrupted
    else:
        with pytest.raises(RuntimeError, match="power cut"):
            fit(config, console=quiet())
        del told[3:]  # after the last save: done again
    fit(config, resume=True, console=quiet())
    assert len(told) == 6
    before = 0
    rows = [(r["step"], r["loss_g"]) for r in Log(tmp_path / "log.jsonl", False).rows() if "loss_g" in r]
    assert rows[-1][0] == 6
    for at, loss in rows:
        assert loss == pytest.approx(sum(told[before:at]) / (at - before), rel=1e-5), rows
        before = at


def test_first_and_last_loss_are_means_over_fifths_of_the_steps(tmp_path):
    """Rows stand for the steps since the row before: a last row of one step does not stand for the end."""
    log = Log(tmp_path / "log.jsonl", True)
    for step, loss in ((50, 4.0), (100, 2.0), (150, 2.0), (200, 1.0), (201, 9.0)):
        log.write({"step": step, "loss_g": loss})
    assert first_and_last(log) == (4.0, pytest.approx((9 + 50) / 51))
    assert first_and_last(Log(tmp_path / "none.jsonl", True)) is None


def test_the_cost_is_told_once_in_a_run_long_enough(data, tmp_path, monkeypatch):
    """Steps of a known length: the watch leaves out the slow first ones and what is paused; the words add up."""
    config = tiny(tmp_path, data, steps=100)
    pace, told, now = Pace(config, 10, 1), [], [0.0]
    monkeypatch.setattr("deblur_train.training.pace.time.perf_counter", lambda: now[0])
    for step in range(11, 101):
        now[0] += 7.0 if step <= 15 else 2.0
        if seconds := pace.measured(step, torch.device("cpu")):
            told.append((step, seconds))
        with pace.paused():
            now[0] += 50.0
    assert told == [(30, pytest.approx(2.0))]
    assert "2 s a step: 70 more steps take about 2.3 min and end at about " in forecast(2.0, 70, False)
    short = Pace(tiny(tmp_path, data, steps=30), 0, 1)
    assert not any(short.measured(step, torch.device("cpu")) for step in range(1, 31))


def test_a_run_says_its_cost_and_shows_its_validation(data, tmp_path):
    said = io.StringIO()
    config = tiny(tmp_path, data, steps=42, run={"val_every": 21, "log_every": 50, "save_every": 50})
    fit(config, console=Console(file=said, width=200))
    assert said.getvalue().count(" a step: 22 more steps take about ") == 1
    assert "validations not counted" in said.getvalue()
    shown = cv2.imread(str(tmp_path / "val.png"))
    assert shown.shape == (26 + 24 + 72, 3 * 96, 3), (
        "one frame of 96 x 72, pixel for pixel, under its caption"
    )
    blurred, sharp = shown[50:, :96], shown[50:, 192:]
    assert (cv2.blur(sharp, (5, 1)).astype(int) - blurred)[8:-8, 8:-8].max() <= 1


def test_what_to_type_next_stands_at_the_end(data, tmp_path):
    config = tmp_path / "tiny.toml"
    config.write_text(dump_config(tiny(tmp_path / "a run", data, steps=2)))
    done = CliRunner().invoke(main, ["fit", "--config", str(config)])
    assert done.exit_code == 0, done.output
    best = f"'{tmp_path}/a run/best.safetensors'"
    assert f"deblur-train eval --checkpoint {best} --shards {data} " in done.output
    assert f"deblur-train predict photo.jpg --checkpoint {best} " in done.output


def test_val_shards_without_a_val_sample_are_refused(data, tmp_path):
    """Asked for, they would be missed in silence for the whole run."""
    other = make_data(tmp_path / "other", shards=1, val=0)
    config = tiny(tmp_path / "run", data, steps=1, val_shards=str(other), **PLAIN)
    with pytest.raises(DataError, match="holds train shards only"):
        fit(config, console=quiet())
    cut = [(name, held[:60] if ".png" in name else held) for name, held in sample("k", 1)]
    write_tar(tmp_path / "cut" / "val-000000.tar", cut)
    with pytest.raises(DataError, match="no frame to validate on can be decoded"):
        fit(tiny(tmp_path / "run", data, steps=1, val_shards=str(tmp_path / "cut"), **PLAIN), console=quiet())
    none = config.model_copy(update={"data": config.data.model_copy(update={"val_frames": 0})})
    assert fit(none, console=quiet()).best_psnr is None
    assert f"--shards {data} --split train" in what_next(none, False)[1], "the pairs that it was trained on"


def test_what_to_type_next_measures_what_the_run_measured(data, tmp_path):
    config = tiny(tmp_path / "run", data, steps=2, run={"val_norm_stats": "image"}, data={"val_frames": 9})
    best = fit(config, console=quiet()).best_psnr
    commands = [shlex.split(line, comments=True) for line in what_next(config, True)[1:]]
    report = tmp_path / "r.json"
    done = invoke(*commands[0][1:], "--json", str(report))
    assert done.exit_code == 0, done.output
    assert json.loads(report.read_text())["mean"]["psnr"] == pytest.approx(best, abs=1e-3)
    assert commands[1][-2:] == ["--norm-stats", "image"]


def test_validation_and_eval_keep_clear_of_light_from_outside(tmp_path):
    """Frames to validate and to measure on are cut by ``exposure.shake.border``: left, top, right, bottom."""
    facts = meta("k")
    facts["exposure"]["shake"] = {"px": 4.0, "path": [[0, 0, 0]], "border": [2, 3, 5, 7]}
    blur, sharp = scene(1)
    members = [("k.blur.png", encode(blur)), ("k.sharp.png", encode(sharp))]
    write_tar(tmp_path / "val-000000.tar", [*members, ("k.json", json.dumps(facts).encode())])
    cut = (slice(3, 72 - 7), slice(2, 96 - 5))
    (seen,) = read_validation_frames(index_split(tmp_path, "val"), 1, print)
    measured = pairs_from_shards(str(tmp_path), "val", None).read(0)
    for frames in (seen, measured):
        assert np.array_equal(frames[0], blur[cut]) and np.array_equal(frames[1], sharp[cut])


def test_frames_that_are_small_without_their_border_are_told(tmp_path):
    """A shaking camera's border is no part of a crop: what is left may be smaller than one, and is mirrored."""
    facts = meta("k")
    facts["exposure"]["shake"] = {"px": 4.0, "path": [[0, 0, 0]], "border": [2, 3, 5, 7]}
    members = [(f"k.{side}.png", encode(picture)) for side, picture in zip(("blur", "sharp"), scene(1))]
    write_tar(tmp_path / "train-000000.tar", [*members, ("k.json", json.dumps(facts).encode())])
    index = index_split(tmp_path, "train")  # 96 x 72 with the border
    assert "frames are smaller (89 x 62) than --crop 64" in small_frames(index, "d", 64)
    assert small_frames(index, "d", 62) == ""
    facts["exposure"]["shake"]["border"] = [50, 0, 46, 0]  # nothing would be left: used whole
    write_tar(tmp_path / "train-000000.tar", [*members, ("k.json", json.dumps(facts).encode())])
    assert small_frames(index_split(tmp_path, "train"), "d", 72) == ""


def test_a_log_is_not_written_through_a_link(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("keep")
    (tmp_path / "log.jsonl").symlink_to(precious)
    with pytest.raises(FileExistsError, match="is a link"):
        Log(tmp_path / "log.jsonl", True).write({"step": 1})
    assert precious.read_text() == "keep"


PLAIN = {
    "backbone": "nafnet",
    "model": {"width": 4, "enc": (1,), "middle": 1, "dec": (1,), "near_identity": True},
    "discriminator": {"kind": "off"},
}


def test_a_resumed_run_learns_as_its_new_config_says(data, tmp_path):
    """Settings of the optimiser and the moving average may change at a resume: config.toml then says what was done."""
    fit(tiny(tmp_path, data, steps=2, **PLAIN), console=quiet())
    changed = {"betas": (0.5, 0.6), "weight_decay": 0.5, "ema": None}
    fit(tiny(tmp_path, data, steps=3, optim=changed, **PLAIN), resume=True, console=quiet())
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    group = state["opt_g"]["param_groups"][0]
    assert (tuple(group["betas"]), group["weight_decay"]) == ((0.5, 0.6), 0.5)
    assert len(state["opt_g"]["state"]) and state["ema"] is None
    saved = load_file(tmp_path / "last.safetensors")
    assert all(torch.equal(v, state["generator"][k]) for k, v in saved.items())
    adam = tiny(tmp_path, data, steps=4, optim={"kind": "adam"}, **PLAIN)
    fit(adam, resume=True, console=quiet())
    mine = Learner(adam, torch.device("cpu")).opt_g.param_groups[0]
    now = torch.load(tmp_path / "last.pt", weights_only=True)["opt_g"]["param_groups"][0]
    assert {k: v for k, v in now.items() if k not in ("params", "lr")} == {
        k: v for k, v in mine.items() if k not in ("params", "lr")
    }


def test_the_best_weights_are_the_best_of_one_validation(data, tmp_path):
    """PSNR on other frames is no smaller or larger PSNR: harder ones must not keep the weights of before for ever, and
    weights that were not validated claim no PSNR. The same frames elsewhere are the same validation."""
    hard = [m for i in range(2) for m in sample(f"h-{i}", 7 + i)]
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (72, 96, 3)).astype(np.uint8)
    hard = [(n, encode(noise) if "sharp" in n else b) for n, b in hard]
    write_tar(tmp_path / "hard" / "val-000000.tar", hard)
    shutil.copytree(data, tmp_path / "moved")
    run, best = tmp_path / "run", tmp_path / "run" / "best.safetensors"

    def go(steps, **changes):
        said = Console(record=True, width=200, file=io.StringIO())
        result = fit(tiny(run, data, steps=steps, **PLAIN | changes), resume=steps > 4, console=said)
        rows = [r["val_psnr"] for r in Log(run / "log.jsonl", False).rows() if "val_psnr" in r]
        return result.best_psnr, rows, "sought anew" in said.export_text(), read_state(best)[1]

    first, _, anew, _ = go(4)
    same, rows, anew, _ = go(5, val_shards=str(tmp_path / "moved"))
    assert not anew and same == max(rows) and same >= first
    harder, rows, anew, facts = go(6, val_shards=str(tmp_path / "hard"))
    assert anew and harder == rows[-1] < first - 5 and facts["step"] == "6"
    state = torch.load(run / "last.pt", weights_only=True)
    for before in (state, {k: v for k, v in state.items() if k != "measure"}):  # 0.2.0 told no measure
        torch.save(before, run / "last.pt")
        none, _, anew, facts = go(7, data={"val_frames": 0})
        assert none is None and anew and facts["step"] == "7" and "val_psnr" not in facts


@pytest.mark.parametrize(
    "line",
    [
        b'{"step": "x"}',
        b"\xff\xfe",
        b"\0" * 9,
        b'{"step": 1, "loss_g": null}',
        b"[" * 9999,
        b'{"step": 1, "lr": 1%s}' % (b"0" * 400),
    ],
)
def test_a_damaged_line_of_the_log_is_left_out(straight, data, tmp_path, line):
    shutil.copytree(straight, tmp_path / "r")
    log = tmp_path / "r" / "log.jsonl"
    log.write_bytes(line + b"\n" + log.read_bytes())
    fit(tiny(tmp_path / "r", data), resume=True, console=quiet())
    assert {2, 4, 6} == {r["step"] for r in Log(log, False).rows() if r.get("loss_g")}


def test_a_run_that_a_full_disk_ended_names_the_file_and_begins_again(data, tmp_path, monkeypatch):
    """Wherever the disk is full, what was written before is known for a run's."""
    config = tiny(tmp_path / "r", data, steps=1, **PLAIN)
    left = [0]

    def sync(fd):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for good, name in ((0, "config.toml"), (1, "log.jsonl")):
        left[0] = good
        with monkeypatch.context() as m, pytest.raises(OSError) as e:
            m.setattr(os, "fsync", sync)
            fit(config, console=quiet())
        assert e.value.filename == str(tmp_path / "r" / name)
    assert (tmp_path / "r" / "config.toml").exists()
    assert fit(config, console=quiet()).steps == 1
