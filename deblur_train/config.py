"""The typed training config (TOML): one flat table of what the command line can say, and a table for each part.

Later layers win: built-in defaults < config (by name or file) < command line. The resolved config lies in the run
folder as ``config.toml``.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from blursynth.common.errors import UsageError, did_you_mean, plain_message

Backbone = Literal["mobilenet", "mobilenet-dsc", "inception", "nafnet"]
AugmentKind = Literal["article", "dihedral", "none"]
PixelLoss = Literal["mse", "l1", "charbonnier"]
DiscriminatorNorm = Literal["instance", "batch", "virtual", "none"]


NAFNET_SHAPE = ("width", "enc", "middle", "dec", "unshuffle")
"""Keys of ``[model]`` that only a nafnet has."""
OPTIONS = {"schedule.lr": "--lr", "run.val_every": "--val-every"}
"""Keys inside tables that have an option of their own."""


class ConfigError(UsageError):
    """A config that cannot be used; the message names the key, what is wrong and what to do."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class ModelConfig(Strict):
    weights: str = Field(
        default="off",
        description="weights that the backbone starts from: off, imagenet (downloaded), or a FILE",
    )
    weight_init: Literal["default", "xavier"] = Field(
        default="default",
        description="how convolutions without loaded weights start: default (torch's), xavier",
    )
    near_identity: bool = Field(
        default=False, description="start with a network that gives back the blurred picture"
    )
    width: int = Field(default=32, ge=1, le=1024, description="nafnet: channels of the first level")
    enc: tuple[int, ...] = Field(
        default=(1, 1, 2), max_length=8, description="nafnet: blocks of each level on the way down"
    )
    middle: int = Field(default=4, ge=0, description="nafnet: blocks of the lowest level")
    dec: tuple[int, ...] = Field(
        default=(1, 1, 1), max_length=8, description="nafnet: blocks of each level on the way up"
    )
    unshuffle: int = Field(
        default=2,
        ge=1,
        le=8,
        description="nafnet: squares of this many pixels a side become channels of one pixel first; 1: none",
    )

    @model_validator(mode="after")
    def _levels(self) -> ModelConfig:
        if len(self.enc) != len(self.dec) or min([*self.enc, *self.dec], default=0) < 0:
            raise ValueError("enc and dec must have as many levels, each of at least 0 blocks")
        return self

    @property
    def shape(self) -> dict[str, Any]:
        """What only nafnet's shape depends on."""
        return self.model_dump(include=set(NAFNET_SHAPE))


class DiscriminatorConfig(Strict):
    kind: Literal["double", "patch", "full", "off"] = Field(
        default="double",
        description="GAN: patch (judges patches of 70 px), full (the whole crop), double (both), off",
    )
    norm: DiscriminatorNorm = Field(
        default="instance",
        description="norm layers: instance, batch, virtual (batch norm by a fixed batch), none",
    )
    spectral: bool = Field(default=False, description="spectral norm on every convolution")
    width: int = Field(default=64, ge=8, description="channels of the first layer")


class DataConfig(Strict):
    augment: AugmentKind = Field(
        default="article",
        description="article (flips, colour, dropout...), dihedral (flips and quarter turns), none",
    )
    crops_per_frame: int = Field(default=8, ge=1, le=256, description="crops taken from each decoded frame")
    frames_in_flight: int = Field(
        default=8,
        ge=1,
        le=256,
        description="decoded frames that a lane draws its crops from; more mix better and need more memory",
    )
    lanes: int = Field(
        default=8,
        ge=1,
        le=256,
        description="independent sequences of crops; the number of workers must divide it",
    )
    noise: str = Field(
        default="off",
        description="draw camera noise anew for each crop: off; or, as in blursynth make, rsblur, realblur, iso, B1,B2 or "
        "rgb:B1,B2 (needs shards with store = linear16)",
    )
    val_frames: int = Field(
        default=16,
        ge=0,
        description="whole frames to validate on, spread over the val shards; 0: no validation",
    )

    @field_validator("noise")
    @classmethod
    def _noise(cls, v: str) -> str:
        if v != "off":
            from blursynth.camera.noise import parse_noise  # brings OpenCV and numba

            model = parse_noise(v)
            if model is not None and model.kind == "restore":
                raise ValueError(
                    f"{v} measures the source's frames, which shards do not hold; give rsblur, realblur, iso, B1,B2 or rgb:B1,B2"
                )
        return v


