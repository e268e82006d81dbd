"""How per-sample gradients are made, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ..show.table import listed, plain_table, render

if TYPE_CHECKING:
    from .explain import EngineReport


def explain(report: EngineReport) -> str:
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
    """Of a forward and a backward pass: three products for each weight gradient's one."""
    share = extra / (3 * sum(use.plain for use in report.uses) or 1)
    return "<0.1%" if 0 < share < 0.001 else f"{share:.1%}"


def _sum(report: EngineReport) -> str:
    extra = sum(use.extra for use in report.uses)
    return (
        f"cost: operations beyond a forward and backward pass, in parts of it: "
        f"{_share(extra, report)} in all. Seconds depend on memory as well: time it."
    )
