"""Passes over the samples, in which summaries of per-sample gradients become moments."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import LossError, ShardedError
from ..per_sample.contract.engine import Engine
from ..per_sample.contract.summary import Wanted
from ..problem.problem import Problem
from ..problem.shards import WHOLE
from ..problem.shares import centred_by_share, ratio_influence
from ..problem.sums import scattered_sums, sign_sums, weighted_sums
from ..statistics.estimate import check_level
from ..tensors.random import random_signs, scattered_signs
from ..tensors.trees import (
    TensorDict,
    compute_dtype,
    flatten,
    sample_count,
    sq_norm,
    unflatten,
    wide_dtype,
    widen,
)
from .accumulator import Accumulator
from .moments import LARGEST, SMALLEST, GradientMoments
from .per_parameter import PerParameter

SUM_ROUNDING = 8  # of sums of float32, in units of its resolution
TRACE_ERROR = 1e-3  # relative error of a trace beyond which gradients are centred before squaring
SQUARE_PROBES = 8  # sign vectors whose products give tr(Σ²)
MANY = 512  # samples from which on each sign vector looks at a part of them
SQUARED = 1024  # samples at most that all sign vectors together look at
GRAM_BLOCK = 2**20  # coordinates converted to float64 at once


def stream(
    problem: Problem,
    engine: Engine,
    *,
    level: float = 0.95,
    variance: bool = False,
    tick: Any = None,
) -> GradientMoments:
    """One pass over the samples; memory for one micro-batch and a few copies of the gradient."""
    check_level(level)
    wanted = Wanted(variance=variance, scale=_scale(problem))
    objective = problem.objective
    running = Accumulator(None if objective.shards is None else objective.space.over)
    moments = _pass(problem, engine, running, engine.summaries, level, wanted, tick)
    rounding = SUM_ROUNDING * min(moments.resolution, torch.finfo(torch.float32).eps)
    if rounding * running.cancellation > TRACE_ERROR:
        if objective.shards is not None:
            raise ShardedError(
                f"the gradient is far above its noise, so that single gradients have to be written "
                f"out: {WHOLE}"
            )
        about = replace(wanted, centre=moments.mean)
        again = engine.centred_summaries
        moments = _pass(problem, engine, Accumulator(), again, level, about, tick)
    return _with_decay(problem, engine, _with_shares(problem, engine, moments))


def _with_shares(problem: Problem, engine: Engine, moments: GradientMoments) -> GradientMoments:
    """Moments of a_ig_i - (a_i - 1)G from those of a_ig_i, where samples weigh differently."""
    shares, per_parameter = problem.samples.shares, moments.per_parameter
    if shares is None or per_parameter is None:
        return moments
    along = slopes_by_parameter(problem, engine, moments.mean)
    norms, gaps = {}, {}
    for name, slope in along.items():
        extra, size = (shares - 1).to(slope), sq_norm(moments.mean[name])
        raw = slope + extra * size  # a_ig_iᵀG
        norms[name] = per_parameter.sq_norms[name].to(slope) - 2 * extra * raw + extra**2 * size
        gaps[name] = (norms[name] - 2 * slope + size).clamp(min=0)  # rounding
    return replace(
        moments,
        centred_sq={name: float(own.sum()) for name, own in gaps.items()},
        losses=centred_by_share(moments.losses, shares),
        sq_norms=torch.stack(list(norms.values())).sum(0),
        gap_sq_norms=torch.stack(list(gaps.values())).sum(0),
        coordinate_sq=_spread_with_shares(problem, moments, shares),
        per_parameter=replace(per_parameter, sq_norms=norms, gap_sq_norms=gaps),
    )


def _spread_with_shares(
    problem: Problem, moments: GradientMoments, shares: Tensor
) -> TensorDict | None:
    """Σ(a_ig_i - a_iG)² by coordinate from Σ(a_ig_i - G)²."""
    if moments.coordinate_sq is None:
        return None
    extra = (shares - 1).to(
        device=problem.objective.device, dtype=wide_dtype(problem.objective.device)
    )
    # Σ(a_i - 1)(a_ig_i - (a_i - 1)G) is Σ(a_i - 1)a_ig_i - G Σ(a_i - 1)²
    flat, square = weighted_sums(problem, extra[None])[0], float(extra.square().sum())
    found = zip(moments.mean.items(), unflatten(flat, [*moments.mean.values()]), strict=True)
    return {
        name: (moments.coordinate_sq[name] - 2 * mean * own - mean**2 * square).clamp(min=0)
        for (name, mean), own in found
    }


def _scale(problem: Problem) -> TensorDict | None:
    preconditioner = problem.objective.preconditioner
    return None if preconditioner is None else preconditioner.root


def _with_decay(problem: Problem, engine: Engine, moments: GradientMoments) -> GradientMoments:
    """Add the weight decay that the optimizer adds to every gradient; trΣ does not change."""
    decay = problem.objective.decay()
    if decay is None:
        return moments
    along, per_parameter = slopes_by_parameter(problem, engine, decay), moments.per_parameter
    added = {n: 2 * dots - sq_norm(widen(decay[n])) for n, dots in along.items()}
    if per_parameter is not None:
        own = {n: norms + added[n].to(norms) for n, norms in per_parameter.sq_norms.items()}
        per_parameter = replace(per_parameter, sq_norms=own)
    return replace(
        moments,
        mean={name: mean + decay[name] for name, mean in moments.mean.items()},
        sq_norms=moments.sq_norms + sum(added.values()),
        per_parameter=per_parameter,
    )


def _pass(
    problem: Problem,
    engine: Engine,
    running: Accumulator,
    summaries: Any,
    level: float,
    wanted: Wanted,
    tick: Any,
) -> GradientMoments:
    objective = problem.objective
    with problem.guard():
        for batch, idle in problem.rounds():
            for summary in summaries(batch, replace(wanted, idle=idle)):
                running.add(summary)
                if tick is not None:
                    tick(len(summary.losses))
        share = problem.samples.share
        if share is not None:
            running.join(
                objective.ranks, share, objective.local_parameters, objective.shards is not None
            )
    parameters = objective.parameters.values()
    return running.moments(
        population=problem.samples.population,
        resolution=max(engine.eps, *(torch.finfo(p.dtype).eps for p in parameters)),
        level=level,
        is_partition=problem.samples.is_partition,
        loss_population=problem.samples.loss_population,
        sizes=None if objective.shards is None else objective.sizes,
    )


def with_intervals(problem: Problem, engine: Engine, moments: GradientMoments) -> GradientMoments:
    """The moments with what their intervals need; unchanged where the population was measured."""
    if moments.spread_factor == 0:
        return moments
    _check_size(moments)
    if moments.count >= MANY and problem.is_divisible:
        signs = scattered_signs(SQUARE_PROBES, moments.count, seed=0, most=SQUARED)
        noises = scattered_sums(problem, signs, flatten([*moments.mean.values()]))
    else:
        signs = random_signs(SQUARE_PROBES, moments.count, seed=0)
        noises = sign_sums(problem, signs)
    grams = _grams(problem, noises)
    along = slopes_by_parameter(problem, engine, moments.mean)
    per_parameter = replace(
        moments.per_parameter or PerParameter({}), slopes=along, signs=signs, grams=grams
    )
    moments = replace(
        moments,
        slopes=per_parameter.slope,
        trace_cov_sq=per_parameter.trace_cov_sq(float(moments.trace_cov), problem.objective.size),
        per_parameter=moments.per_parameter and per_parameter,
        shares=problem.samples.shares,
        ratio_influence=_ratio_influence(problem, engine, moments),
    )
    influences = moments.deviations()[1:].to(problem.objective.device)
    covariances = widen(weighted_sums(problem, influences))
    covariances /= moments.count - 1
    products = problem.objective.space.over(covariances @ covariances.T)
    return replace(moments, influence_products=products)


def _ratio_influence(
    problem: Problem, engine: Engine, moments: GradientMoments
) -> TensorDict | None:
    """`shares.ratio_influence` on trΣ, by parameter."""
    shares = problem.samples.shares
    if shares is None:
        return None
    lean = unflatten(mean_with_shares(problem, shares), [*moments.mean.values()])
    direction = dict(zip(moments.mean, lean, strict=True))
    along = slopes_by_parameter(problem, engine, direction)
    traces = {name: moments.centred_sq[name] / moments.count for name in along}
    return {name: ratio_influence(traces[name], own, shares) for name, own in along.items()}


def mean_with_shares(problem: Problem, shares: Tensor) -> Tensor:
    """E[a_iψ_i], flat, of the deviations ψ_i = a_i(g_i - G)."""
    extra = (shares - 1).to(
        device=problem.objective.device, dtype=wide_dtype(problem.objective.device)
    )
    return weighted_sums(problem, extra[None])[0] / len(shares)


def _check_size(moments: GradientMoments) -> None:
    largest = math.sqrt(float(moments.sq_norms.max()))
    if largest and not SMALLEST < largest < LARGEST:
        raise LossError(
            f"gradients are of size {largest:.1e}: the products that intervals need leave the "
            f"range of float64. Multiply the loss by a constant first; noise scales do not change"
        )


def _grams(problem: Problem, noises: Iterable[Tensor]) -> TensorDict:
    """Inner products of the noises, parameter by parameter, each (K, K)."""
    parameters = problem.objective.local_parameters
    dtype = compute_dtype(parameters.values())
    rows = torch.stack([noise.to(dtype) for noise in noises])
    parts = torch.split(rows, [p.numel() for p in parameters.values()], dim=1)
    grams = problem.objective.space.over(torch.stack([*map(_gram, parts)]))
    return dict(zip(parameters, grams, strict=True))


def _gram(rows: Tensor) -> Tensor:
    """Inner products of rows, in float64, in slices of coordinates."""
    slices = map(widen, torch.split(rows, GRAM_BLOCK, dim=1))
    return sum((b @ b.T for b in slices), widen(rows.new_zeros(len(rows), len(rows))))


def slopes(problem: Problem, engine: Engine, direction: TensorDict) -> Tensor:
    """g_iᵀu of every sample, shape (n,), from first derivatives only."""
    along = slopes_by_parameter(problem, engine, direction)
    return torch.stack(list(along.values())).sum(0)


def slopes_by_parameter(problem: Problem, engine: Engine, direction: TensorDict) -> TensorDict:
    """The part of g_iᵀu in each parameter, by name, each of shape (n,)."""
    directions = {name: own[None] for name, own in direction.items()}
    found = list(dots_by_batch(problem, engine, directions))
    parts = [torch.stack([dots[name][:, 0] for name in direction], dim=1) for dots in found]
    rows = problem.rows_of(parts, len(direction))
    return dict(zip(direction, rows.T, strict=True))


def dots_by_batch(problem: Problem, engine: Engine, directions: TensorDict) -> Iterator[TensorDict]:
    """The part of g_iᵀu in each parameter for k directions (k, *shape), each (n_b, k) of a batch.

    Of several ranks each has the batches of its own samples. Samples with weights are centred by
    their mean, for which the dots of all are needed.
    """
    shares, found = problem.samples.shares, _dots_by_batch(problem, engine, directions)
    if shares is None:
        yield from found
        return
    parts, samples = list(found), problem.samples
    count = len(next(iter(directions.values())))
    split = {}
    for name in directions:
        whole = problem.rows_of([part[name] for part in parts], count)
        split[name] = samples.split(centred_by_share(whole, shares))
    yield from ({name: own[k] for name, own in split.items()} for k in range(len(parts)))


def _dots_by_batch(
    problem: Problem, engine: Engine, directions: TensorDict
) -> Iterator[TensorDict]:
    """The same of every a_ig_i.

    One pass for all directions; with the weight decay that the optimizer adds to every gradient.
    """
    count = len(next(iter(directions.values())))
    along_each = ([own[k] for own in directions.values()] for k in range(count))
    # products of float32 can overflow; ranks that hold parts take the same unit
    units = problem.objective.binary_sizes([*map(flatten, along_each)])
    device = problem.objective.device  # to which they are brought once
    sizes = torch.tensor(units, dtype=wide_dtype(device), device=device)
    directions = {n: _divided(own, sizes) for n, own in directions.items()}
    wanted = Wanted(directions=directions, scale=_scale(problem), total=False)
    decay = problem.objective.decay()
    added = {} if decay is None else {n: _inner(decay[n], along) for n, along in directions.items()}
    with problem.guard():
        for batch, idle in problem.rounds():
            own_wanted = replace(wanted, idle=idle)
            found = [s.dots for s in engine.summaries(batch, own_wanted) if s.dots is not None]
            dots = {n: torch.cat([d[n] for d in found]) + added.get(n, 0.0) for n in directions}
            problem.objective.work.forward += count * sample_count(batch)  # a product of matrices
            yield {n: own * sizes for n, own in dots.items()}


def _divided(directions: Tensor, sizes: Tensor) -> Tensor:
    """Each of the k directions (k, *shape) over its size."""
    rows = widen(directions).reshape(len(sizes), -1)
    return (rows / sizes[:, None]).to(directions.dtype).reshape(directions.shape)


def _inner(vector: Tensor, directions: Tensor) -> Tensor:
    """vᵀu of k directions, shape (k,)."""
    return widen(directions).reshape(len(directions), -1) @ widen(vector).reshape(-1)
