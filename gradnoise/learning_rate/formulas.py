"""Temperature, limits of the learning rate and regime, from measured numbers.

Pure functions of numbers. Units: sharpness λ in loss/parameter²; learning rates ε in
parameter²/loss; |G|² in loss²/parameter², GᵀHG in loss³/parameter⁴; noise scales B_noise, B_curv,
batch sizes B and the population N in samples. Smith, Elsen and De 2020 (arXiv:2006.15081): for B
below the noise scale SGD is governed by its temperature ε/B, above it by the curvature λ.
"""

from __future__ import annotations

import math
from typing import Any

from ..errors import ArgumentError, finite, not_negative, number, positive
from ..statistics.estimate import Estimate, Status
from .update_rule import Momentum

NOISE_DOMINATED = "noise-dominated"
CURVATURE_DOMINATED = "curvature-dominated"
UNRESOLVED = "unresolved"


def effective_lr(lr: float, momentum: float = 0.0) -> float:
    """ε/(1 - m): SGD without momentum moves as far per step, on average, at this learning rate.

    Heavy ball (dampening 0) and Nesterov add every gradient 1/(1 - m) times in the end (Smith and
    Le 2018, arXiv:1710.06451).

    Args:
        lr: ε in parameter²/loss.
        momentum: m in [0, 1).

    Returns:
        The effective learning rate, in parameter²/loss.

    Raises:
        ArgumentError: lr not positive, or momentum outside [0, 1).

    Example:
        >>> effective_lr(0.1, momentum=0.5)
        0.2
    """
    return positive("lr", lr) / (1 - _momentum(momentum))


def temperature(
    lr: float, batch_size: float, momentum: float = 0.0, population: float | None = None
) -> float:
    """T = ε/(B(1 - m)), or ε/(1 - m)·(1/B - 1/N) for batches without replacement from N.

    The scale of the noise of SGD (arXiv:2006.15081): while noise dominates, runs of equal T have
    the same distribution of losses.

    Args:
        lr: ε in parameter²/loss.
        batch_size: B in samples.
        momentum: m in [0, 1).
        population: N in samples; None for ∞.

    Returns:
        T in parameter²/(loss·sample).

    Raises:
        ArgumentError: an argument out of range, or a batch larger than the population.

    Example:
        >>> temperature(0.5, batch_size=32, momentum=0.5)
        0.03125
    """
    size = positive("batch_size", batch_size)
    total = math.inf if population is None else positive("population", population, finite=False)
    if size > total:
        raise ArgumentError(
            f"`batch_size` = {batch_size} is larger than `population` = {population}"
        )
    return effective_lr(lr, momentum) * (1 / size - 1 / total)


def stable_lr(sharpness: float, optimizer: str = "sgd", momentum: float = 0.0) -> float:
    """The largest learning rate at which full-batch descent is stable on a quadratic ½λw².

    "sgd" (heavy ball, dampening 0): 2(1 + m)/λ; "nesterov": 2(1 + m)/(λ(1 + 2m)); "adam":
    2(1 + β₁)/((1 - β₁)λ) with λ of the preconditioned Hessian (arXiv:2103.00065, 2207.14484);
    "nadam": 2(1 + β₁)/((1 - β₁)(1 + 2β₁)λ), the same with Nesterov's update.

    Args:
        sharpness: λ in loss/parameter²; zero or less sets no limit.
        optimizer: "sgd", "nesterov", "adam" or "nadam".
        momentum: m in [0, 1), or β₁ for "adam" and "nadam".

    Returns:
        The learning rate in parameter²/loss, ∞ when λ <= 0.

    Raises:
        ArgumentError: an argument out of range.

    Example:
        >>> stable_lr(4.0)
        0.5
        >>> stable_lr(4.0, momentum=0.5)
        0.75
    """
    return _limit(sharpness, 0.0, optimizer, momentum)


def max_lr(
    sharpness: float,
    noise_scale: float,
    batch_size: float,
    optimizer: str = "sgd",
    momentum: float = 0.0,
) -> float:
    """The noise-scale rule (2/λ)/(1 + B_noise/B).

    The full-batch limit at B ≫ B_noise, proportional to B at B ≪ B_noise (arXiv:2006.15081). It
    says how large a learning rate still speeds training up, and is no guarantee of stability. With
    heavy ball it is (2(1 + m)/λ)/(1 + (1 + m)/(1 - m)·B_noise/B): 1 - m times that of SGD without
    momentum where noise dominates (runs of equal ε/(1 - m) behave alike there), and 1 + m times
    where curvature does. For the other optimizers it is `mean_square_lr` with B_noise/B in place of
    p·B_curv.

    Args:
        sharpness: λ in loss/parameter²; zero or less sets no limit.
        noise_scale: B_noise in samples, ∞ allowed.
        batch_size: B in samples.
        optimizer, momentum: as for `stable_lr`.

    Returns:
        The learning rate in parameter²/loss: ∞ when λ <= 0, else 0 when B_noise is ∞.

    Raises:
        ArgumentError: an argument out of range.

    Example:
        >>> max_lr(4.0, noise_scale=96, batch_size=32)
        0.125
    """
    scale = not_negative("noise_scale", noise_scale)
    noise = scale / positive("batch_size", batch_size)
    return _limit(sharpness, noise, optimizer, momentum)