class LossConfig(Strict):
    pixel: PixelLoss = Field(default="mse", description="pixel loss: mse, l1, charbonnier")
    pixel_weight: float = Field(default=0.5, ge=0, description="weight of the pixel loss; 0: off")
    pixel_space: Literal["signed", "imagenet"] = Field(
        default="imagenet",
        description="where the pixel loss is measured: signed (values in [-1, 1]) or imagenet (normalised as for VGG)",
    )
    perceptual_weight: float = Field(
        default=0.006,
        ge=0,
        description="weight of the perceptual loss, the distance of VGG19 features; off without perceptual",
    )
    fft_weight: float = Field(
        default=0.0, ge=0, description="weight of the FFT loss, the L1 distance of the spectra; 0: off"
    )
    adversarial_weight: float = Field(default=0.001, ge=0, description="weight of the GAN loss; 0: off")
    adversarial_means: Literal["pool", "batch"] = Field(
        default="pool",
        description="what the relativistic GAN loss takes its means over: pool (the last 50 images) or batch",
    )
    detach_means: bool = Field(default=False, description="let no gradient through those means")


class OptimConfig(Strict):
    kind: Literal["adam", "adamw"] = Field(default="adam", description="optimiser: adam, adamw")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        default=(0.9, 0.999), description="its betas"
    )
    weight_decay: float = Field(default=0.0, ge=0, description="its weight decay")
    clip_norm: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=True,  # inf: no limit, over a config that has one
        description="gradients of a larger norm are scaled down to this one; default: no limit",
    )
    accumulate: int = Field(default=1, ge=1, description="batches whose gradients are added up for one step")
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="decay of a moving average of the weights, which is then validated, saved and used; default: none",
    )


class ScheduleConfig(Strict):
    """Shares are of the total steps, so that ``--steps`` stretches the whole schedule."""

    kind: Literal["paper", "article", "modern"] = Field(
        default="paper",
        description="paper: flat, then linear; article: three phases; modern: linear warm-up, then cosine",
    )
    lr: float = Field(default=1e-4, gt=0, description="highest learning rate; --lr sets it")
    lr_end: float = Field(default=1e-7, ge=0, description="learning rate of the last step")
    discriminator_lr_scale: float = Field(
        default=1.0, gt=0, description="learning rate of the discriminators, relative to lr"
    )
    frozen_share: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="first share of the steps, in which the backbone does not learn; of use with pretrained weights",
    )
    norm_tracked_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="last share of the steps, in which norm layers use their tracked statistics, as they do after training",
    )
    flat_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="paper: share of the steps at the full rate, before the linear decay",
    )
    warmup_share: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="article: share of the first phase; modern: share of the linear warm-up",
    )
    warmup_lr: float = Field(default=1e-5, gt=0, description="article: rate of the first phase")
    finetune_share: float = Field(default=0.1, ge=0, le=1, description="article: share of the last phase")
    finetune_lr: float = Field(default=1e-6, gt=0, description="article: rate of the last phase")
    decay: float = Field(
        default=0.99,
        gt=0,
        le=1,
        description="article: the rate is multiplied by this after each epoch of the main phase",
    )
    epoch_steps: int = Field(
        default=1000, ge=1, description="article: steps in one epoch, where the data do not say"
    )


