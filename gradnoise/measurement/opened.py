"""A model opened for measuring, and the results computed so far."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, TypeVar

from torch import nn

from ..linalg.operator import MEMORY_BUDGET
from ..moments.measure import stream, with_intervals
from ..moments.moments import GradientMoments
from ..operators.gradients import chosen_engine
from ..operators.hessian import Hessian
from ..per_sample.contract.engine import Engine
from ..problem.losses.loss_fn import LossFn
from ..problem.options import Options
from ..problem.problem import Problem
from ..problem.state.wrappers import batch_size_of
from ..problem.unit import Unit

Kept = TypeVar("Kept")
Own = TypeVar("Own", bound="Opened")


class Opened:
    """A model with samples drawn once, and the engine, moments and Hessian computed from them.

    Results are kept: it is used within one call, in which nothing changes. What `gn.measure`
    returns lives longer, and looks for changes (`Measurement`).

    Args:
        problem: the objective and the samples.
        options: how to measure.
        batch_size: that of the user's loader, if there is one.
    """

    def __init__(
        self, problem: Problem, options: Options, *, batch_size: int | None = None
    ) -> None:
        self.options, self._problem, self.batch_size = options, problem, batch_size
        self._kept: dict[Hashable, Any] = {}

    @classmethod
    def open(
        cls: type[Own], model: nn.Module, loss_fn: LossFn | nn.Module, data: Any, options: Options
    ) -> Own:
        """Draw the samples and check that there is something to measure; see `Problem.open`."""
        problem = Problem.open(model, loss_fn, data, options)
        return cls.of(problem, options, batch_size=_batch_size(data, problem))

    @classmethod
    def of(
        cls: type[Own], problem: Problem, options: Options, *, batch_size: int | None = None
    ) -> Own:
        """Of a problem that has just been opened, and is in its metric."""
        found = cls(problem, options, batch_size=batch_size)
        found.keep("problem", lambda: problem)
        return found

    @property
    def problem(self) -> Problem:
        """The objective where the model stands, and the samples."""
        return self.keep("problem", lambda: self._problem.in_metric(self.options))

    @property
    def unit(self) -> Unit:
        """What is drawn at random in training; moments and operators are about its gradients."""
        return self._problem.unit

    @property
    def engine(self) -> Engine:
        """The per-sample gradient engine."""
        problem = self.problem
        return self.keep("engine", lambda: chosen_engine(problem, self.options.engine))

    def moments(
        self, *, variance: bool = False, intervals: bool = True, tick: Any = None
    ) -> GradientMoments:
        """Moments of the per-sample gradients, with the variance per coordinate where wanted.

        Args:
            variance: keep the variance of every coordinate.
            intervals: measure what the intervals need.
            tick: progress callback, called with the number of samples of every part of the pass.
        """

        def measured() -> GradientMoments:
            if intervals:
                streamed = self.moments(variance=variance, intervals=False, tick=tick)
                return with_intervals(self.problem, self.engine, streamed)
            level = self.options.level
            return stream(self.problem, self.engine, level=level, variance=variance, tick=tick)

        return self.keep(("moments", variance, intervals), measured)

    def in_samples(self, moments: GradientMoments) -> GradientMoments:
        """Moments with results in samples, also where units are groups."""
        return replace(moments, group_size=self.unit.size)

    def hessian(self, *, hvp: str = "auto", memory_budget: int = MEMORY_BUDGET) -> Hessian:
        """H, with the graphs that its products keep."""

        def made() -> Hessian:
            found: Hessian = Hessian.of(self.problem, hvp=hvp, memory_budget=memory_budget)
            return found

        return self.keep(("hessian", hvp, memory_budget), made)

    def keep(self, key: Hashable, compute: Callable[[], Kept]) -> Kept:
        """The result of `compute`, computed once."""
        if key not in self._kept:
            self._kept[key] = compute()
        return self._kept[key]  # type: ignore[no-any-return]

    def of_some(self, count: int) -> Opened:
        """Of so many of its samples; itself where there are no more."""
        samples = self._problem.samples.some(count, int(self.options.seed))
        if samples is self._problem.samples:
            return self
        problem = replace(self._problem, samples=samples)
        return Opened(problem, self.options, batch_size=self.batch_size)

    def anew(self) -> Opened:
        """The same samples with nothing computed yet, for use after parameters have changed."""
        return Opened(self._problem, self.options, batch_size=self.batch_size)


def _batch_size(data: Any, problem: Problem) -> int | None:
    """B of a loader, of all ranks together; None where it is not known."""
    ranks = problem.objective.ranks
    told = ranks.gathered(batch_size_of(data, problem.samples.sets), "batch sizes")
    known = [size for size in told if size is not None]
    return round(sum(known) / len(known)) if known else None
