"""One window of source frames in, one training pair out: flow -> exposure -> camera -> quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from blursynth.camera.highlights import parse_highlights
from blursynth.camera.noise import add_noise, parse_noise
from blursynth.camera.response import CameraError, jpeg, load_response, parse_curve, parse_jpeg, translate
from blursynth.exposure.backend import Integrator
from blursynth.exposure.flow import PairFlow, estimate_pair
from blursynth.exposure.shutter import Shutter, load_profile, make_shutter
from blursynth.pairs.flow_thumb import encode_flow_thumb
from blursynth.pairs.quality import (
    FlowStats,
    GateError,
    clipped_share,
    failed_gate,
    heldout_db,
    parse_gate,
    score,
)
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


class Synthesizer:
    """Makes samples by one recipe; keeps the flows of pairs that later windows cross."""

    def __init__(self, recipe: Recipe, rife_weights: str | None = None):
        """Raises RecipeError naming the setting that cannot be used (curve, gate, weights...)."""
        self.recipe = recipe
        try:
            self.curve = parse_curve(recipe.crf)
            self.camera = load_response(recipe.crf_out) if recipe.crf_out else None
            self.gates = parse_gate(recipe.gate)
            self.noise = parse_noise(recipe.noise)
        except (CameraError, GateError) as e:
            raise RecipeError(str(e)) from None
        self.response = self.curve.response  # of the sample at work
        self.highlights = parse_highlights(recipe.highlights)
        self.profile = load_profile(recipe.profile)
        self.integrator = Integrator(recipe, rife_weights)
        self.flows: dict[tuple[str, int], PairFlow] = {}

    def sample(
        self,
        clip_id: str,
        frames: Sequence[np.ndarray],
        first: int,
        fps: float | None,
        rng: np.random.Generator,
        stride: int | None = None,
    ) -> Sample:
        """The pair of one window; frames are RGB uint8 (H, W, 3), frames[i] is source frame first + i."""
        recipe = self.recipe
        count = len(frames)
        centre = (count - 1) // 2
        stride = stride or recipe.stride or count
        # Every draw happens here, in this order, whatever the recipe uses: a sample's draws never depend on options.
        draws = rng.random(4)
        noise_rng = np.random.default_rng(rng.integers(0, 2**63, size=4))
        duty = recipe.draw_duty(draws[0])
        highlight = self.highlights.draw(draws[1])
        self.response = self.curve.draw(draws[3])
        curve = recipe.crf if self.curve.gammas is None else self.response.name

        stats = FlowStats()
        if recipe.interp == "none":
            linear, sharp, exposure = self._plain_mean(frames, highlight, stats)
        else:
            readout = recipe.readout_ms / 1000 * fps if fps else 0.0
            try:
                shutter = make_shutter(frames[0].shape[0], count - 1, duty, readout, self.profile)
            except ValueError as e:
                raise RecipeError(f"readout_ms {recipe.readout_ms}: {e}") from None
            linear, sharp, exposure = self._integrate(
                clip_id, frames, first, shutter, highlight, stats, centre, readout
            )

        blur, noise_meta = add_noise(
            linear, self.response, self.noise, frames, noise_rng, exposure["effective_frames"], self.camera
        )
        if self.camera is not None:
            sharp = translate(sharp, self.response, self.camera)
        quality_span = parse_jpeg(recipe.jpeg)
        jpeg_quality = None
        if quality_span:
            jpeg_quality = quality_span[0] + int(draws[2] * (quality_span[1] - quality_span[0] + 1))
            blur = jpeg(blur, jpeg_quality)
            if recipe.target_camera == "jpeg":
                sharp = jpeg(sharp, jpeg_quality)
        flow = stats.summary() | encode_flow_thumb(stats.mean_flow())
        held = heldout_db(*frames[centre - 1 : centre + 2]) if recipe.interp != "none" else None
        clipped = clipped_share(frames)
        # N frames averaged hold N frames' light. Interpolated light runs from one frame's own exposure to another's,
        # so the source's open time (its interval less the dead time) adds to the shutter.
        spent = (count - 1) * duty + recipe.source_duty if recipe.interp != "none" else count
        ratio = round(spent / stride, 4)
        quality: dict[str, Any] = {"score": score(flow, held), "heldout_db": held, "clipped": clipped}
        # A plain mean uses no flow: its statistics are for people, not for gates.
        rejected = failed_gate(self.gates, quality if recipe.interp == "none" else quality | flow)
        quality["flags"] = [
            name
            for name, on in (
                ("duty>1", ratio > 1),
                ("off-centre", count % 2 == 0),
                ("clipped", clipped > 0.02),
                ("fast", flow["p95_px"] > 2 * recipe.fps_up),
                ("still", flow["p95_px"] < 0.25),
            )
            if on
        ]
        meta = {
            "window": count,
            "stride": stride,
            "fps_up": recipe.fps_up,
            "interp": recipe.interp,
            "profile": recipe.profile,
            "shutter_ms": round(1000 * spent / fps, 4) if fps else None,
            "duty": ratio,
            "readout_ms": recipe.readout_ms,
            "substeps": exposure["substeps"],
        }
        if self.integrator.rife is not None:
            meta["rife_sha256"] = self.integrator.rife.sha256
        camera = {
            "crf": recipe.crf_out or curve,
            "highlights": round(highlight, 6) if highlight else None,
            "noise": noise_meta,
            "jpeg": jpeg_quality,
        }
        if recipe.crf_out:
            camera["crf_source"] = curve
        stored = None
        if recipe.store == "linear16":
            stored = np.rint(np.clip(linear, 0, 1) * 65535).astype(np.uint16)
        return Sample(blur, sharp, stored, meta, camera, flow, quality, rejected)

    def forget(self, clip_id: str, before: int) -> None:
        """Drop cached flows of the clip's pairs that start before this frame."""
        for key in [k for k in self.flows if k[0] == clip_id and k[1] < before]:
            del self.flows[key]

    def _pair(self, clip_id: str, i: int, a: np.ndarray, b: np.ndarray) -> PairFlow:
        key = (clip_id, i)
        if key not in self.flows:
            self.flows[key] = self.integrator.flows(a, b)
        return self.flows[key]

    def _light(self, frame: np.ndarray, highlight: float) -> np.ndarray:
        """Linear light of one frame with what its clipped samples had above white, float32 (H, W, 4)."""
        return self.response.decode(frame, self.highlights.excess(frame, highlight))

    def _integrate(
        self, clip_id: str, frames: Sequence[np.ndarray], first: int, shutter: Shutter, highlight: float,
        stats: FlowStats, centre: int, readout: float,
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:  # fmt: skip
        """Exposure of the light between the frames; the target is the centre frame, or, under a rolling shutter,
        the centre instant of each row."""
        h, w = frames[0].shape[:2]
        exposure = self.integrator.collect(frames, shutter)
        instant = None
        if readout:
            moment = (len(frames) - 1) / 2 + readout * ((np.arange(h) + 0.5) / h - 0.5)
            at = Shutter(
                (moment - 5e-4).astype(np.float32), (moment + 5e-4).astype(np.float32), np.ones(2, np.float32)
            )
            instant = self.integrator.collect(frames, at)
        light, smooth = self.integrator.place(self._light(frames[0], highlight), highlight > 0)
        for i in range(len(frames) - 1):
            pair = self._pair(clip_id, first + i, frames[i], frames[i + 1])
            stats.add(pair.forward, pair.backward)
            next_light, next_smooth = self.integrator.place(
                self._light(frames[i + 1], highlight), highlight > 0
            )
            exposure.add(i, (light, next_light), (smooth, next_smooth), pair.forward, pair.backward)
            if instant is not None:  # one moment has one phase: the pre-filter would sharpen it
                instant.add(i, (light, next_light), (light, next_light), pair.forward, pair.backward)
            light, smooth = next_light, next_smooth
            if (self.recipe.stride or len(frames)) >= len(frames) - 1:
                self.flows.pop((clip_id, first + i), None)  # no other window crosses this pair
        span = float(np.mean(shutter.stop - shutter.start))
        steps = exposure.steps / (h * w * max(span, 1e-6))
        sharp = frames[centre].copy() if instant is None else self.response.encode(instant.linear())
        return exposure.linear(), sharp, {
            "substeps": {"mean": round(steps, 3), "max": exposure.longest},
            # A moving pixel meets other pixels at each sub-step: measured on noise moved by 0 to 32 px a frame.
            "effective_frames": span * (1 + 1.7 * (max(steps, 1) - 1)),
        }  # fmt: skip

    def _plain_mean(
        self, frames: Sequence[np.ndarray], highlight: float, stats: FlowStats
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """Mean of the N frames in the response's domain (GoPro's recipe with crf display); exact for 8-bit codes."""
        c = (len(frames) - 1) // 2
        pair = estimate_pair("dis", frames[c], frames[c + 1], 0.25)
        stats.add(pair.forward, pair.backward)
        if self.recipe.crf == "display":
            # Integers sum exactly; the light of the mean code encodes to round(mean).
            total = np.zeros(frames[0].shape, np.int64)
            for f in frames:
                total += f
            linear: np.ndarray = (total / (255.0 * len(frames))).astype(np.float32)
            for f in frames if highlight else ():
                excess = self.highlights.excess(f, highlight)
                linear += (excess if isinstance(excess, np.ndarray) else excess * (f == 255)) / np.float32(
                    len(frames)
                )
        else:
            acc = np.zeros((*frames[0].shape[:2], 4), np.float32)
            for f in frames:
                acc = cv2.add(acc, self._light(f, highlight))
            linear = acc[..., :3] / np.float32(len(frames))
        return (
            linear,
            frames[c].copy(),
            {"substeps": {"mean": 1.0, "max": 1}, "effective_frames": float(len(frames))},
        )


def integrate_exposure(
    frames: Sequence[np.ndarray], recipe: Recipe | None = None, fps: float | None = None
) -> np.ndarray:
    """The long exposure that consecutive frames stand for: RGB uint8 (H, W, 3) each -> RGB uint8 (H, W, 3).

    The recipe's draws (duty, highlights, noise) come from its seed. Raises ValueError for fewer than 3 frames or
    frames of unequal shape, RecipeError for a recipe that cannot be used.
    """
    recipe = recipe or Recipe()
    if len(frames) < 3:
        raise ValueError(f"an exposure needs at least 3 frames, got {len(frames)}")
    for f in frames:
        if f.dtype != np.uint8 or f.ndim != 3 or f.shape != frames[0].shape or f.shape[2] != 3:
            raise ValueError(f"frames must be uint8 (H, W, 3) of one shape, got {f.dtype} {f.shape}")
    rng = np.random.default_rng(recipe.seed)
    return Synthesizer(recipe).sample("frames", frames, 0, fps, rng).blur_rgb
