"""A report of what an engine does with a model, and why."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table
from rich.text import Text
from torch import nn

from ..problem.losses.loss_fn import LossFn
from ..show.table import listed, plain_table, render
from ..tensors.trees import Batch
from .choice import choose
from .contract.engine import Explained
from .public import open_batch


@dataclass(frozen=True, repr=False)
class EngineReport:
    """How the per-sample gradients of one model are made; `print` shows it as a table.

    Args:
        engine: its name.
        reason: why it was chosen.
        uses: parameter by parameter: operation, rule, reason, operations; empty for engines that
            treat the model as a whole.
        ways_out: what to do where the cheapest engine could not be used.
    """

    engine: str
    reason: str
    uses: tuple[Explained, ...]
    ways_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        return _text(self)

    __repr__ = __str__


def explain_engine(
    model: nn.Module, loss_fn: LossFn | nn.Module, batch: Batch, *, engine: str = "auto"
) -> EngineReport:
    """How per-sample gradients of a model are made: per parameter the rule, why, and its cost.

    The cost is counted in operations per sample beyond those of the parameter's batch gradient.

    Args:
        model, loss_fn, batch: as for `per_sample_gradients`.
        engine: "auto", or the engine to explain.

    Returns:
        EngineReport.

    Raises:
        GradNoiseError: see `gradient_moments`.

    Example:
        >>> import torch
        >>> batch = (torch.ones(4, 2), torch.zeros(4, 1))
        >>> report = explain_engine(nn.Linear(2, 1), nn.MSELoss(), batch)
        >>> [(use.parameter, use.rule) for use in report.uses]
        [('weight', 'product of norms'), ('bias', 'sum over positions')]
    """
    with open_batch(model, loss_fn, batch) as problem:
        whole = problem.largest_batch()
        chosen = choose(problem.objective, whole, engine)
        uses = tuple(chosen.explain(whole))
    return EngineReport(chosen.name, chosen.reason, uses, _WAYS_OUT if chosen.failures else ())


_WAYS_OUT = (
    "The results are correct, but cost more than the gradient of the batch.",
    "Use parameters through torch operations on tensors that keep one axis for the samples, "
    "rather than in custom autograd functions, scripted code or loops over samples, and the "
    "cheapest engine can follow.",
)


def _text(report: EngineReport) -> str:
    """The report as plain text."""
    parts: list[Text | Table] = [Text(f"engine {report.engine!r}: {report.reason}")]
    if report.uses:
        parts += [Text(), _uses(report), Text(), Text(_sum(report))]
    if report.ways_out:
        parts += [Text(), *listed("What to do", report.ways_out)]
    return render(parts)


def _uses(report: EngineReport) -> Table:
    table = plain_table("parameter", "operation", "rule", "cost", "why")
    for column in (1, 2):
        table.columns[column].justify = "left"
    for use in report.uses:
        table.add_row(
            use.parameter, use.operations, use.rule, _share(use.extra, report), use.reason
        )
    return table


def _share(extra: float, report: EngineReport) -> str:
    """Share of a forward and backward pass: three products for each weight gradient's one."""
    share = extra / (3 * sum(use.plain for use in report.uses) or 1)
    return "<0.1%" if 0 < share < 0.001 else f"{share:.1%}"


def _sum(report: EngineReport) -> str:
    extra = sum(use.extra for use in report.uses)
    return (
        f"cost: operations beyond a forward and backward pass, in parts of it: "
        f"{_share(extra, report)} in all. Seconds depend on memory as well: time it."
    )
