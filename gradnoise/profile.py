"""One call that goes the whole way once: samples, gradients, curvature, estimates, verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import torch
from torch import nn

from . import store
from .algebra import Eigenpairs, lanczos
from .algebra.deflation import explore
from .algebra.mean_square import CurvatureSpread
from .errors import CurvatureError, OperatorError, check_whole
from .estimate import Estimate, Status, check_level
from .estimators import (
    Shares,
    curvature_noise_scale,
    half_sharpness,
    measure_curvature_spread,
    measure_noise_scale,
    sample_curvatures,
    shares_of,
    sharp_directions,
    sharpness_estimate,
    sign_probes,
)
from .estimators.noise_scale import ACCURACY, PROBES, STEPS, check_accuracy
from .layers import Layer, by_group, layers_of
from .losses import LossFn
from .moments import GradientMoments
from .operators import Hessian, with_decay
from .optimizer import read_optimizer
from .pergrad import Engine, choose
from .problem import Problem
from .report import Stage, progress_bar
from .rescaled import in_metric
from .result import Profile
from .samples import MICRO_BATCH
from .streaming import stream, with_intervals


def profile(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    metric: str = "euclidean",
    batch_size: int | None = None,
    max_samples: int | None = 4096,
    population: str | int = "dataset",
    engine: str = "auto",
    level: float = 0.95,
    seed: int = 0,
    probes: int = PROBES,
    accuracy: float = ACCURACY,
    tol: float = 1e-3,
    micro_batch: int = MICRO_BATCH,
    progress: bool = False,
) -> Profile:
    """Measure the gradient noise and the curvature of a model where it stands.

    Args:
        model: any `nn.Module`; it is left as found. Its trainable parameters are measured.
        loss_fn: `loss_fn(model, batch)` with one loss per sample, shape (n,), or a torch
            criterion for batches (inputs, targets).
        data: a DataLoader, a Dataset, a list of batches, or one batch.
        optimizer: the one in use; its learning rate and momentum enter the report.
        metric: "euclidean", or "optimizer": everything in the coordinates P^½w in which a step of
            the optimizer is plain descent, with P of its state as in `Preconditioned`. Learning
            rates are then those of the optimizer.
        batch_size: B in use; default that of a DataLoader.
        max_samples: n at most; None measures all.
        population: "dataset", "distribution" or N: what the intervals are about.
        engine: "auto", or by name: "hooks", "functional", "backpack" or "loop".
        level: coverage of the intervals.
        seed: of the samples and probes; the same seed gives the same numbers.
        probes: random directions for tr(HΣ), at most.
        accuracy: relative standard error of tr(HΣ) at which fewer are taken.
        tol: relative residual at which λ is accepted.
        micro_batch: samples evaluated at once; lower it when memory is short.
        progress: show a progress bar on stderr.

    Returns:
        Profile.

    Raises:
        GradNoiseError: with what was got, what was expected and what to do; see `Objective`,
            `Samples.draw`, `choose` and `Preconditioned`.

    Example:
        >>> from gradnoise.toy import NoisyQuadratic
        >>> toy = NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
        >>> p = profile(toy.model(), toy.loss_fn, toy.sample(256, seed=0))
        >>> round(float(p.stable_lr()), 3)  # 2/λ = 2/4
        0.5
    """
    settings = read_optimizer(optimizer, metric)
    check_level(level)
    check_whole("seed", seed, 0)
    check_whole("probes", probes, 2)
    check_accuracy(accuracy)
    check_whole("batch_size", 1 if batch_size is None else batch_size, 1)
    problem = Problem.open(
        model,
        loss_fn,
        data,
        max_samples=max_samples,
        population=population,
        seed=seed,
        micro_batch=micro_batch,
    )
    problem = in_metric(problem, metric, optimizer)
    with problem.guard(), progress_bar(progress) as stage:
        chosen = choose(problem.objective, problem.largest_batch(), engine)
        tick = stage("per-sample gradients", problem.samples.count)
        moments = stream(problem, chosen, level=level, tick=tick)
        moments = with_intervals(problem, chosen, moments)
        curvature = _curvature(problem, chosen, moments, stage, probes, accuracy, tol, seed)
    groups = {}
    if optimizer is not None:
        own = (group["params"] for group in optimizer.param_groups)
        groups = by_group(problem.objective.parameters, own)
    fallback = (f"engine: {chosen.reason}",) if chosen.failures else ()
    batch_size, too_large = _batch_size(batch_size, data, moments.population)
    return Profile(
        model=type(model).__name__,
        parameters=problem.objective.size,
        mode=_mode(model),
        dtype=_dtypes(problem),
        device=str(problem.objective.device),
        samples=moments.count,
        population=moments.population,
        level=level,
        seed=int(seed),
        engine=chosen.name,
        engine_reason=chosen.reason,
        estimates={
            "loss": moments.loss,
            "grad_sq_norm": moments.grad_sq_norm,
            "trace_cov": moments.trace_cov,
            "simple_noise_scale": moments.simple_noise_scale,
            **curvature.estimates,
        },
        layers=curvature.shared(moments.layers),
        groups=curvature.shared(layers_of(moments, groups)),
        curvature_spread=curvature.spread,
        optimizer=settings,
        metric=metric,
        batch_size=batch_size,
        matvecs=curvature.matvecs,
        warnings=(
            *problem.samples.notes,
            *too_large,
            *fallback,
            *curvature.notes,
            *_precision_notes(problem),
            *(settings.notes if settings else ()),
        ),
        versions=store.versions(),
    )


@dataclass(frozen=True, eq=False)
class _Curvature:
    """What needs second derivatives."""

    estimates: dict[str, Estimate]
    matvecs: int = 0
    notes: tuple[str, ...] = ()
    shares: Shares | None = None
    spread: CurvatureSpread | None = None

    def shared(self, layers: dict[str, Layer]) -> dict[str, Layer]:
        """The layers with their shares of the curvature."""
        return layers if self.shares is None else self.shares.give(layers)


def _curvature(
    problem: Problem,
    engine: Engine,
    moments: GradientMoments,
    stage: Stage,
    probes: int,
    accuracy: float,
    tol: float,
    seed: int,
) -> _Curvature:
    """The curvature, or why the model has none; an error of the user's own code is raised."""
    try:
        return _measure_curvature(problem, engine, moments, stage, probes, accuracy, tol, seed)
    except (CurvatureError, OperatorError) as error:
        reason = str(error).strip().split("\n")[0]
        return _Curvature({}, notes=(f"curvature was not measured: {reason}",))


