"""Limits of the learning rate and the laws of training, against exact dynamics."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from ..learning_rate.formulas import effective_lr, mean_square_lr, stable_lr, temperature
from ..learning_rate.mean_square import CurvatureSpread
from ..learning_rate.update_rule import Momentum
from ..profiles.profile import profile
from ..toy import (
    FiniteLeastSquares,
    LinearRegression,
    NoisyQuadraticModel,
    RandomCurvature,
    diverging_lr,
    stationary_covariance,
)
from .check import LEVEL, Check, exact, statistical

OPTIMIZERS = (("sgd", 0.0), ("sgd", 0.9), ("nesterov", 0.9), ("adam", 0.9), ("nadam", 0.9))


def limits(seed: int) -> Iterator[Check]:
    """The formulas for every optimizer, against the radius of the exact dynamics."""
    law = RandomCurvature(2.0, 3.0)
    for name, momentum in OPTIMIZERS:
        said = name if not momentum else f"{name} {momentum:g}"
        truth = diverging_lr(4.0, name, momentum)
        yield exact("T13", f"full-batch limit, {said}", truth, stable_lr(4.0, name, momentum))
        found = mean_square_lr(2.0, 9 / 4, 4, optimizer=name, momentum=momentum)
        truth = law.mean_square_lr(4, name, momentum)
        yield exact("T6", f"mean-square limit at 4, {said}", truth, found)
        toy, spread = finite(seed)
        truth = toy.mean_square_lr(2, name, momentum)
        limit = spread.stable_lr(1 / 2 - 1 / 12, name, momentum)
        yield exact("T5", f"limit in all directions at 2, {said}", truth, limit)


def finite(seed: int) -> tuple[FiniteLeastSquares, CurvatureSpread]:
    """Twelve samples in three dimensions, and all of their curvatures."""
    source = torch.Generator().manual_seed(seed)
    inputs = torch.randn(12, 3, generator=source, dtype=torch.float64)
    toy = FiniteLeastSquares(inputs, torch.zeros(12), torch.ones(3))
    return toy, CurvatureSpread.of((inputs[:, :, None] * inputs[:, None, :]).numpy())


def rules(seed: int) -> Iterator[Check]:
    """The three limits of a profile on T4, measured on samples."""
    spectrum = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2])
    toy = LinearRegression(spectrum, torch.full((5,), 0.5), noise=0.5)
    found = profile(
        toy.model(), toy.loss_fn, toy.sample(2000, seed), population="distribution", level=LEVEL,
        seed=seed,
    )  # fmt: skip
    for batch in (4, 64):
        truth, limits_ = toy.limits(batch), found.limits(batch)
        rule, step = limits_.noise_scale_rule, limits_.one_step
        yield statistical("T4", f"noise-scale rule at {batch}", truth.noise_scale_rule, rule)
        yield statistical("T4", f"one-step limit at {batch}", truth.one_step, step)
        over = float(limits_.mean_square) / truth.mean_square
        yield Check("T4", f"mean-square limit at {batch}, over the exact", 1.0, over, math.nan,
                    0.9 < over < 1.5)  # fmt: skip


def laws(seed: int) -> Iterator[Check]:
    """Temperature, momentum and linear scaling on T2; simulated runs against the exact average."""
    toy = NoisyQuadraticModel(torch.ones(6))
    moves = toy.dynamics()
    spread = stationary_covariance(torch.diag(toy.spectrum), torch.diag(toy.spectrum), 0.05, lr=0.2)
    settled = moves.stationary(0.2, 4).diagonal()
    yield exact("T3", "stationary variance", float(settled[0]), float(spread[0, 0]), 1e-9)
    floor = temperature(0.05, 8) * float(toy.spectrum.sum()) / 4
    yield exact("T2", "noise floor T·trΣ/4, ελ = 0.05", moves.noise_floor(0.05, 8), floor, 0.02)
    ball = moves.noise_floor(0.002, 4, "sgd", 0.9)
    plain = moves.noise_floor(effective_lr(0.002, 0.9), 4)
    yield exact("T2", "floor with momentum at ε/(1 - m)", plain, ball, 0.02)
    many = moves.trajectory(toy.w, 4, 1e-3, 2)[-1]
    once = moves.trajectory(toy.w, 1, 4e-3, 8)[-1]
    small, large = float(many.trace()), float(once.trace())
    yield exact("T2", "4 small steps and a large one", small, large, 1e-4)
    for name, momentum in OPTIMIZERS[:3]:
        yield simulated(toy, name, momentum, seed)


def simulated(toy: NoisyQuadraticModel, name: str, momentum: float, seed: int) -> Check:
    """E|δ|² after 20 steps of 4000 runs."""
    rule, h, runs = Momentum.of(name, momentum), toy.spectrum, 4000
    source = torch.Generator().manual_seed(seed)
    w = toy.w.expand(runs, len(h)).clone()
    v = torch.zeros_like(w)
    for _ in range(20):
        noise = torch.randn(w.shape, generator=source, dtype=torch.float64) / 2  # B = 4
        g = h * w + h.sqrt() * noise
        v = rule.keep * v + rule.take * g
        w = w - 0.1 * (rule.direct * g + rule.follow * v)
    squares = w.square().sum(1)
    truth = float(toy.dynamics().trajectory(toy.w, 20, 0.1, 4, name, momentum)[-1].trace())
    z = (float(squares.mean()) - truth) / (float(squares.std()) / math.sqrt(runs))
    quantity = f"E|δ|² of 4000 runs, {name} {momentum:g}"
    return Check("T2", quantity, truth, float(squares.mean()), z, abs(z) < 4.4)
