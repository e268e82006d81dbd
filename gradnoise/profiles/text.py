"""The report on a console: what to do, the numbers behind it, what is left open, how measured."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from ..show.table import fitted, integer, listed, plain_table, render, width
from ..statistics.estimate import percent
from .contents import (
    SYMBOLS,
    Row,
    batch_sizes,
    caveats,
    compared,
    exactness,
    findings,
    how_measured,
    key_rows,
    measured_rows,
    rate_rows,
    title,
    units,
    when_and_where,
)
from .layer_table import by_layer, limiting_layer
from .results import Results, has_curvature, is_unsettled

NARROW = 72  # characters; a shorter line has room for three batch sizes
MORE = (
    "All numbers, limits over batch size and layers: print(p.report(full=True)), --full. As a page "
    "with pictures: p.to_html(path), gradnoise report."
)
Parts = list[Text | Table]


def write(profile: Results, *, full: bool = False) -> str:
    """The report as plain text; with all tables on request."""
    parts: Parts = [*listed(title(profile), profile.recommend().reasons)]
    if findings(profile):
        parts += [
            Text(),
            *listed("What this point of training says (trials count more)", findings(profile)),
        ]
    parts += [Text(), *(_tables(profile) if full else _key_numbers(profile))]
    if caveats(profile):
        parts += [Text(), *listed("Please note", caveats(profile))]
    how = how_measured(profile) + (when_and_where(profile) if full else [])
    parts += [Text(), *listed("How it was measured", tuple(how))]
    return render(parts if full else [*parts, Text(), Text(MORE)])


def _key_numbers(profile: Results) -> Parts:
    """The numbers that carry the verdict, and the layer that limits the rate."""
    limiting = limiting_layer(profile)
    notes = [SYMBOLS, exactness(profile), limiting]
    table = _table("numbers behind it", profile, "formula or meaning", key_rows(profile))
    return [*fitted(table), Text(), *(Text(note) for note in notes if note)]


def _tables(profile: Results) -> Parts:
    """Everything that was measured, limits over batch size, and the layers."""
    table = _table("measured", profile, "what it means", measured_rows(profile))
    notes = " ".join(filter(None, (SYMBOLS, exactness(profile), units(profile))))
    parts: Parts = [*fitted(table), Text(), Text(notes)]
    if has_curvature(profile) and not is_unsettled(profile):
        parts += [Text(), *_learning_rates(profile)]
    return [*parts, Text(), *by_layer(profile)]


def _table(heading: str, profile: Results, last: str, rows: list[Row]) -> Table:
    table = plain_table(heading, "value", f"{percent(profile.level)} interval", last)
    for row in rows:
        table.add_row(*row)
    return table


def _learning_rates(profile: Results) -> Parts:
    batches = batch_sizes(profile)
    if width() < NARROW:
        middle = profile.setting.batch_size or batches[1]
        batches = sorted({batches[0], int(middle), batches[-1]})
    table = plain_table("learning rate at B =", *map(integer, batches), "what it means")
    for label, values, meaning in rate_rows(profile, batches):
        table.add_row(label, *values, meaning)
    return [*fitted(table), Text(), *listed("The limits compared", compared(profile, batches))]