def _measure_curvature(
    problem: Problem,
    engine: Engine,
    moments: GradientMoments,
    stage: Stage,
    probes: int,
    accuracy: float,
    tol: float,
    seed: int,
) -> _Curvature:
    hessian = Hessian.of(problem, hvp="kept")
    tick = stage("sharpness (Lanczos)", None)
    pairs, deflation = explore(hessian, tol=tol, steps=STEPS, seed=seed, tick=tick)
    pairs = _with_decay(hessian, pairs, tol, seed)
    top = pairs.vectors[:, 0]
    curvatures = sample_curvatures(problem, top)
    spread = measure_curvature_spread(problem, sharp_directions(top, deflation), curvatures)
    sampled = moments.sampling_factor > 0
    halves = None
    if sampled:
        hessian.forget()  # its graphs and those of the halves would be held together
        halves = half_sharpness(problem, top, tol=tol, seed=seed)
    signs = sign_probes(moments, probes, seed)
    tick = stage("noise scale (probes)", probes)
    scale = measure_noise_scale(
        hessian, engine, moments, signs, deflation=deflation, accuracy=accuracy, tick=tick
    )
    sharpness = sharpness_estimate(pairs, curvatures, halves, problem.samples, moments.level)
    return _Curvature(
        {
            "noise_scale": scale.hessian,
            "sharpness": sharpness,
            "grad_curvature": scale.grad_curvature,
            "trace_hessian_cov": scale.trace_hessian_cov,
            "curvature_noise_scale": curvature_noise_scale(curvatures, moments),
        },
        pairs.matvecs + (halves.matvecs if halves else 0),
        () if pairs.converged else (f"sharpness: {Status.NOT_CONVERGED.remedy}",),
        shares_of(moments, pairs, deflation, halves, sharpness, scale),
        spread,
    )


def _with_decay(hessian: Hessian, pairs: Eigenpairs, tol: float, seed: int) -> Eigenpairs:
    """The eigenpair once decoupled weight decay is added, where there is any."""
    decayed, metric = with_decay(hessian), hessian.problem.objective.metric
    if metric is None or decayed is hessian:
        return pairs
    decays = set(metric.outside.values())
    if len(decays) > 1:
        found = lanczos(decayed, tol=tol, seed=seed)
        return replace(found, matvecs=found.matvecs + pairs.matvecs)
    (decay,) = decays
    return replace(pairs, values=pairs.values + decay, bound=pairs.bound + decay)


def _mode(model: nn.Module) -> str:
    modes = {module.training for module in model.modules()}
    return "mixed" if len(modes) > 1 else "train" if modes.pop() else "eval"


def _dtypes(problem: Problem) -> str:
    dtypes = {str(p.dtype).removeprefix("torch.") for p in problem.objective.parameters.values()}
    return "/".join(sorted(dtypes))


def _precision_notes(problem: Problem) -> tuple[str, ...]:
    coarse = {p.dtype for p in problem.objective.parameters.values()} & {
        torch.float16,
        torch.bfloat16,
    }
    if not coarse:
        return ()
    return (
        f"gradients and curvature were computed in {_dtypes(problem)}, with 2 to 3 significant "
        f"digits; measure a float32 copy of the model for more",
    )


def _batch_size(
    given: int | None, data: Any, population: float
) -> tuple[int | None, tuple[str, ...]]:
    """B in use, as given or of a loader and at most N, and a note where it would be more."""
    size = getattr(data, "batch_size", None) if given is None else given
    if not isinstance(size, Integral):
        return None, ()
    if int(size) <= population:
        return int(size), ()
    whole = int(population)
    return whole, (
        f"batch size {size} is larger than the data: this report is about batches of all {whole} "
        f"samples",
    )