class RunConfig(Strict):
    log_every: int = Field(
        default=50,
        ge=1,
        description="steps from one line of log.jsonl to the next, at most; each save writes one too",
    )
    val_every: int = Field(
        default=2000, ge=1, description="steps from one validation to the next; --val-every sets it"
    )
    save_every: int = Field(
        default=1000, ge=1, description="steps from one save of last.pt and last.safetensors to the next"
    )
    val_norm_stats: Literal["tracked", "image", "local"] = Field(
        default="tracked",
        description="statistics of the norm layers in validation: tracked, image, local, as in eval --norm-stats",
    )
    amp: Literal["auto", "bf16", "off"] = Field(
        default="auto",
        description="bf16: compute in bfloat16 where it is safe (on CPUs of use for a nafnet of the usual width only); auto: on CUDA only; off",
    )
    channels_last: bool = Field(default=True, description="memory layout NHWC, which most kernels like best")
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads of a step; 1 suits small crops and busy machines; default: torch chooses",
    )
    compile: bool = Field(default=False, description="compile the networks with torch.compile")
    tf32: bool = Field(
        default=True,
        description="on CUDA: TensorFloat-32 in what stays float32; faster, with 10 bits of mantissa",
    )
    deterministic: bool = Field(
        default=True, description="use kernels that give the same bits in every run, where torch has them"
    )
    tensorboard: bool = Field(
        default=False, description="also write a TensorBoard log with pictures (extra: tensorboard)"
    )


class TrainConfig(Strict):
    name: str = Field(
        default="paper",
        description="name of the config; the run folder is runs/NAME unless out says otherwise",
    )
    cite: str = Field(default="", description="where the settings come from")
    shards: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        default=(), description="folders or URLs of shards to train on; several are mixed"
    )
    mix: tuple[float, ...] | None = Field(
        default=None,
        description="how many samples to draw from each of shards, relative to the others; default: all alike",
    )
    val_shards: str | None = Field(
        default=None, description="shards to validate on; default: the first of shards"
    )
    out: str | None = Field(default=None, description="folder of the run; default: runs/NAME")
    backbone: Backbone = Field(
        default="mobilenet", description="network: mobilenet, mobilenet-dsc, inception, nafnet"
    )
    steps: int = Field(default=100_000, ge=1, description="training steps")
    batch_size: int = Field(
        default=1, ge=1, description="crops in one step; with several GPUs: on each of them"
    )
    crop: int = Field(
        default=256, ge=32, le=1 << 14, description="side of a training crop, pixels; a multiple of 32"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where to train; auto: on the GPU if there is one"
    )
    workers: int | None = Field(
        default=None,
        ge=0,
        description="processes that decode pictures; default: 1 on a CPU, up to 8 on a GPU",
    )
    seed: int = Field(
        default=0, ge=0, lt=2**63, description="seed of the first weights and of the order of the data"
    )
    perceptual: str = Field(
        default="off",
        description="perceptual network: imagenet (VGG19, downloaded), a FILE of VGG19 weights, hed, or off",
    )
    init: str | None = Field(
        default=None,
        description="weights to start from: a checkpoint of ours, an official file, or shipped; default: random",
    )

    model: ModelConfig = ModelConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    data: DataConfig = DataConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    run: RunConfig = RunConfig()

    @field_serializer("shards")
    def _one_or_several(self, shards: tuple[str, ...]) -> str | tuple[str, ...]:
        return shards[0] if len(shards) == 1 else shards

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.mix is not None and len(self.mix) != len(self.shards):
            raise ValueError(
                f"mix: holds {len(self.mix)} weights for {len(self.shards)} sets of shards; give one for each"
            )
        if self.mix is not None and min(self.mix) <= 0:
            raise ValueError("mix: weights must be above 0; leave a set out instead")
        if self.crop % 32:
            raise ValueError("crop: must be a multiple of 32 (the generator halves five times)")
        if self.crop == 32 and self.batch_size == 1 and self.backbone.startswith("mobilenet"):
            raise ValueError(
                "crop: one 32-pixel crop a step leaves the deepest batch norm a single value; "
                "use crop 64 or batch_size 2"
            )
        if self.backbone == "inception" and self.crop < 128:
            raise ValueError("crop: inception needs at least 128 pixels")
        if self.backbone != "nafnet" and self.model.shape != ModelConfig().shape:
            raise ValueError("model: width, enc, middle, dec and unshuffle are for backbone nafnet only")
        if self.discriminator.kind in ("double", "full") and self.crop < 64:
            raise ValueError("crop: the full-image discriminator needs at least 64 pixels")
        weights = self.loss
        if not (
            weights.pixel_weight
            or weights.fft_weight
            or (weights.perceptual_weight and self.perceptual != "off")
            or (weights.adversarial_weight and self.discriminator.kind != "off")
        ):
            raise ValueError(
                "loss: nothing is left to learn from: every weight is 0, or what it needs is off (perceptual, "
                "discriminator.kind); set one, for example pixel_weight"
            )
        return self

    @property
    def run_folder(self) -> Path:
        return Path(self.out) if self.out else Path("runs") / self.name