def greedy_lr(
    grad_sq_norm: float, grad_curvature: float, noise_scale: float, batch_size: float
) -> float:
    """ε_opt(B) = (|G|²/GᵀHG)/(1 + B_noise/B): it lowers the expected loss most in one SGD step.

    Beyond twice this the expected loss rises in that step (arXiv:1812.06162, eq. 2.7).

    Args:
        grad_sq_norm: |G|² in loss²/parameter², positive.
        grad_curvature: GᵀHG in loss³/parameter⁴, positive.
        noise_scale: B_noise in samples, ∞ allowed.
        batch_size: B in samples.

    Returns:
        The learning rate in parameter²/loss.

    Raises:
        ArgumentError: an argument out of range.

    Example:
        >>> greedy_lr(1.0, 4.0, noise_scale=32, batch_size=32)
        0.125
    """
    signal = positive("grad_sq_norm", grad_sq_norm)
    curvature = positive("grad_curvature", grad_curvature)
    scale = not_negative("noise_scale", noise_scale)
    ratio = scale / positive("batch_size", batch_size)
    return signal / curvature / (1 + ratio) if math.isfinite(ratio) else 0.0


def mean_square_lr(
    sharpness: float,
    curvature_noise_scale: float,
    batch_size: float,
    population: float = math.inf,
    optimizer: str = "sgd",
    momentum: float = 0.0,
) -> float:
    """Mean-square limit of the sharpest direction, (2/λ)/(1 + p·B_curv) with p = 1/B - 1/N.

    Beyond it the second moment of SGD grows along the sharpest direction v, because the batches
    differ in their curvature: B_curv = Var_i(vᵀH_iv)/λ² with 1/(n - 1). It is an upper bound of the
    mean-square stability threshold (Mulayoff and Michaeli 2024, arXiv:2306.07850). With heavy ball
    (2(1 + m)/λ)/(1 + (1 + m)/(1 - m)·p·B_curv): half the full-batch limit is reached at a
    (1 + m)/(1 - m) times larger batch. For every optimizer the formula is exact in one direction
    whose curvature is drawn anew in every step (docs/theory/stability.md).

    Args:
        sharpness: λ in loss/parameter²; zero or less sets no limit.
        curvature_noise_scale: B_curv in samples.
        batch_size: B in samples, at most N.
        population: N in samples.
        optimizer, momentum: as for `stable_lr`.

    Returns:
        The learning rate in parameter²/loss.

    Raises:
        ArgumentError: an argument out of range; B above N.

    Example:
        >>> mean_square_lr(4.0, curvature_noise_scale=3.0, batch_size=1)
        0.125
    """
    scale = not_negative("curvature_noise_scale", curvature_noise_scale)
    share = temperature(1.0, batch_size, population=population)
    noise = share * scale if share else 0.0  # the whole population, whatever its scale
    return _limit(sharpness, noise, optimizer, momentum)


def scale_lr(lr: float, batch_size: float, new_batch_size: float, rule: str = "linear") -> float:
    """The learning rate for another batch size B', by a scaling rule.

    Args:
        lr: ε in parameter²/loss, tuned at B.
        batch_size: B in samples.
        new_batch_size: B' in samples.
        rule: "linear": εB'/B, for SGD below the noise scale (arXiv:1706.02677); "sqrt": ε√(B'/B),
            for Adam and RMSprop below it (arXiv:2205.10287); "none": ε, above it.

    Returns:
        The learning rate at B', in parameter²/loss.

    Raises:
        ArgumentError: an argument out of range, or another rule.

    Example:
        >>> scale_lr(0.1, batch_size=32, new_batch_size=128)
        0.4
    """
    growth = positive("new_batch_size", new_batch_size) / positive("batch_size", batch_size)
    powers = {"linear": 1.0, "sqrt": 0.5, "none": 0.0}
    if rule not in powers:
        raise ArgumentError(f"`rule` must be one of {', '.join(powers)}; got {rule!r}")
    return float(positive("lr", lr) * growth ** powers[rule])


def regime(batch_size: float, noise_scale: float | Estimate) -> str:
    """Whether a batch size is below or above the noise scale (arXiv:2006.15081).

    Args:
        batch_size: B in samples.
        noise_scale: B_noise in samples, as a number, or as an Estimate whose whole interval has to
            lie on one side of B.

    Returns:
        "noise-dominated" (B < B_noise), "curvature-dominated" (B > B_noise), or "unresolved".

    Raises:
        ArgumentError: an argument out of range.

    Example:
        >>> regime(32, noise_scale=300)
        'noise-dominated'
    """
    batch_size = positive("batch_size", batch_size)
    if isinstance(noise_scale, Estimate):
        if noise_scale.status is Status.NEGATIVE_CURVATURE:
            return UNRESOLVED
        low, high = noise_scale.low, noise_scale.high
    else:
        low = high = not_negative("noise_scale", noise_scale)
    if batch_size < low:
        return NOISE_DOMINATED
    return CURVATURE_DOMINATED if batch_size > high else UNRESOLVED


def _limit(sharpness: float, noise: float, optimizer: str, momentum: float) -> float:
    curvature = finite("sharpness", sharpness)
    step = Momentum.of(optimizer, _momentum(momentum)).stable_step(noise)
    if curvature > 0:
        return step / curvature
    return math.inf if step else 0.0


def capped(batch_size: Any, population: float) -> float:
    """B, at most N: a larger batch is the whole population."""
    return float(min(positive("batch_size", batch_size), population))


def _momentum(momentum: Any) -> float:
    value = number("momentum", momentum)
    if not 0 <= value < 1:
        raise ArgumentError(f"`momentum` must be at least 0 and below 1; got {momentum!r}")
    return value
