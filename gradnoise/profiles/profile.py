"""`gn.profile`: the call that goes the whole way, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import check_whole
from ..estimators.noise.noise_scale import ACCURACY, PROBES
from ..measurement.opened import Opened
from ..moments.layer import by_group
from ..problem.losses import LossFn
from ..problem.optimizer_settings import read_optimizer
from ..problem.options import Options
from ..problem.problem import Problem
from ..problem.samples import MICRO_BATCH
from ..show.progress import progress_bar
from . import file
from .curvature import Effort, find_curvature
from .picture import draw
from .results import Results
from .text import write


@dataclass(frozen=True)
class Profile(Results):
    """The noise and curvature of one model at one point of its training.

    Args:
        model: class name; `parameters` its trainable parameters P.
        mode: "train", "eval" or "mixed": how the modules were set.
        dtype, device: of the parameters.
        samples, population: n and N (inf for a distribution).
        level: coverage of the intervals.
        seed: of samples and probes.
        engine, engine_reason: how per-sample gradients were made, and why so.
        estimates: by name; read them as attributes.
        layers: moments and shares of the curvature module by module; see `Layer`.
        optimizer: what the given optimizer says, or None.
        metric: "euclidean", or "optimizer": estimates are of P^-½g and P^-½HP^-½, and learning
            rates those of the optimizer.
        batch_size: of the data loader or as given, or None.
        matvecs: Hessian-vector products of the eigenvalue iteration.
        warnings: what the reader should know.
        versions: of gradnoise and torch.
        groups: the same as `layers` for the optimizer's parameter groups, "group 0" and on; empty
            without an optimizer.
        curvature_spread: the spread of the samples' curvature in the sharpest directions, or None.
    """

    def plot(self, path: str | Path | None = None) -> Any:
        """The regime map, learning rate against batch size, as a matplotlib Figure.

        Args:
            path: where to save it as well; the suffix says the format.

        Raises:
            NotMeasuredError: curvature was not measured.
            ImportError: matplotlib is not installed.
        """
        return draw(self, path)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values that JSON can hold; infinities as strings."""
        return file.to_dict(self)

    def save(self, path: str | Path) -> None:
        """Write `to_dict` as JSON, whole or not at all."""
        file.save(self.to_dict(), path)

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read a saved profile.

        Raises:
            ProfileFileError: no such file, damaged, or not a profile of this version.
        """
        return file.load(cls, path)  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return write(self)


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
    effort = Effort(probes, accuracy, tol)
    options = Options(
        optimizer=optimizer, metric=metric, engine=engine, population=population,
        max_samples=max_samples, level=level, seed=seed, micro_batch=micro_batch,
    )  # fmt: skip
    opened = Opened.open(model, loss_fn, data, options)
    return find_profile(opened, effort, batch_size=batch_size, progress=progress)


def find_profile(
    opened: Opened, effort: Effort, *, batch_size: int | None = None, progress: bool = False
) -> Profile:
    """The profile of a model that is open; see `profile`."""
    check_whole("batch_size", 1 if batch_size is None else batch_size, 1)
    options, optimizer = opened.options, opened.options.optimizer
    settings = read_optimizer(optimizer, options.metric)
    problem = opened.problem
    with problem.guard(), progress_bar(progress) as stage:
        tick = stage("per-sample gradients", problem.samples.count)
        moments = opened.moments(tick=tick)
        curvature = find_curvature(opened, moments, stage, effort)
    chosen, model = opened.engine, problem.objective.model
    groups = {}
    if optimizer is not None:
        own = (group["params"] for group in optimizer.param_groups)
        groups = by_group(problem.objective.parameters, own)
    size, too_large = _capped(
        int(batch_size) if batch_size else opened.batch_size, moments.population
    )
    fallback = (f"engine: {chosen.reason}",) if chosen.failures else ()
    return Profile(
        model=type(model).__name__,
        parameters=problem.objective.size,
        mode=_mode(model),
        dtype=_dtypes(problem),
        device=str(problem.objective.device),
        samples=moments.count,
        population=moments.population,
        level=options.level,
        seed=int(options.seed),
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
        groups=curvature.shared(moments.by_groups(groups)),
        curvature_spread=curvature.spread,
        optimizer=settings,
        metric=options.metric,
        batch_size=size,
        matvecs=curvature.matvecs,
        warnings=(
            *problem.samples.notes,
            *too_large,
            *fallback,
            *curvature.notes,
            *_precision_notes(problem),
            *(settings.notes if settings else ()),
        ),
        versions=file.versions(),
    )


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


def _capped(size: int | None, population: float) -> tuple[int | None, tuple[str, ...]]:
    """B in use, at most N, and a note where it would be more."""
    if size is None or size <= population:
        return size, ()
    whole = int(population)
    return whole, (
        f"batch size {size} is larger than the data: this report is about batches of all {whole} "
        f"samples",
    )
