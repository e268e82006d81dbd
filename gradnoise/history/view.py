"""A run in a terminal: its numbers, what they mean, and charts against the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..show.chart import Curve, chart
from ..show.table import cells, integer, listed, plain_table
from ..statistics.estimate import Estimate, short
from .meaning import about_batch, about_run, noise_scale, over
from .pool import RunPool
from .run_file import Run
from .summary import Part, Summary

WIDTH = 80
CHART_ROWS = 8, 6  # of the noise scale and of the loss, where lines do not count
FEWEST_ROWS = 3


def view(run: Run, path: Path, console: Console, now: float, rows: int | None = None) -> Constrain:
    """What `gradnoise watch` shows of a run with at least one line.

    Args:
        run: as read.
        path: of its file.
        console: on which it is shown.
        now: the time, in seconds since 1970.
        rows: lines that there are; None for as many as it takes.
    """
    width = min(console.width, WIDTH)
    words = [_heading(run, path, now, width), _numbers(run), *_sentences(run)]
    options = console.options.update(width=width)
    used = sum(len(console.render_lines(part, options, pad=False)) for part in words)
    free = None if rows is None else rows - used
    return Constrain(Group(*words, *_charts(run, width, free)), width)


def nothing_yet(run: Run, name: str) -> str:
    """What is said of a file without a measured step."""
    return "\n".join([f"{name}: no measured step yet", *run.notes])


def whole_run(found: Summary, pool: RunPool) -> Group:
    """The section "over the whole run"."""
    table = plain_table("steps", "B_simple", "interval", "B", "B/B_simple", "learning rate ε")
    table.columns[-1].justify = "right"
    for name, part in zip(("all", "", "", ""), (found.whole, *found.thirds), strict=True):
        table.add_row(name or f"{integer(part.first)} to {integer(part.last)}", *_part(part))
    title = "Over the whole run: B_simple = Σ trΣ/Σ|G|² of its measured steps, in samples"
    sentences = listed("What it says", tuple(about_run(found, pool)))
    parts = [Text(title, style="bold"), table, Text(), *_critical(pool), *sentences]
    return Group(*parts)


def _critical(pool: RunPool) -> list[RenderableType]:
    """B_crit of a run to here, and of what was left of it at some steps; empty where unknown."""
    if pool.unknown:
        return []
    table = plain_table("run", "B_crit", "interval", "B", "B/B_crit")
    table.columns[-1].justify = "right"
    rows = [("from its beginning to here", pool.batch_size, pool.critical_batch_size())]
    for own in pool.some_of_the_rest:
        rows.append(
            (f"the rest from step {integer(own.step)}", own.batch_size, own.critical_batch_size)
        )
    for name, size, critical in rows:
        table.add_row(name, *cells(critical, ""), integer(size), cells(over(size, critical), "")[0])
    title = "Critical batch size of training: B_crit = ε_max·trΣ/D, in samples"
    return [Text(title, style="bold"), table, Text()]


def _part(part: Part) -> tuple[str, ...]:
    ratio = over(part.batch_size, part.noise_scale)
    values = [cells(estimate, "") for estimate in (part.noise_scale, ratio)]
    interval = values[0][1] if part.noise_scale.is_resolved else "only a bound"
    return values[0][0], interval, integer(part.batch_size), values[1][0], short(part.lr)


def _heading(run: Run, path: Path, now: float, width: int) -> Text:
    """Where the run is and when that was written; loss and learning rate."""
    age = now - run.last("time")
    right = f" written {_ago(age)} ago" if math.isfinite(age) else ""
    line = Text.assemble((path.name, "bold"), f"   step {integer(run.last('step'))}")
    line.truncate(width - len(right), overflow="ellipsis", pad=True)
    return line.append(f"{right}\n{' · '.join(_state(run))}\n")


def _ago(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _state(run: Run) -> list[str]:
    parts = [f"{integer(run.last('measured'))} steps measured (source: {run.sources[-1]})"]
    if run.last("skipped") > 0:
        parts.append(f"{integer(run.last('skipped'))} skipped")
    known = {"loss": run.last_of("loss"), "learning rate ε": run.last_of("lr")}
    return parts + [f"{name} {short(x)}" for name, (x,) in known.items() if math.isfinite(x)]


def _numbers(run: Run) -> Table:
    """The last numbers, with their intervals and formulas."""
    scale, batch = noise_scale(run), run.last("batch_size")
    whose = " of normalisation layers alone" if run.sources[-1] == "norm_layers" else ""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True, style="bold")
    table.add_column()
    table.add_row("noise scale B_simple", *_cells(scale, f"trΣ/|G|²{whose}, in samples"))
    table.add_row("B/B_simple", *_cells(over(batch, scale), f"batch size B = {integer(batch)}"))
    value, low, high = (run.last(f"critical_batch_size{end}") for end in ("", "_low", "_high"))
    if math.isfinite(value):
        ends = f"{short(low)} to {short(high)}"
        table.add_row("B_crit", short(value), f"{ends}; ε_max·trΣ/D, to here, in samples")
    elif math.isfinite(low):
        table.add_row("B_crit", f"≥ {short(low)}", "the loss did not fall; ε_max·trΣ/D, to here")
    for row in _limits(run):
        table.add_row(*row)
    return table


def _cells(estimate: Estimate, note: str) -> tuple[str, str]:
    value, interval = cells(estimate, "")
    if not estimate.is_resolved:
        bounded = estimate.bounds_in_words() != "unknown"
        interval = "only a bound so far" if bounded else "too few steps so far"
    return value, f"{interval}; {note}"


def _limits(run: Run) -> list[tuple[str, str, str]]:
    """The learning rate against its limits at this point, where they were measured."""
    rows = []
    step, lr, sharpness, stable = run.last_of("step", "lr", "sharpness", "stable_lr")
    if math.isfinite(step):
        note = f"beyond 1 gradient descent is unstable (step {integer(step)})"
        rows.append(("ε·λ/2", short(lr * sharpness / 2), note))
        if not math.isclose(stable * sharpness, 2, rel_tol=1e-3):  # momentum, or Adam
            note = f"beyond 1 this optimizer is, gn.stable_lr (step {integer(step)})"
            rows.append(("ε/stable", short(lr / stable), note))
    return rows


def _sentences(run: Run) -> list[RenderableType]:
    ratio = over(run.last("batch_size"), noise_scale(run))
    is_known = math.isfinite(run.last("critical_batch_size"))
    lines: list[RenderableType] = [Padding(Text(about_batch(ratio, is_known)), (1, 0))]
    if run.restarts:
        why = "resumed, or two runs in one file; later lines count"
        lines.append(Text(f"Steps went back: {run.restarts} times ({why})"))
    lines += [Text(f"Not measured, or doubtful: {note}") for note in run.notes]
    if run.unreadable:
        lines.append(Text(f"Lines that could not be read: {run.unreadable}"))
    return lines


def _charts(run: Run, width: int, rows: int | None) -> Sequence[Text]:
    """The noise scale and, where there is one, the loss; fewer where there is no room."""
    column, losses = run.column, np.isfinite(run.column("loss")).any()
    heights = CHART_ROWS if losses else (sum(CHART_ROWS), 0)
    if rows is not None:
        free = rows - (4 if losses else 3)  # titles, and the x axis
        heights = (free - free * 3 // 7, free * 3 // 7) if losses else (free, 0)
        heights = min(heights[0], 16), min(heights[1], 12)
    if heights[0] < FEWEST_ROWS:
        return []
    scale = Curve(
        column("step"),
        column("noise_scale"),
        column("noise_scale_low"),
        column("noise_scale_high"),
        column("batch_size"),
        log=True,
    )
    title = Text.assemble(
        "noise scale ", ("⠤⠒⠉", "bold cyan"), " interval ", ("░░", "blue"), " batch size ",
        ("╌╌", "yellow"), " (samples)"
    )  # fmt: skip
    with_loss = losses and heights[1] >= FEWEST_ROWS - 1
    found = [title, chart(scale, width, heights[0], labelled=not with_loss)]
    if with_loss:
        found += [Text("loss"), chart(Curve(column("step"), column("loss")), width, heights[1])]
    return found