def builtin_configs() -> dict[str, Path]:
    """Name (without ``train-``) -> path of the configs shipped in the ``pipelines`` package."""
    folder = Path(str(resources.files("blursynth.pipelines")))
    return {p.stem.removeprefix("train-"): p for p in sorted(folder.glob("train-*.toml"))}


def find_config(name: str) -> Path:
    """Path of a config given by built-in name (with or without ``train-``) or by file. Raises ConfigError."""
    known = builtin_configs()
    if name.removeprefix("train-") in known:
        return known[name.removeprefix("train-")]
    path = Path(name)
    if path.suffix != ".toml" and not path.exists():
        raise ConfigError(f"no config named {name!r}; built in: {', '.join(known)}; or give a FILE.toml")
    if not path.is_file():
        raise ConfigError(f"{name}: no such config file")
    return path


def describe_keys() -> Iterator[tuple[str, str, str]]:
    """(key, default, what it does) of every key of a config, those inside tables as ``table.key``."""
    for name, field in TrainConfig.model_fields.items():
        part = field.annotation
        inside = part.model_fields if isinstance(part, type) and issubclass(part, BaseModel) else None
        for key, f in (inside or {name: field}).items():
            about, _, otherwise = str(f.description).partition("; default: ")
            value = f.get_default()
            unset = value in (None, "", ())
            default = otherwise if unset else json.dumps(value)  # as TOML writes it
            yield (f"{name}.{key}" if inside else key), default, about


def load_config(
    name: str | None = None, overrides: dict[str, Any] | None = None, settings: Sequence[str] = ()
) -> TrainConfig:
    """Merge the defaults, a config (name or file), ``settings`` and ``overrides``; the later wins. Raises ConfigError.

    A config may stand on another: ``base = "modern"`` (a name, or a file beside it). ``overrides``: top-level keys, or
    tables of them, as options of the command line; None is not said. ``settings``: ``"schedule.lr=2e-4"``, the value
    as in TOML (a word needs no quotes).
    """
    merged = _read(name, ()) if name is not None else {}
    overrides = _plain(overrides or {})
    _leave_shape_of_another(merged, overrides.get("backbone"))
    said: dict[str, str] = {}  # key -> what the user wrote
    for text in settings:
        setting = _setting(text)
        _merge(merged, setting)
        said |= dict.fromkeys(_flat(setting), f"--set {text}")
    _merge(merged, {k: v for k, v in overrides.items() if v is not None})
    said |= {key: OPTIONS.get(key, f"--{key.replace('_', '-')}") for key in _flat(overrides)}
    where = str(find_config(name)) if name is not None else "config"
    _refuse_unknown(TrainConfig, merged, where, "")
    try:
        return TrainConfig(**merged)
    except ValidationError as e:
        raise ConfigError(explain_validation(e, where, said)) from None


