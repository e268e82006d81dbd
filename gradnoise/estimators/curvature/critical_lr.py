"""The critical learning rate of an optimizer's next step, by forward passes."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import LossError, check_whole, positive
from ...problem.checks import resolution
from ...problem.losses.loss_fn import LossFn
from ...problem.next_update import next_update
from ...problem.options import Options
from ...problem.problem import Problem
from ...problem.samples import MICRO_BATCH
from ...problem.state.guard import moved
from ...problem.state.wrappers import bare_optimizer
from ...problem.sums import weighted_sums
from ...statistics.estimate import Estimate, Status
from ...statistics.interval import symmetric
from ...statistics.quantile import quantile
from ...statistics.ratio import ratio
from ...statistics.transform import in_samples
from ...tensors.trees import flatten, wide_dtype
from .first_rise import first_rise
from .strata import Strata

INSIDE = 0.8  # of η_c, where the loss must have fallen, and which gives the slope at η_c


def critical_lr(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    optimizer: torch.optim.Optimizer,
    *,
    batch_size: int | None = None,
    max_norm: float | None = None,
    population: str | int = "dataset",
    max_samples: int | None = 4096,
    level: float = 0.95,
    seed: int = 0,
    micro_batch: int = MICRO_BATCH,
    unit: str = "auto",
    group_size: int | None = None,
    process_group: Any = None,
) -> Estimate:
    """η_c = inf{η > 0 : L(w - ηu) > L(w)}: beyond it the optimizer's next step raises the loss.

    u is the step that the optimizer would take next, per unit of learning rate: from a copy of its
    state, with momentum, second moments and weight decay. One gradient, then 4 to 10 forward
    passes: no second derivatives, so that any optimizer, attention kernel and precision will do.
    Where the loss is quadratic, η_c = 2gᵀu/uᵀHu. 2/η_c is the critical sharpness.

    It is about one step, and no limit of a run: training often bears a tenth of it or ten times as
    much (docs/theory/stability.md); what a rate leads to, `gn.branch` shows. L is without a weight
    decay of the optimizer.

    The step is made from some samples and judged on others where the population is larger than
    what was measured: a loss on the samples of the gradient itself falls too far.

    Args:
        model, loss_fn, data: as for `gradient_moments`.
        optimizer: the one that trains the model. Its `step()` must need no closure; several groups
            move in proportion to the first group's learning rate, in whose unit η_c is.
        batch_size: samples whose mean gradient makes the step. By default all that are measured
            if they are the population, otherwise half of them.
        max_norm: norm to which training clips this gradient, as `clip_grad_norm_` does.
        population: "dataset", "distribution" or a number N: what L is the mean over.
        max_samples: n at most; None measures all.
        level: coverage of the interval, for the given u.
        seed: of the choice of samples.
        micro_batch: samples evaluated at once.
        unit, group_size, process_group: as for `gradient_moments`.

    Returns:
        Estimate in the unit of the learning rate (SGD: parameter²/loss). Without a value:
        `Status.NO_DESCENT` where gᵀu ≤ 0, so that the loss rises at once, and `Status.NO_RISE`
        where it does not rise up to 10⁹ times the learning rate in use.

    Raises:
        GradNoiseError: see `gradient_moments`; second derivatives are not needed.
        ArgumentError: an optimizer whose next step is not known; see `next_update`. A
            `batch_size` that leaves no other samples where those are needed.

    Source: arXiv:2601.16979. The interval is ours (docs/theory/stability.md).

    Example:
        >>> data = (torch.ones(4, 1), torch.arange(4.0)[:, None])  # H = 2, so η_c = 2/H
        >>> model = nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> print(critical_lr(model, nn.MSELoss(), data, optimizer))
        1.00 (exact)
    """
    if batch_size is not None:
        check_whole("batch_size", batch_size, 1)
    if max_norm is not None:
        positive("max_norm", max_norm)
    options = Options(
        metric="euclidean", population=population, max_samples=max_samples, level=level, seed=seed,
        micro_batch=micro_batch, unit=unit, group_size=group_size, process_group=process_group,
    )  # fmt: skip
    problem, optimizer = Problem.open(model, loss_fn, data, options), bare_optimizer(optimizer)
    units = None if batch_size is None else problem.unit.count_of(batch_size)
    with problem.guard():
        strata = Strata.of(problem.samples, units, seed)
        device = problem.objective.device
        sums = weighted_sums(problem, strata.rows.to(device, wide_dtype(device)))
        own = problem.objective.optimizer(optimizer)
        update = next_update(own, problem.objective.parameters, sums[0], max_norm)
        slope = float(sums[-1] @ flatten(update))
        found = _Line(problem, strata, update, level).judge(slope, optimizer.param_groups[0]["lr"])
    return in_samples(found, problem.unit.size, keep=True)


@dataclass(frozen=True, eq=False)
class _Line:
    """The losses of all samples along w - ηu."""

    problem: Problem
    strata: Strata
    update: list[Tensor]
    level: float

    def judge(self, slope: float, lr: Any) -> Estimate:
        """η_c, with the slope gᵀu at w; the search starts at the learning rate in use."""
        if not any(bool(part.any()) for part in self.update):
            return self._unresolved(Status.NO_RISE)
        for parameter in self.problem.objective.parameters.values():
            parameter.requires_grad_(False)  # no graph, and no casts that autocast keeps
        start, here = float(lr), self._losses(0.0)

        @functools.cache
        def gains(at: float) -> Tensor:  # of every sample
            try:
                return self._losses(at).double() - here.double()
            except LossError:  # not finite
                return torch.full_like(here, math.inf, dtype=torch.float64)

        def change(at: float) -> float:
            return float(self.strata.weights @ gains(at))

        eps = resolution(self.problem.objective, here)
        rounding = eps * float(here.double().abs().mean()) / math.sqrt(len(here))
        low, high = first_rise(change, slope, start, rounding) if slope > 0 else (0.0, start)
        if 0 < low == high:
            return self._crossing(low, gains(low), gains(INSIDE * low), rounding)
        return self._none(gains(low or high), low, high)

    def _crossing(self, at: float, outer: Tensor, inner: Tensor, rounding: float) -> Estimate:
        """η_c where the gains have mean zero; `inner` are those nearer to w, `INSIDE` of it."""
        n = self.problem.samples.count
        if not float(self.strata.weights @ inner) < -rounding:
            return self._unresolved(Status.SIGNAL_BELOW_NOISE)
        if self.strata.is_exact:
            return symmetric(at, 0.0, level=self.level, samples=n)
        # the mean of gain/η is zero at the crossing: a line in η for every sample, or nearly so
        rates = outer / at - self.strata.weights @ outer / at
        rises = (outer / at - inner / (INSIDE * at)) / (at - INSIDE * at)
        means, cov, skew = self.strata.moments(rises * at - rates, rises)
        return ratio(
            *means,
            variances=(float(cov[0, 0]), float(cov[1, 1])),
            covariance=float(cov[0, 1]),
            level=self.level,
            samples=n,
            freedom=self.strata.counts[1] - 1,
            skew=skew,
        )

    def _none(self, gains: Tensor, low: float, high: float) -> Estimate:
        """Why there is no crossing; `gains` are those at the end where the loss is known."""
        (mean,), cov, _ = self.strata.moments(gains)
        exact, freedom = self.strata.is_exact, self.strata.counts[1] - 1
        error = 0.0 if exact else quantile(self.level, freedom) * math.sqrt(float(cov[0, 0]))
        if math.isinf(high) and mean <= -error:
            return self._unresolved(Status.NO_RISE, low=low)
        if math.isfinite(high) and (exact or mean >= error):
            return self._unresolved(Status.NO_DESCENT, high=high)
        return self._unresolved(Status.SIGNAL_BELOW_NOISE)

    def _unresolved(self, status: Status, low: float = 0.0, high: float = math.inf) -> Estimate:
        n = self.problem.samples.count
        return Estimate(math.nan, low, high, self.level, math.nan, n, status)

    def _losses(self, at: float) -> Tensor:
        """ℓ_i(w - ηu), shape (n,), on the CPU."""
        problem, failure = self.problem, ""
        parameters = list(problem.objective.parameters.values())
        parts: list[Tensor] = []
        with moved(parameters, self.update, -at):
            try:
                parts = [problem.objective.losses(b).detach().cpu() for b in problem.batches()]
            except LossError as error:
                failure = str(error)
        told = problem.objective.ranks.gathered(
            (failure, [part.dtype for part in parts[:1]]), "losses"
        )
        failure = next((text for text, _ in told if text), "")
        if failure:
            raise LossError(failure)
        dtype = next(kinds[0] for _, kinds in told if kinds)
        return problem.rows(torch.cat([torch.zeros(0, dtype=dtype), *parts]))
