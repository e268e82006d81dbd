"""What the file of a finished run says about the batch size that it should have had."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import NotMeasuredError, positive
from ..show.table import cells, integer, plain_table, render
from ..statistics.estimate import Estimate, Status, short
from .critical import CriticalBatch
from .run_file import Run
from .summary import pooled

FIRST, LAST = 0.1, 0.75  # of the run: where the rest of it is judged
ROWS = 4  # of the table
CRITICAL, SIMPLE = "B_crit = ε_max·trΣ/D", "B_simple = Σ trΣ/Σ|G|²"


@dataclass(frozen=True)
class Rest:
    """What was left of a run from a measured step on.

    Args:
        step: how many steps the run had taken.
        batch_size: B, the mean from there on.
        critical_batch_size: B_crit of the steps that were left, from what was measured until then.
    """

    step: int
    batch_size: float
    critical_batch_size: Estimate


@dataclass(frozen=True, eq=False)
class RunPool:
    """What the file of a `NoiseMonitor` says about its run as a whole; `print` it.

    **The critical batch size** B_crit = ε_max·trΣ/D is where noise and curvature limit the rate
    alike; see `Pool`. A run of batch size B takes about 1 + B/B_crit times the fewest samples and
    1 + B_crit/B times the fewest steps, each batch size with its best rate. Here D = -dL/d ln t is
    the slope of the losses of measured steps, and every step t weighs t. The file has what it needs
    where the loop gives `step.loss`, and the monitor `loss_fn` and `data`. Along a run that has a
    hundred measured steps it is nearly as right as that of `gn.pool` from profiles; with forty it
    often has no value (docs/advice.md has the comparison with training).

    Args:
        run: the measured steps.
        level: coverage of the interval of B_simple.

    Source: as of `Pool`.
    """

    run: Run
    level: float = 0.95

    def critical_batch_size(self, ahead: float | None = None) -> Estimate:
        """B_crit in samples, of a run from its beginning to here, or of the steps ahead.

        The interval reaches from half of the smaller one of B_simple and this, with a fall of the
        loss that is larger by two standard errors, to twice the larger one.

        Args:
            ahead: n, in steps; None for a run from its beginning to here.

        Returns:
            Estimate; without a value where the loss did not fall.

        Raises:
            NotMeasuredError: the file has no loss, or no λ of an optimizer that is known.
            ArgumentError: `ahead` is not positive.
        """
        self._check()
        steps = None if ahead is None else positive("ahead", ahead)
        *_, last = self._course()
        return last.result(self.level, steps)

    @property
    def simple_noise_scale(self) -> Estimate:
        """B_simple = Σ trΣ/Σ|G|² along the run, in samples; each measured step has the weight 1."""
        _, trace, signal = self.run.moments()
        return pooled(trace, signal, self.level)

    @property
    def sharpness(self) -> tuple[float, float]:
        """The smallest and the largest λ along the run; (nan, nan) where none was measured."""
        values = self.run.column("sharpness")
        known = values[np.isfinite(values)]
        return (float(known.min()), float(known.max())) if len(known) else (math.nan, math.nan)

    @cached_property
    def rest(self) -> tuple[Rest, ...]:
        """B_crit of what was left of the run, at each measured step of 10 to 75 % of it.

        Raises:
            NotMeasuredError: as of `critical_batch_size`.
        """
        self._check()
        end, sizes, found = self.run.last("step"), self.run.batch_sizes[::-1], []
        counts = np.cumsum(np.isfinite(sizes))
        after = (np.nancumsum(sizes) / np.where(counts, counts, math.nan))[::-1]  # mean from here
        for i, at in enumerate(self._course()):
            if FIRST * end <= at.step <= LAST * end:
                own = at.result(self.level, end - at.step)
                if own.status is not Status.NO_INTERVAL:
                    found.append(Rest(round(at.step), float(after[i]), own))
        return tuple(found)

    @property
    def larger_from(self) -> float:
        """The step from which B_crit of the rest was above B until 75 % of the run; nan for none.

        Twice the batch size from there on takes at most 1.5 times the samples in at most 0.75 times
        the steps, with its best rate.
        """
        since = math.nan
        for own in reversed(self.rest):
            if not own.critical_batch_size.value > own.batch_size:
                break
            since = float(own.step)
        return since

    @property
    def confidence(self) -> str:
        """ "rough", or "none" where nothing has a value; only trials in training are "good"."""
        scales = [self.simple_noise_scale]
        scales += [] if self.unknown else [self.critical_batch_size()]
        return "none" if all(math.isnan(scale.value) for scale in scales) else "rough"

    @property
    def batch_size(self) -> float:
        """B, the mean over the measured steps; nan where the file does not say it."""
        sizes = self.run.batch_sizes
        return float(np.nanmean(sizes)) if np.isfinite(sizes).any() else math.nan

    def __str__(self) -> str:
        table = plain_table("measured", "value", "interval")
        for label, estimate in self._estimates():
            table.add_row(label, *cells(estimate, "samples"))
        low, high = self.sharpness
        table.add_row("sharpness λ", "", f"{short(low)} to {short(high)} along the run")
        heading = f"{len(self.run)} measured steps of a run; confidence: {self.confidence}"
        return "\n".join(filter(None, [heading, render([table]), self.unknown]))

    def _estimates(self) -> Iterator[tuple[str, Estimate]]:
        if not self.unknown:
            yield CRITICAL, self.critical_batch_size()
            for own in self.some_of_the_rest:
                yield f"of the rest from step {integer(own.step)}", own.critical_batch_size
        yield SIMPLE, self.simple_noise_scale

    @property
    def some_of_the_rest(self) -> list[Rest]:
        """Four of `rest`, evenly spaced."""
        found = self.rest
        places = np.linspace(0, len(found) - 1, min(ROWS, len(found))).round().astype(int)
        return [found[i] for i in places]

    def _course(self) -> Iterator[CriticalBatch]:
        """What was known at each line: one object, which goes on."""
        names = ("step", "loss", "trace_cov_now", "grad_sq_norm_now")
        more = ("sharpness", "momentum", "metric_factor")
        known = CriticalBatch()
        for step, loss, trace, signal, *curvature in zip(
            *(self.run.column(name).tolist() for name in (*names, *more)), strict=True
        ):
            if math.isfinite(trace + signal):
                known.add(step, loss, trace, signal)
            known.add_sharpness(step, *curvature)
            yield known

    def _check(self) -> None:
        if self.unknown:
            raise NotMeasuredError(self.unknown)

    @property
    def unknown(self) -> str:
        """What the file lacks for B_crit; empty where it has all."""
        if "norm_layers" in self.run.sources:
            return "B_crit needs the noise of the whole model: the file has that of norm_layers"
        if np.isfinite(self.run.column("sharpness")).any() and self._lacks("metric_factor"):
            return "B_crit needs an optimizer whose limit is known (gn.stable_lr): λ alone is there"
        for columns, cure in _NEEDED.items():
            if self._lacks(*columns):
                return f"B_crit needs `gradnoise/{columns[0]}` in the file: {cure}"
        return ""

    def _lacks(self, *columns: str) -> bool:
        """Whether no line has all of these."""
        return not np.isfinite(sum(self.run.column(name) for name in columns)).any()


_NEEDED = {
    ("loss",): "set `step.loss` in the training loop",
    ("sharpness", "momentum", "metric_factor"): "give `loss_fn`, `data` and the optimizer to "
    "gn.NoiseMonitor; with Adam λ is there from the 100th step on",
}
