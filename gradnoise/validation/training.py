"""Limits of the learning rate and the laws of training, against the exact dynamics of SGD."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import astuple

import torch

from ..learning_rate.formulas import effective_lr, mean_square_lr, stable_lr, temperature
from ..learning_rate.mean_square import CurvatureSpread
from ..learning_rate.update_rule import Momentum
from ..profiles.profile import profile
from ..statistics.quantile import quantile
from ..toy import (
    FiniteLeastSquares,
    NoisyQuadraticModel,
    RandomCurvature,
    diverging_lr,
    stationary_covariance,
)
from .check import LEVEL, Check, exact, statistical
from .noise import REGRESSION, REGRESSION_NAME

MODEL_NAME = "noisy quadratic model"
OPTIMIZERS = (("sgd", 0.0), ("sgd", 0.9), ("nesterov", 0.9), ("adam", 0.9), ("nadam", 0.9))


def limits(seed: int) -> Iterator[Check]:
    """The formulas for every optimizer, against the spectral radius of the exact dynamics."""
    law = RandomCurvature(2.0, 3.0)
    toy, spread = finite(seed)
    for name, momentum in OPTIMIZERS:
        label = name if not momentum else f"{name} {momentum:g}"
        found, truth = stable_lr(4.0, name, momentum), diverging_lr(4.0, name, momentum)
        yield exact("quadratic bowl", f"full-batch limit, {label}", truth, found)
        found = mean_square_lr(2.0, 9 / 4, 4, optimizer=name, momentum=momentum)
        truth = law.mean_square_lr(4, name, momentum)
        yield exact("random curvature", f"mean-square limit, B = 4, {label}", truth, found)
        truth = toy.mean_square_lr(2, name, momentum)
        limit = spread.stable_lr(1 / 2 - 1 / 12, name, momentum)
        yield exact("finite least squares", f"mean-square limit, B = 2, {label}", truth, limit)


def finite(seed: int) -> tuple[FiniteLeastSquares, CurvatureSpread]:
    """Twelve samples in three dimensions, and the spread of their curvature."""
    source = torch.Generator().manual_seed(seed)
    inputs = torch.randn(12, 3, generator=source, dtype=torch.float64)
    toy = FiniteLeastSquares(inputs, torch.zeros(12), torch.ones(3))
    return toy, CurvatureSpread.of((inputs[:, :, None] * inputs[:, None, :]).numpy())


def rules(seed: int) -> Iterator[Check]:
    """The three limits of a profile, measured on samples of a linear regression."""
    toy, name = REGRESSION, REGRESSION_NAME
    found = profile(
        toy.model(), toy.loss_fn, toy.sample(2000, seed), population="distribution", level=LEVEL,
        seed=seed,
    )  # fmt: skip
    for batch in (4, 64):
        truth, limits_ = toy.limits(batch), found.limits(batch)
        rule, step = limits_.noise_scale_rule, limits_.one_step
        yield statistical(name, f"noise-scale rule at B = {batch}", truth.noise_scale_rule, rule)
        yield statistical(name, f"one-step limit at B = {batch}", truth.one_step, step)
        over = float(limits_.mean_square) / truth.mean_square
        yield Check(name, f"mean-square limit at B = {batch}, over exact", 1.0, over, math.nan,
                    0.9 < over < 1.5)  # fmt: skip


def laws(seed: int) -> Iterator[Check]:
    """Temperature, momentum, linear scaling and simulated runs, on the noisy quadratic model."""
    toy = NoisyQuadraticModel(torch.ones(6))
    moves = toy.dynamics()
    bowl = torch.diag(toy.spectrum)
    solved = float(stationary_covariance(bowl, bowl, 0.05, lr=0.2)[0, 0])
    settled = float(moves.stationary(0.2, 4)[0, 0])
    yield exact("Lyapunov equation", "stationary variance", settled, solved, 1e-9)
    floor, law = moves.noise_floor(0.05, 8), temperature(0.05, 8) * float(bowl.trace()) / 4
    yield exact(MODEL_NAME, "noise floor T·trΣ/4, ελ = 0.05", floor, law, 0.02)
    ball = moves.noise_floor(0.002, 4, "sgd", 0.9)
    plain = moves.noise_floor(effective_lr(0.002, 0.9), 4)
    yield exact(MODEL_NAME, "noise floor with momentum at ε/(1 - m)", plain, ball, 0.02)
    many = moves.trajectory(toy.w, 4, 1e-3, 2)[-1]
    once = moves.trajectory(toy.w, 1, 4e-3, 8)[-1]
    small, large = float(many.trace()), float(once.trace())
    yield exact(MODEL_NAME, "4 steps at (ε, B), 1 step at (4ε, 4B)", small, large, 1e-4)
    for name, momentum in OPTIMIZERS[:3]:
        yield simulated(toy, name, momentum, seed)


def simulated(toy: NoisyQuadraticModel, name: str, momentum: float, seed: int) -> Check:
    """E|δ|² after 20 steps of 4000 runs."""
    h, runs = toy.spectrum, 4000
    a, b, c, d = astuple(Momentum.of(name, momentum))
    source = torch.Generator().manual_seed(seed)
    w = toy.w.expand(runs, len(h)).clone()
    v = torch.zeros_like(w)
    for _ in range(20):
        noise = torch.randn(w.shape, generator=source, dtype=torch.float64) / 2  # B = 4
        g = h * w + h.sqrt() * noise
        v = a * v + b * g
        w = w - 0.1 * (c * g + d * v)
    squares = w.square().sum(1)
    truth = float(toy.dynamics().trajectory(toy.w, 20, 0.1, 4, name, momentum)[-1].trace())
    z = (float(squares.mean()) - truth) / (float(squares.std()) / math.sqrt(runs))
    quantity, holds = f"E|δ|² of 4000 runs, {name} {momentum:g}", abs(z) < quantile(LEVEL, math.inf)
    return Check(MODEL_NAME, quantity, truth, float(squares.mean()), z, holds)
