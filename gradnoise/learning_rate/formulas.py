"""From numbers to a verdict: temperature, limits of the learning rate, regime.

Pure functions of numbers. Smith, Elsen and De 2020 (arXiv:2006.15081): below the noise scale SGD
is governed by its temperature ε/B, above it by the curvature λ.
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
    """ε/(1 - m): the learning rate of plain SGD that drifts as fast.

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

    The scale of SGD's noise (arXiv:2006.15081): runs of equal T behave alike while noise
    dominates.

    Args:
        lr: ε.
        batch_size: B, in samples.
        momentum: m in [0, 1).
        population: N in samples; None for ∞.

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
    """The largest learning rate at which full-batch descent is stable on a bowl of curvature λ.

    "sgd" (heavy ball, dampening 0): 2(1 + m)/λ; "nesterov": 2(1 + m)/(λ(1 + 2m)); "adam":
    2(1 + β₁)/((1 - β₁)λ) with λ of the preconditioned Hessian (arXiv:2103.00065, 2207.14484);
    "nadam": 2(1 + β₁)/((1 - β₁)(1 + 2β₁)λ), Nesterov's form of it.

    Args:
        sharpness: λ; zero or less sets no limit.
        optimizer: "sgd", "nesterov", "adam" or "nadam".
        momentum: m, or β₁ for "adam" and "nadam".

    Returns:
        The learning rate, ∞ when λ <= 0.

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
    says what speed is to be had, and is no guarantee of stability. With heavy ball it is
    (2(1 + m)/λ)/(1 + (1 + m)/(1 - m)·B_noise/B): that of plain SGD times 1 - m where noise
    dominates, where runs of equal ε/(1 - m) behave alike, and times 1 + m where curvature does.
    The other optimizers have the form of `mean_square_lr`, with B_noise in place of B_curv.

    Args:
        sharpness: λ; zero or less sets no limit.
        noise_scale: B_noise in samples, ∞ allowed.
        batch_size: B in samples.
        optimizer, momentum: as for `stable_lr`.

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
    """ε_opt(B) = (|G|²/GᵀHG)/(1 + B_noise/B): the one step that lowers the loss most.

    The expected loss rises in one step beyond twice this (arXiv:1812.06162, eq. 2.7).

    Args:
        grad_sq_norm, grad_curvature: |G|² and GᵀHG, both positive.
        noise_scale: B_noise in samples, ∞ allowed.
        batch_size: B in samples.

    Raises:
        ArgumentError: an argument out of range.

    Example:
        >>> greedy_lr(1.0, 4.0, noise_scale=32, batch_size=32)
        0.125
    """
    signal = positive("grad_sq_norm", grad_sq_norm)
    curvature = positive("grad_curvature", grad_curvature)
    scale = not_negative("noise_scale", noise_scale)
    return _damped(signal / curvature, scale / positive("batch_size", batch_size))


def mean_square_lr(
    sharpness: float,
    curvature_noise_scale: float,
    batch_size: float,
    population: float = math.inf,
    optimizer: str = "sgd",
    momentum: float = 0.0,
) -> float:
    """Upper bound (2/λ)/(1 + p·B_curv) on the mean-square stable rate, p = 1/B - 1/N.

    Beyond it the second moment of SGD grows along the sharpest direction, because the batches
    disagree about its curvature: B_curv = Var_i(vᵀH_iv)/λ² with 1/(n - 1) (after Mulayoff and
    Michaeli 2024, arXiv:2306.07850). With heavy ball (2(1 + m)/λ)/(1 + (1 + m)/(1 - m)·p·B_curv):
    the knee lies at a (1 + m)/(1 - m) times larger batch. All forms are exact where the curvature
    of one direction is drawn anew in every step (docs/theory/stability.md).

    Args:
        sharpness: λ; zero or less sets no limit.
        curvature_noise_scale: B_curv in samples.
        batch_size: B, at most N.
        population: N.
        optimizer, momentum: as for `stable_lr`.

    Raises:
        ArgumentError: an argument out of range.

    Example:
        >>> mean_square_lr(4.0, curvature_noise_scale=3.0, batch_size=1)
        0.125
    """
    scale = not_negative("curvature_noise_scale", curvature_noise_scale)
    share = temperature(1.0, batch_size, population=population)
    noise = share * scale if share else 0.0  # the whole population, whatever its scale
    return _limit(sharpness, noise, optimizer, momentum)


def scale_lr(lr: float, batch_size: float, new_batch_size: float, rule: str = "linear") -> float:
    """The learning rate for another batch size.

    "linear": ε B'/B, SGD while noise dominates; "sqrt": ε√(B'/B), Adam and RMSprop
    (arXiv:2205.10287); "none": ε, past the knee.

    Raises:
        ArgumentError: an argument out of range.

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
    """On which side of the noise scale a batch size lies.

    Args:
        batch_size: B in samples.
        noise_scale: B_noise as a number, or as an Estimate whose whole interval has to lie on
            one side.

    Returns:
        "noise-dominated" (B below), "curvature-dominated" (B above), or "unresolved".

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


def _damped(limit: float, ratio: float) -> float:
    return limit / (1 + ratio) if math.isfinite(ratio) else 0.0


def capped(batch_size: Any, population: float) -> float:
    """B, at most N: a larger batch is the whole population."""
    return float(min(positive("batch_size", batch_size), population))


def _momentum(momentum: Any) -> float:
    value = number("momentum", momentum)
    if not 0 <= value < 1:
        raise ArgumentError(f"`momentum` must be at least 0 and below 1; got {momentum!r}")
    return value
