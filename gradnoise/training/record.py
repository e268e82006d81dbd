"""One training run of a grid, and how it ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

_NESTED = ("run", "metrics")


@dataclass(frozen=True)
class Run:
    """One training run of a grid.

    Args:
        batch_size, lr, seed: B, ε, and what initialises the model and orders the samples.
        budget: "epochs" or "steps": what is equal for all batch sizes.
        steps: how many it takes.
    """

    batch_size: int
    lr: float
    seed: int
    budget: str
    steps: int

    @property
    def key(self) -> str:
        """The same for the same run."""
        return f"{self.budget} {self.steps} B{self.batch_size} lr{self.lr:.9g} seed{self.seed}"


@dataclass(frozen=True)
class Record:
    """How a run ended.

    Args:
        run: the run.
        diverged: whether it did; see `DivergenceMonitor`.
        stopped: the step at which it was given up, None where it went to its end.
        start_loss, train_loss: mean loss over the judged samples before and after.
        test_loss: over the test samples, None without any.
        metrics: means over the test samples by name.
        averaged_loss: as train_loss, at the mean weights of the last half; None: not taken.
        late_loss: mean of the batch losses of the last quarter of the steps; None: not taken. With
            a schedule of the learning rate both are train_loss.
        mean_batch_loss: mean of the batch losses of all steps; only with a schedule.
    """

    run: Run
    diverged: bool
    stopped: int | None
    start_loss: float
    train_loss: float
    test_loss: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    averaged_loss: float | None = None
    late_loss: float | None = None
    mean_batch_loss: float | None = None

    def row(self) -> dict[str, Any]:
        """All of it side by side, as a line of a table."""
        own = {name: value for name, value in asdict(self).items() if name not in _NESTED}
        return {**asdict(self.run), **own, **self.metrics}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Record:
        """A record from `dataclasses.asdict` that was read from JSON."""
        run, stopped, test_loss = fields["run"], fields["stopped"], fields["test_loss"]
        taken = [fields.get(name) for name in ("averaged_loss", "late_loss", "mean_batch_loss")]
        return cls(
            Run(
                int(run["batch_size"]),
                float(run["lr"]),
                int(run["seed"]),
                str(run["budget"]),
                int(run["steps"]),
            ),
            bool(fields["diverged"]),
            None if stopped is None else int(stopped),
            float(fields["start_loss"]),
            float(fields["train_loss"]),
            None if test_loss is None else float(test_loss),
            {name: float(value) for name, value in fields["metrics"].items()},
            *(None if loss is None else float(loss) for loss in taken),
        )
