"""`gn.sweep`: train over a grid of learning rates, batch sizes and seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import nn

from ..errors import check_whole
from ..problem.losses.loss_fn import LossFn
from ..problem.state.guard import untouched
from ..profiles.results import Results
from ..show.axes import plotted
from ..training.execute import run_all
from ..training.fingerprint import fingerprint, start_values
from ..training.ledger import Ledger, read
from ..training.plan import Metric
from ..training.schedule import Schedule
from ..training.vectorise import groups, runs_per_program
from .grid import first_model, make_grid, make_plan
from .knee import with_lost
from .picture import sweep as drawn
from .runs import Runs
from .table import write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Sweep(Runs):
    """The runs of a sweep and what follows from them.

    Args:
        records: one per run.
        settings: what all have in common, in words.
        vectorised: how many runs were one program; 0 where each was trained by itself.
        reason: why so: what prevents one program, or the time of a step both ways.
    """

    @overload
    def plot(
        self,
        path: str | Path | None = None,
        *,
        predictions: Results | None = None,
        best: str | None = "train_loss",
        axes: None = None,
    ) -> Figure: ...
    @overload
    def plot(
        self,
        path: str | Path | None = None,
        *,
        predictions: Results | None = None,
        best: str | None = "train_loss",
        axes: Axes,
    ) -> Axes: ...
    def plot(
        self,
        path: str | Path | None = None,
        *,
        predictions: Results | None = None,
        best: str | None = "train_loss",
        axes: Axes | None = None,
    ) -> Figure | Axes:
        """Stable and diverged runs, the fit of B_c, and what a profile predicts.

        Args:
            path: where to save it as well; the suffix gives the format.
            predictions: a profile whose limits are drawn in.
            best: what the best learning rates are best by; None leaves them out.
            axes: draw into these matplotlib Axes.

        Returns:
            The new matplotlib Figure; or `axes` where they were given.

        Raises:
            ArgumentError: the file cannot be written, or not in that format.
            ImportError: matplotlib is not installed.
        """
        return plotted(
            lambda: drawn(self, predictions=predictions, best=best, axes=axes), path, axes
        )

    @classmethod
    def load(cls, path: str | Path) -> Sweep:
        """The finished runs of a file that `gn.sweep` writes.

        Raises:
            SweepFileError: no such file, or not of a sweep.
        """
        header, how, records = read(path)
        return cls(tuple(records if header.get("goes_on") else with_lost(records)), header, *how)

    def __str__(self) -> str:
        return write(self)


def sweep(
    make_model: Callable[[], nn.Module] | nn.Module,
    loss_fn: LossFn | nn.Module,
    train_data: Any,
    *,
    batch_sizes: Sequence[int],
    lrs: Sequence[float] | Callable[[int], Sequence[float]],
    momentum: float = 0.0,
    epochs: float | None = None,
    steps: int | None = None,
    seeds: int | Sequence[int] = 1,
    executor: Executor | None = None,
    optimizer: str | torch.optim.Optimizer = "sgd",
    weight_decay: float = 0.0,
    schedule: str | Schedule | None = None,
    test_data: Any = None,
    metrics: Mapping[str, Metric] | None = None,
    vectorise: bool | str = "auto",
    path: str | Path | None = None,
    progress: bool = False,
) -> Sweep:
    """Train with every learning rate, batch size and seed; find the stable and the best rates.

    Runs of one batch size are one vectorised program where the model allows it (one step is
    compared with torch's own) and where that is faster (one step is timed both ways). Batches are
    drawn without replacement, anew every epoch, the same for all learning rates of a seed; an
    incomplete last batch is left out.

    A run *diverges* when its loss is not finite, exceeds 10⁴ times its start (on a running mean of
    ten steps), ends above its start, or ends above 0.9 of its start although the running mean was
    above 1.5 of it or a smaller learning rate got below that. A run that goes on from a trained
    model diverges when it ends above √2 times its start (docs/branches.md).

    Args:
        make_model: returns a new model, called without arguments under each seed, which decides
            its weights. With a torch optimizer: the model that it trains, which is not changed.
        loss_fn: as for `gn.profile`.
        train_data: as for `gn.profile`, all of it; samples of equal shapes.
        batch_sizes: B in samples.
        lrs: ε in parameter²/loss; a function of B for other rates at every batch size, such as
            `lambda B: [gn.scale_lr(0.1, 32, B)]`.
        momentum: m, or β₁ of "adam".
        epochs: length of the runs in passes over the data.
        steps: length of the runs in steps; given with `epochs`, both are swept.
        seeds: how many, or which.
        executor: any `concurrent.futures.Executor`: processes here, or a cluster's; None trains
            in this process.
        optimizer: "sgd", "nesterov" or "adam", as torch has them; or a torch optimizer: runs start
            from where it and its model stand, and ε is that of its first parameter group.
        weight_decay: its coefficient, as a penalty.
        schedule: factor of ε by the fraction of a run that is done, from 0 to below 1; or "linear"
            or "cosine", which fall from 1 to 0.
        test_data: what `test_loss` and `metrics` are about.
        metrics: `metric(model, batch)` with one number per sample, by name.
        vectorise: True: the runs of a batch size are one program; False: one by one; "auto": the
            faster of the two.
        path: of a file that finished runs are written to as they finish. With the same file a
            sweep that was stopped goes on; the grid may grow. Losses, models and metrics are
            compared by their values on the data, to a relative 10⁻⁵.
        progress: show a progress bar on stderr.

    Returns:
        Sweep.

    Raises:
        ArgumentError: an argument out of range; neither `epochs` nor `steps`; `vectorise=True`
            where the model does not allow it; `make_model` returns one model twice, or weights
            that the seed does not decide; something that cannot be sent to the executor.
        SweepFileError: `path` is of another sweep, or damaged.

    Example:
        >>> import torch
        >>> from gradnoise.toy import NoisyQuadratic
        >>> toy = NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
        >>> data = toy.sample(64, seed=0)
        >>> found = sweep(toy.model, toy.loss_fn, data, batch_sizes=[16], lrs=[0.4, 0.6], steps=50)
        >>> found.largest_stable()  # 2/λ = 0.5
        {16: 0.4}
    """
    with untouched(make_model if isinstance(make_model, nn.Module) else nn.Identity(), train_data):
        plan = make_plan(
            make_model, loss_fn, train_data, test_data, metrics, optimizer, momentum, weight_decay,
            schedule,
        )  # fmt: skip
        if not isinstance(seeds, Iterable):
            check_whole("seeds", seeds, 0)
            seeds = range(int(seeds))
        runs = make_grid(plan, batch_sizes, lrs, list(seeds), epochs, steps)
        model = first_model(plan)
        header = {
            "fingerprint": fingerprint(plan, model),
            "optimizer": plan.optimizer,
            "momentum": plan.momentum,
            "weight_decay": plan.weight_decay,
            "start": start_values(plan, model),
            **({} if plan.start is None else {"goes_on": True}),
        }
        ledger = Ledger(path, header)
        done = {record.run.key for record in ledger.records}
        if not done.issuperset(run.key for run in runs):
            most, reason = runs_per_program(plan, model, runs, vectorise, ledger.how)
            ledger.trained(max(len(group) for group in groups(runs, most)) if most else 0, reason)
            run_all(plan, runs, ledger, most, executor, progress)
        records = {record.run.key: record for record in ledger.records}
        ended = [records[run.key] for run in runs]
        return Sweep(tuple(ended if plan.start else with_lost(ended)), header, *ledger.how)
