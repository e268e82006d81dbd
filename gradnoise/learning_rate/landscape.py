"""Three limits of the learning rate side by side, and what follows where they disagree.

They are different statements (docs/theory/stability.md). The noise-scale rule says what speed is
to be had, the one-step limit where the loss rises in a single step, the mean-square limit where a
run diverges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import positive
from ..statistics.estimate import Estimate, Status, short
from ..statistics.transform import falling, monotone, scaled, undefined
from .formulas import greedy_lr, max_lr, mean_square_lr, stable_lr
from .mean_square import CurvatureSpread
from .update_rule import Momentum

APART = 2.0  # limits within this factor of each other agree


@dataclass(frozen=True)
class Limits:
    """The limits of the learning rate at one batch size.

    Args:
        batch_size: B in samples.
        noise_scale_rule: (2/λ)/(1 + B_noise/B); beyond it noise eats the gain of a step.
        one_step: 2ε_opt(B), shared out over the steps that momentum takes for one gradient; beyond
            it the expected loss rises in one step.
        mean_square: beyond it the mean square of the weights grows from step to step.
    """

    batch_size: float
    noise_scale_rule: Estimate
    one_step: Estimate
    mean_square: Estimate

    @property
    def reading(self) -> str:
        """One sentence on how the limits compare."""
        rule, square = self.noise_scale_rule, self.mean_square
        where = f"At B = {self.batch_size:g}"
        if Status.NEGATIVE_CURVATURE in (rule.status, square.status):
            return f"{where} no limit holds: the loss curves downwards."
        if not (rule.is_resolved and square.is_resolved):
            if square.is_resolved:
                return (
                    f"{where} a run diverges beyond {short(float(square))}; what speed noise "
                    f"leaves below it is not resolved."
                )
            return f"{where} the limits cannot be compared: measure more samples."
        ratio = float(square) / float(rule) if float(rule) else float("inf")
        if ratio > APART:
            return (
                f"{where} a run stays bounded up to {short(float(square))}, {short(ratio)} times "
                f"the noise-scale rule: between, noise slows it down and nothing diverges."
            )
        if ratio < 1 / APART:
            return (
                f"{where} a run diverges beyond {short(float(square))}, {short(1 / ratio)} times "
                f"below the noise-scale rule: samples disagree about the curvature."
            )
        return f"{where} the limits agree within a factor {short(max(ratio, 1 / ratio))}."


@dataclass(frozen=True)
class Landscape:
    """What limits a step where a model stands.

    Args:
        grad_sq_norm, grad_curvature, trace_hessian_cov: |G|², GᵀHG, tr(HΣ).
        noise_scale, sharpness, curvature_noise_scale: B_noise, λ, B_curv.
        population: N.
        spread: of the curvature in more directions than the sharpest, where it was measured.
        optimizer: which form the limits have, as for `gn.stable_lr`.
        momentum: m, or β₁.
    """

    grad_sq_norm: Estimate
    grad_curvature: Estimate
    trace_hessian_cov: Estimate
    noise_scale: Estimate
    sharpness: Estimate
    curvature_noise_scale: Estimate
    population: float
    spread: CurvatureSpread | None = None
    optimizer: str = "sgd"
    momentum: float = 0.0

    @property
    def stable_lr(self) -> Estimate:
        """The limit of full-batch descent."""
        return falling(
            lambda sharpness: stable_lr(sharpness, self.optimizer, self.momentum), self.sharpness
        )

    def max_lr(self, batch_size: float) -> Estimate:
        """The noise-scale rule."""
        return falling(
            lambda sharpness, scale: max_lr(
                sharpness, scale, batch_size, self.optimizer, self.momentum
            ),
            self.sharpness,
            self.noise_scale,
        )

    def greedy_lr(self, batch_size: float) -> Estimate:
        """ε_opt(B) of a single step without momentum."""
        parts = self.grad_sq_norm, self.grad_curvature, self.trace_hessian_cov, self.noise_scale
        return _greedy(*parts, batch_size)

    def mean_square_lr(self, batch_size: float) -> Estimate:
        """The mean-square limit: of the sharpest direction, less what the others take off."""
        share = 1 / positive("batch_size", batch_size) - 1 / self.population
        alone = falling(
            lambda sharpness, scale: mean_square_lr(
                sharpness, scale, batch_size, self.population, self.optimizer, self.momentum
            ),
            self.sharpness,
            self.curvature_noise_scale,
        )
        if self.spread is None or self.spread.directions == 1:
            return alone
        return scaled(alone, self.spread.reduction(share, self.optimizer, self.momentum))

    def limits(self, batch_size: float) -> Limits:
        """All of them at one batch size."""
        drift = Momentum.of(self.optimizer, self.momentum).drift
        return Limits(
            batch_size,
            self.max_lr(batch_size),
            scaled(self.greedy_lr(batch_size), 2 / drift),
            self.mean_square_lr(batch_size),
        )

    def noise_interaction(self, batch_size: float) -> Estimate:
        """E[g_BᵀHg_B]/|G|² = 1/ε_opt(B), gradient-noise interaction: how soon noise bends a step.

        Twice it is where a single step stops to lower the loss; no certificate of stability.
        """
        return monotone(lambda lr: 1 / lr if lr else math.inf, self.greedy_lr(batch_size))

    def steps(self, batch_size: float) -> Estimate:
        """Steps of a run over the fewest that any batch takes: S/S_min = 1 + B_noise/B."""
        size = positive("batch_size", batch_size)
        return monotone(lambda scale: 1 + scale / size, self.noise_scale)

    def samples(self, batch_size: float) -> Estimate:
        """Samples of a run over the fewest that any batch takes: E/E_min = 1 + B/B_noise."""
        size = positive("batch_size", batch_size)
        return monotone(lambda scale: 1 + size / scale if scale else math.inf, self.noise_scale)

    def speed(self, lr: float, batch_size: float) -> float:
        """What a step is expected to gain, of the most that any step here can: ΔL/ΔL_max.

        (2x - x²)/(1 + B_noise/B) with x = ε/((1 - m) ε_opt(B)); negative where the loss is expected
        to rise, nan where it cannot be told.
        """
        drift = Momentum.of(self.optimizer, self.momentum).drift
        x = positive("lr", lr) * drift / float(self.greedy_lr(batch_size))
        return x * (2 - x) / float(self.steps(batch_size))


def _greedy(
    signal: Estimate, curvature: Estimate, trace: Estimate, scale: Estimate, batch_size: float
) -> Estimate:
    """ε_opt(B) = |G|²/(GᵀHG + tr(HΣ)/B) from |G|², GᵀHG, tr(HΣ) and their B_noise."""
    batch_size = positive("batch_size", batch_size)
    if scale.status is Status.NEGATIVE_CURVATURE:
        return undefined(scale)
    least = curvature.low + trace.low / batch_size
    most = curvature.high + trace.high / batch_size
    low = max(signal.low, 0.0) / most if most > 0 else 0.0
    high = signal.high / least if least > 0 and signal.high > 0 else math.inf
    value = math.nan
    if scale.is_resolved and float(signal) > 0:
        value = greedy_lr(float(signal), float(curvature), float(scale), batch_size)
        low, high = min(low, value), max(high, value)  # where all is exact, but for rounding
    status = signal.status if not signal.is_resolved else scale.status
    return Estimate(value, low, high, signal.level, math.nan, signal.samples, status)