def _plain(value: Any) -> Any:
    """A caller's paths as the words that a config holds."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _leave_shape_of_another(merged: dict[str, Any], backbone: str | None) -> None:
    """Another backbone on the command line leaves the shape of the config's own nafnet behind."""
    if backbone not in (None, "nafnet"):
        for key in NAFNET_SHAPE:
            merged.get("model", {}).pop(key, None)


def _read(name: str, above: tuple[Path, ...], beside: Path | None = None) -> dict[str, Any]:
    """The keys of a config, those of what it stands on included."""
    near = beside / name if beside is not None else None
    path = (near if near is not None and near.is_file() else find_config(name)).resolve()
    if path in above:
        raise ConfigError(f"{path}: its base leads back to it: {' -> '.join(p.name for p in (*above, path))}")
    try:
        own = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise ConfigError(f"{path}: not a readable TOML config: {e}") from None
    base = own.pop("base", None)
    if not isinstance(base, str | None):
        raise ConfigError(f"{path}: base must be the name or the file of another config")
    _refuse_unknown(TrainConfig, own, str(path), "")
    merged = _read(base, (*above, path), path.parent) if base is not None else {}
    own.setdefault("name", path.stem.removeprefix("train-"))
    _merge(merged, own)
    return merged


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    """Put the keys of ``more`` over those of ``into``, table by table."""
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of the values of nested tables."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield prefix + key


def _setting(text: str) -> dict[str, Any]:
    """``"schedule.lr=2e-4"`` as nested tables."""
    key, sign, value = text.partition("=")
    parts = key.strip().split(".")
    if not sign or not all(parts):
        raise ConfigError(f"--set {text}: must be KEY=VALUE, for example schedule.lr=2e-4")
    try:
        found: Any = tomllib.loads(f"x = {value.strip()}")["x"]
    except (tomllib.TOMLDecodeError, RecursionError):
        found = value.strip()  # a bare word
    nested: dict[str, Any] = {parts[-1]: found}
    for part in reversed(parts[:-1]):
        nested = {part: nested}
    _refuse_unknown(TrainConfig, nested, f"--set {text}", "")
    return nested


def _refuse_unknown(model: type[BaseModel], given: dict[str, Any], where: str, prefix: str) -> None:
    for key, value in given.items():
        if key not in model.model_fields:
            raise ConfigError(f"{where}: unknown key {prefix + key!r}{did_you_mean(key, model.model_fields)}")
        part = model.model_fields[key].annotation
        if isinstance(value, dict) and isinstance(part, type) and issubclass(part, BaseModel):
            _refuse_unknown(part, value, where, f"{prefix}{key}.")


def explain_validation(e: ValidationError, where: str, said: dict[str, str]) -> str:
    """One line for a person out of pydantic's report; keys are blamed on what the user ``said``, else on ``where``."""
    parts = []
    for err in e.errors():
        message = plain_message(err["msg"])
        keys = [str(p) for p in err["loc"]]
        if not keys:  # our own checks name their key themselves
            key, _, message = message.partition(": ")
            keys = [key]
        elif err["type"] != "missing":
            message += f", got {err['input']!r}"
        key = ".".join(keys)
        key = key if key.isprintable() else ascii(key)
        blamed = said.get(key) or said.get(keys[0]) or f"{where}: {key}"
        parts.append(f"{blamed}: {message}")
    return "; ".join(parts)


CONFIG_MARK = "# resolved config"
"""First line of the config.toml that a run writes."""


def dump_config(config: TrainConfig) -> str:
    """The resolved config as TOML; unset keys are left out."""
    return f"{CONFIG_MARK}\n" + tomli_w.dumps(_without_none(config.model_dump(mode="json")))


def _without_none(d: dict[str, Any]) -> dict[str, Any]:
    return {k: _without_none(v) if isinstance(v, dict) else v for k, v in d.items() if v is not None}
