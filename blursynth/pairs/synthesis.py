"""One window of source frames in, one training pair out: draws -> light -> picture -> facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from blursynth.camera.hdr import Transfer, codes_to_light, split_at_white
from blursynth.camera.noise import add_noise, parse_noise
from blursynth.camera.response import (
    HDR,
    CameraError,
    jpeg,
    load_response,
    parse_curve,
    parse_jpeg,
    translate,
)
from blursynth.pairs.flow_thumb import encode_flow_thumb
from blursynth.pairs.labels import moving_mask
from blursynth.pairs.layers import Donor
from blursynth.pairs.light import Draws, Light, LightCollector, NoExposure, OutOfReach, Window
from blursynth.pairs.quality import (
    GateError,
    clipped_share,
    failed_gate,
    heldout_db,
    parse_gate,
    score,
)
from blursynth.pairs.still import StillLight, StillReject, Stills
from blursynth.recipe import Recipe, RecipeError


@dataclass
class Sample:
    """A pair and what is known of it; images (H, W, 3) RGB, linear16 is linear light * 65535 before noise."""

    blur_rgb: np.ndarray
    sharp_rgb: np.ndarray
    linear16: np.ndarray | None
    exposure: dict[str, Any]
    camera: dict[str, Any]
    flow: dict[str, Any]
    quality: dict[str, Any]
    rejected: str | None
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    """flow: float16 (H, W, 2), and mask: uint8 (H, W), as the recipe asks (`labels`)."""
    corner: tuple[int, int] | None = None  # of a crop of a still: its x, y in the picture
    donated: tuple[bool, ...] = ()
    """Of each layer over a still, whether its donor gave it; else the still itself did."""

    @classmethod
    def left_out(cls, reason: str, **measured: float) -> Sample:
        """No pair, why, and by what figures."""
        none = np.empty((0, 0, 3), np.uint8)
        return cls(none, none, None, {}, {}, {}, {k: round(float(v), 4) for k, v in measured.items()}, reason)


@dataclass(frozen=True)
class Picture:
    """The pair as the camera delivers it, RGB uint8 (H, W, 3), and what the noise was."""

    blur: np.ndarray
    sharp: np.ndarray
    noise: dict[str, Any] | None


class Synthesizer:
    """Makes samples by one recipe; keeps the flows of pairs that later windows cross."""

    def __init__(self, recipe: Recipe, rife_weights: str | None = None):
        """Raises RecipeError naming the setting that cannot be used (curve, gate, weights...)."""
        self.recipe = recipe
        self.named = recipe.named()  # what samples tell: no folder of this machine
        try:
            self.curve = parse_curve(recipe.crf)
            if recipe.crf_out in HDR:
                raise CameraError(
                    f"crf_out {recipe.crf_out!r}: pictures of 8 bits cannot hold it; choose srgb"
                )
            self.camera = load_response(recipe.crf_out) if recipe.crf_out else None
            self.gates = parse_gate(recipe.gate)
            self.noise = parse_noise(recipe.noise)
        except (CameraError, GateError) as e:
            raise RecipeError(str(e)) from None
        self.jpeg = parse_jpeg(recipe.jpeg)
        self.light = LightCollector(recipe, rife_weights)
        self.stills = Stills(recipe, self.light.highlights, self.light.profile)

    def sample(
        self,
        clip_id: str,
        frames: Sequence[np.ndarray],
        first: int,
        fps: float | None,
        rng: np.random.Generator,
        stride: int | None = None,
        transfer: str = "srgb",
        above: Sequence[np.ndarray | None] = (),
    ) -> Sample:
        """The pair of one window; frames are RGB uint8 (H, W, 3), frames[i] is source frame first + i.

        Film that holds more than SDR comes as sRGB codes and the light above white: its ``transfer`` (pq, hlg, linear)
        and, for each frame, ``above``, float16 (H, W, 3) in units of white or None.
        """
        window = Window(clip_id, frames, first, fps, stride or self.recipe.stride or len(frames), above)
        draws = self._draw(rng)
        try:
            light = self.light.collect(window, draws)
        except OutOfReach as e:
            return Sample.left_out("blur_px", least_px=e.least, most_px=e.most)
        except NoExposure as e:
            return Sample.left_out("readout_ms", most_ms=e.most_ms)
        picture = self._photograph(frames, draws, light)
        return self._describe(window, draws, light, picture, transfer)

    def still(self, codes: np.ndarray, rng: np.random.Generator, donors: Sequence[Donor] = ()) -> Sample:
        """A pair of one picture under a drawn shake; codes: RGB uint8 or uint16 (H, W, 3), the same array for all
        samples of a picture. donors: a picture for each layer that moves over it (`Stills.collect`)."""
        draws = self._draw(rng)
        try:
            light = self.stills.collect(codes, draws, rng, donors)
        except StillReject as e:
            return Sample.left_out(str(e), **e.measured)
        picture = self._photograph([light.near], draws, light)
        return self._describe_still(draws, light, picture)

    def forget(self, clip_id: str, before: int) -> None:
        """Drop cached flows of the clip's pairs that start before this frame."""
        self.light.forget(clip_id, before)

    def _draw(self, rng: np.random.Generator) -> Draws:
        """Every draw, in this order, whatever the recipe uses: a sample's draws never depend on options."""
        duty, highlight, quality, curve = rng.random(4)
        noise, shake = (np.random.default_rng(rng.integers(0, 2**63, size=4)) for _ in range(2))
        streak = shake.spawn(1)[
            0
        ].random()  # a stream of its own: what is drawn from rng next stays what it was
        low, high = self.jpeg or (0, 0)
        return Draws(
            duty=self.recipe.draw_duty(duty),
            highlight=self.light.highlights.draw(highlight),
            jpeg=low + int(quality * (high - low + 1)) if self.jpeg else None,
            response=self.curve.draw(curve),
            noise=noise,
            shake=shake,
            streak=streak,
        )

    def _photograph(self, frames: Sequence[np.ndarray], draws: Draws, light: Light | StillLight) -> Picture:
        """Noise, response curve and JPEG of the camera."""
        blur, noise = add_noise(
            light.linear, draws.response, self.noise, frames, draws.noise, light.effective_frames, self.camera
        )  # fmt: skip
        sharp = light.sharp if self.camera is None else translate(light.sharp, draws.response, self.camera)
        if draws.jpeg is not None:
            blur = jpeg(blur, draws.jpeg)
            if self.recipe.target_camera == "jpeg":
                sharp = jpeg(sharp, draws.jpeg)
        return Picture(blur, sharp, noise)

    def _describe(
        self, window: Window, draws: Draws, light: Light, picture: Picture, transfer: str
    ) -> Sample:
        """The pair with the groups of its JSON (`shards.schema`), and whether a gate keeps it out."""
        recipe, frames, fps = self.recipe, window.frames, window.fps
        count, centre = len(frames), window.centre
        plain, rife = recipe.interp == "none", self.light.integrator.rife
        duty = round(light.spent / window.stride, 4)
        exposure = {
            "window": count,
            "stride": window.stride,
            "fps_up": recipe.fps_up,
            "interp": recipe.interp,
            "profile": self.named.profile,
            "shutter_ms": round(1000 * light.spent / fps, 4) if fps else None,
            "duty": duty,
            "readout_ms": recipe.readout_ms,
            "substeps": light.substeps,
            "blur_px": light.blur_px,
            "shake": light.shake,
            **({"rife_sha256": rife.sha256} if rife else {}),
            **({"integrator": light.integrator} if light.integrator else {}),
        }
        flow = light.motion.summary() | encode_flow_thumb(light.motion.mean_flow())
        held = None if plain else heldout_db(*frames[centre - 1 : centre + 2])
        clipped = 0.0 if window.above else clipped_share(frames)  # code 255 has not lost its light there
        scores: dict[str, Any] = {"score": score(flow, held), "heldout_db": held, "clipped": clipped}
        flags = {
            "duty>1": duty > 1,
            # Under a readout the target is the middle itself.
            "off-centre": count % 2 == 0 and not recipe.readout_ms,
            "clipped": clipped > 0.02,
            "fast": flow["max_px"] > 2 * recipe.fps_up,
            "still": flow["p95_px"] < 0.25,
        }
        return Sample(
            blur_rgb=picture.blur,
            sharp_rgb=picture.sharp,
            linear16=self._stored(light),
            exposure=exposure,
            camera=self._camera(draws, picture, transfer, restored=not window.above),
            flow=flow,
            quality=scores | {"flags": [name for name, on in flags.items() if on]},
            # A plain mean uses no flow: its statistics are for people, not for gates.
            rejected=failed_gate(self.gates, scores if plain else scores | flow),
            labels=self._labels(light),
        )

    def _labels(self, light: Light | StillLight) -> dict[str, np.ndarray]:
        if light.content is None:
            return {}
        flow, length = light.content
        both = {"flow": flow.astype(np.float16), "mask": moving_mask(length)}
        return {name: both[name] for name in self.recipe.labels.split(",")}

    def _describe_still(self, draws: Draws, light: StillLight, picture: Picture) -> Sample:
        """The same of a still: it has no frames before and after, so no time and no flow."""
        exposure = {
            "window": 1,
            "stride": 1,
            "fps_up": 1,
            "interp": "none",
            "profile": self.named.profile,
            "shutter_ms": None,
            "duty": None,
            "readout_ms": 0.0,
            "substeps": {"mean": float(light.exposure.samples), "max": light.exposure.samples},
            "blur_px": light.blur_px,
            "shake": light.shake,
            **({"layers": light.layers} if light.layers else {}),
        }
        clipped = clipped_share([light.sharp])
        scores: dict[str, Any] = {"score": 1.0, "heldout_db": None, "clipped": clipped}
        return Sample(
            blur_rgb=picture.blur,
            sharp_rgb=picture.sharp,
            linear16=self._stored(light),
            exposure=exposure,
            camera=self._camera(draws, picture, "srgb", restored=True),
            flow=dict.fromkeys(("median_px", "p95_px", "max_px", "fb_error_px", "occluded")),
            quality=scores | {"flags": ["clipped"] if clipped > 0.02 else []},
            rejected=failed_gate(self.gates, scores),
            corner=light.corner,
            donated=light.donated,
            labels=self._labels(light),
        )

    def _camera(self, draws: Draws, picture: Picture, transfer: str, restored: bool) -> dict[str, Any]:
        curve = self.named.crf if self.curve.gammas is None else draws.response.name
        curve = transfer if curve == "auto" or curve in HDR else curve  # EXR is linear, whatever crf says
        return {
            "crf": self.named.crf_out or curve,
            "highlights": round(draws.highlight, 6) if draws.highlight and restored else None,
            "noise": picture.noise,
            "jpeg": draws.jpeg,
            **({"crf_source": curve} if self.recipe.crf_out else {}),
        }

    def _stored(self, light: Light | StillLight) -> np.ndarray | None:
        if self.recipe.store != "linear16":
            return None
        return np.rint(np.clip(light.linear, 0, 1) * 65535).astype(np.uint16)


