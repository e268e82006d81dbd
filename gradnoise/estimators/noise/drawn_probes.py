"""tr(HΣ) from few samples at a time, where all of the population is measured.

With p_i a probability of every sample, S and T two independent draws of b samples, and signs s,

    u = Σ_{i∈S} s_i c_i/√(n p_i b),   H_T = Σ_{j∈T} H_j/(n p_j b)

have E[uuᵀ] = Σ_i c_ic_iᵀ/n and E[H_T] = H, so that E[uᵀH_Tu] = tr(HΣ)(n - 1)/n. Each value costs
one weighted gradient and one product with a Hessian of b samples, whatever n is. Values are
independent: their spread has the errors of signs, Σ and H in it. p_i grows with ‖g_i‖: samples
without a gradient have next to no curvature. What is known of H (`Known`) is taken out of uᵀH_Tu,
times the mean weight of T, and added exactly, as for full probes; it need not be a part of H.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ...linalg.deflation import LowRank
from ...moments.moments import GradientMoments
from ...operators.gradients import PerSampleGradients
from ...operators.hessian import Hessian
from ...per_sample.contract.engine import Engine
from ...problem.problem import Problem
from ...problem.sums import sums_of_some
from ...statistics.interval import with_skew
from ...statistics.skew import Skew
from ...tensors.random import generator
from ...tensors.trees import flatten, in_units
from ..curvature.few_samples import chances
from .errors import probe_variance
from .sign_probes import Known, Probed, mean_variance, rounding
from .sums import NoiseScale, Parts, Sums

DRAWN = 16  # samples of a draw
FIRST = 24  # values before their spread is looked at: fewer say too little about it
MORE, RESERVE = 8, 1.1  # values that are added at least, and in units of those that are expected


def drawn_noise_scale(
    hessian: Hessian,
    engine: Engine,
    moments: GradientMoments,
    near: LowRank,
    image: Tensor,
    *,
    accuracy: float,
    odds: Tensor | None = None,
    seed: int = 0,
    tick: Any = None,
) -> NoiseScale:
    """The noise scales of samples that are the whole population.

    Args:
        hessian, engine, moments: of the same samples.
        near: of a Hessian that is similar; what it tells is taken out of the values.
        image: Hḡ.
        accuracy: half the interval of tr(HΣ), relative, that is enough.
        odds: p; by default from the gradients alone.
        seed: of the draws.
        tick: called with 1 after every value.
    """
    mean = flatten([*moments.mean.values()])
    rows = PerSampleGradients.of(hessian.problem, engine=engine)
    with hessian.problem.guard():
        known = Known.of(near, rows, mean)
        probed = drawn_probes(
            hessian, mean, moments, known,
            accuracy=accuracy, most=moments.count, odds=odds, seed=seed, tick=tick,
        )  # fmt: skip
    traces = probed.traces
    return Sums(
        trace=0.0 if moments.is_noiseless else float(traces.mean()),
        curvature=float(mean @ image),
        of_probes=(probe_variance(probed, moments), 0.0),
        of_samples=(0.0, 0.0, 0.0),
        freedom=(len(traces) - 1, math.inf),
        skew=Skew.of(torch.stack([traces, torch.zeros_like(traces)])),
        parts=Parts(known.space.by_parameter(mean, image), probed.parts, False),
    ).scales(moments, hessian.product_error)


def drawn_probes(
    hessian: Hessian,
    mean: Tensor,
    moments: GradientMoments,
    known: Known,
    *,
    accuracy: float,
    most: int,
    odds: Tensor | None = None,
    seed: int = 0,
    tick: Any = None,
) -> Probed:
    """Values of tr(HΣ), drawn until it is as accurate as asked for; inside the guard.

    Args:
        hessian, moments: of the same samples, which are the population.
        mean: ḡ, shape (P,).
        known: what is taken out of the values.
        accuracy: half the interval relative to tr(HΣ) that is enough.
        most: values at most.
        odds: p; by default from the gradients alone.
        seed: of the draws.
        tick: called with 1 after every value.
    """
    odds, source = chances(moments) if odds is None else odds, generator(seed)
    mean = mean.to(hessian.dtype)
    factor, enough = moments.count / (moments.count - 1), FIRST
    traces, parts, certain = list[Tensor](), list[Tensor](), list[Tensor]()
    while True:
        direction, size = _noise(hessian.problem, odds, mean, source)
        seen = _draw(odds, source)
        weights = 1 / (moments.count * odds[seen])
        image = Hessian.of_few(hessian.problem, seen, weights) @ direction
        # H_T errs by its mean weight as well, which is 1 on average
        rest = known.space.by_parameter(direction, image)
        rest = rest - float(weights.mean()) * known.form(direction)
        scale = float(direction.norm()) * float(image.norm())
        if abs(float(rest.sum())) <= rounding(hessian.resolution) * scale:
            rest = torch.zeros_like(rest)
        own = factor * size * (size * rest)
        parts.append(own + known.parts)
        traces.append(own.sum() + known.trace)
        certain.append(own.abs().sum())
        if tick is not None:
            tick(1)
        if len(traces) == enough:
            enough = min(_enough(torch.stack(traces), accuracy, moments.level), most)
        if len(traces) >= enough:
            return Probed.of_signs(torch.stack(traces), torch.stack(parts), torch.stack(certain))


def _enough(values: Tensor, accuracy: float, level: float) -> int:
    """How many values there should be, at most twice as many as there are.

    Half the interval shrinks with the root of their number.
    """
    count, mean = len(values), float(values.mean())
    found = with_skew(
        mean, mean_variance(values), Skew.of(values[None].cpu()),
        level=level, samples=count, freedom=count - 1,
    )  # fmt: skip
    half = (found.high - found.low) / 2
    if not half > accuracy * abs(mean):
        return count
    wanted = RESERVE * count * (half / (accuracy * abs(mean))) ** 2 if mean else math.inf
    return int(min(max(wanted, count + MORE), 2 * count))


def _draw(odds: Tensor, source: torch.Generator) -> Tensor:
    """Positions of DRAWN samples, with replacement, sorted."""
    return torch.multinomial(odds, DRAWN, replacement=True, generator=source).sort().values


def _noise(
    problem: Problem, odds: Tensor, mean: Tensor, source: torch.Generator
) -> tuple[Tensor, float]:
    """u = Σ_i s_i c_i/√(n p_i b) of one draw, in units of a power of two, and that."""
    positions = _draw(odds, source)
    signs = 2.0 * torch.randint(0, 2, (DRAWN,), generator=source).double() - 1
    weights = signs / (len(odds) * odds[positions] * DRAWN).sqrt()
    found = sums_of_some(problem, positions, weights[None])[0].sub_(
        mean, alpha=float(weights.sum())
    )
    return in_units(found)
