"""Two profiles side by side, as text: the verdict first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from rich.table import Table
from rich.text import Text

from ..learning_rate.advice import Recommendation
from ..show.table import integer, listed, or_listed, plain_table, render
from ..statistics.change import CANNOT_TELL, Change
from ..statistics.estimate import Estimate, percent, short
from .compared import MOST, AtBatch, Compared
from .contents import LIMITS, MEASURED

LABELS = {
    **{item.name: item.label for item in MEASURED},
    **{limit.method: limit.label for limit in LIMITS},
    "stable_lr": "stable rate",
    "sharpness_share": "share of λ",
}
SMALL = 0.05  # relative change that is told in a group


def write(found: Compared) -> str:
    """The comparison as plain text."""
    first, second = found.names
    parts: list[Text | Table] = [Text(f"{first}, then {second}"), Text()]
    parts += listed("What changed", tuple(verdict(found)))
    if found.changes:
        parts += [Text(), _table("measured", found.changes, found)]
    for at in found.at_batch:
        if at.limits:
            heading = f"learning rate at B = {at.batch_size:g}"
            parts += [Text(), _table(heading, at.limits, found)]
    if found.differences:
        said = tuple(str(difference) for difference in found.differences)
        parts += [Text(), *listed("How they were measured differs", said)]
    parts += [Text(), *listed("How errors are treated", tuple(_errors(found)))]
    return render(parts)


def verdict(found: Compared) -> Iterator[str]:
    """Sentences: what changed, what did not, what cannot be told, and what follows."""
    yield _changed(found)
    if found.unchanged:
        yield f"Within their errors: {_named(found.unchanged)}."
    if found.untold or found.missing:
        yield from _untold(found)
    yield from _layers(found)
    for at in found.at_batch:
        yield from _at_batch(found, at)
    for name, reason in zip(found.names, found.refused, strict=True):
        if reason:
            yield f"Limits of the learning rate are not compared. In {name}: {reason}"
    yield _advice(found)


def _changed(found: Compared) -> str:
    if not found.changes:
        return "No quantity can be compared: see how they were measured."
    changes = {name: found.changes[name] for name in found.changed}
    if not changes:
        return (
            "No quantity changed beyond its error. The intervals below say which changes cannot be "
            "excluded."
        )
    small = [name for name, change in changes.items() if _is_small(change)]
    large = [f"{LABELS[n]}: {change}" for n, change in changes.items() if n not in small]
    text = f"Beyond their errors: {'; '.join(large)}." if large else ""
    if small:
        text += f" Beyond their errors, by less than {SMALL:.0%}: {_named(small)}."
    return text.strip()


def _is_small(change: Change) -> bool:
    return change.is_ratio and abs(change.change.value - 1) < SMALL


def _untold(found: Compared) -> Iterator[str]:
    for name in found.untold:
        change = found.changes[name]
        whose = ((change.first, found.names[0]), (change.second, found.names[1]))
        reasons = [f"{e.status.value} in {who}" for e, who in whose if not e.is_resolved]
        yield f"Cannot be told of {LABELS[name]}: {', '.join(reasons) or str(change)}."
    if found.missing:
        yield f"Measured in one of them only: {_named(found.missing)}."


def _layers(found: Compared) -> Iterator[str]:
    if not found.layers_compared:
        return
    if not found.layers:
        yield f"None of the {found.layers_compared} layers changed beyond its error."
        return
    named = []
    for layer in found.layers[:MOST]:
        name, change = max(layer.changes.items(), key=lambda item: item[1].size)
        named.append(f"{layer.name or '(root)'} ({LABELS[name]}: {change})")
    count = len(found.layers)
    most = f", the most of them: {'; '.join(named)}" if count > MOST else f": {'; '.join(named)}"
    yield f"{count} of {found.layers_compared} layers changed beyond their errors{most}."


def _at_batch(found: Compared, at: AtBatch) -> Iterator[str]:
    size, (before, after) = f"{at.batch_size:g}", at.regimes
    if before == after:
        yield (
            f"Batch size {size} is {before} in both."
            if before != "unresolved"
            else (f"The regime of batch size {size} is not resolved in either.")
        )
    else:
        yield f"The regime of batch size {size}: {before}, then {after}."
    if "mean_square_lr" not in at.limits:
        return
    limit = at.limits["mean_square_lr"]
    both = f"{_cell(limit.first)}, then {_cell(limit.second)}"
    how = f"{limit}" if limit.changed else limit.verdict
    said = f"The mean-square limit at batch size {size}: {both} ({how})."
    yield said + "".join(_in_use(found, limit))


def _in_use(found: Compared, limit: Change) -> Iterator[str]:
    """On which side of the limit the learning rate in use stands."""
    sides = zip(found.names, found.rates, (limit.first, limit.second), strict=True)
    for name, rate, own in sides:
        if rate is not None:
            yield f" The learning rate {rate:g} of {name} is {_side(rate, own)}."


def _side(rate: float, limit: Estimate) -> str:
    if rate < limit.low:
        return "below it"
    return "beyond it" if rate > limit.high else "not distinguishable from it"


def _advice(found: Compared) -> str:
    told = [
        f"{_try(advice)} ({name})" for advice, name in zip(found.advice, found.names, strict=True)
    ]
    return f"To try next: {', then '.join(told)}."


def _try(advice: Recommendation) -> str:
    if advice.batch_size is None:
        return "nothing follows"
    rate = "" if advice.lr is None else f" with learning rate {short(advice.lr)}"
    return f"batch size {integer(advice.batch_size)}{rate}"


def _named(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(LABELS[name] for name in names)


def _table(heading: str, changes: Mapping[str, Change], found: Compared) -> Table:
    interval = f"{percent(found.level)} interval"
    table = plain_table(heading, *found.names, "change", interval, "verdict")
    for name, change in changes.items():
        own = change.change
        sign = "×" if change.is_ratio else "+" if own.value >= 0 else ""
        value = f"{sign}{short(own.value)}" if not math.isnan(own.value) else ""
        ends = "exact" if own.is_exact else f"{short(own.low)} to {short(own.high)}"
        told = "" if change.verdict == CANNOT_TELL and not math.isfinite(own.high) else ends
        table.add_row(
            LABELS[name], _cell(change.first), _cell(change.second), value, told, change.verdict
        )
    return or_listed(table)


def _cell(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return estimate.bounds_in_words("≥ ", "≤ ")
    return short(estimate.value)


def _errors(found: Compared) -> Iterator[str]:
    yield found.assumption
    yield (
        f"Each interval is right by itself in {percent(found.level)} of repetitions, or more. Of "
        f"many quantities that did not change, one may seem to have."
    )
    if found.layers_compared:
        yield (
            f"Layers are held to the level at which all {found.layers_compared} together seem "
            f"unchanged as often."
        )