def integrate_exposure(
    frames: Sequence[np.ndarray], recipe: Recipe | None = None, fps: float | None = None
) -> np.ndarray:
    """The long exposure that consecutive frames stand for: RGB uint8 (H, W, 3) each -> RGB uint8 (H, W, 3).

    Frames and result are display-encoded; with crf pq, hlg or linear the frames are in that, the result in sRGB. recipe: how,
    by default the keys' own defaults (deepflow, no noise); its draws (duty, highlights, noise) come from its seed. fps: frames
    a second, for a recipe with ``readout_ms``. Raises ValueError for fewer than 3 frames, frames of unequal shape
    or less motion than ``blur_px`` asks for, RecipeError for a recipe that cannot be used.
    """
    recipe = recipe or Recipe()
    if len(frames) < 3:
        raise ValueError(f"an exposure needs at least 3 frames, got {len(frames)}")
    for f in frames:
        if f.dtype != np.uint8 or f.ndim != 3 or f.shape != frames[0].shape or f.shape[2] != 3:
            raise ValueError(f"frames must be uint8 (H, W, 3) of one shape, got {f.dtype} {f.shape}")
    rng = np.random.default_rng(recipe.seed)
    maker = Synthesizer(recipe)
    more: dict[str, Any] = {}
    if recipe.crf in HDR:
        curve = cast(Transfer, recipe.crf)
        frames, above = zip(*(split_at_white(codes_to_light(f, curve, "bt709")) for f in frames), strict=True)
        more = {"transfer": curve, "above": above}
    made = maker.sample("frames", frames, 0, fps or recipe.fps, rng, **more)
    if made.rejected == "readout_ms":
        most_ms = made.quality["most_ms"]
        raise RecipeError(
            f"readout_ms {recipe.readout_ms:g}: these frames last {most_ms:.4g} ms; give less than that"
        )
    if not made.blur_rgb.size:
        least, most = made.quality["least_px"], made.quality["most_px"]
        raise ValueError(f"blur_px {recipe.blur_px}: these frames give {least:g} to {most:g} px")
    return made.blur_rgb
