"""How two profiles were measured: what differs, and which of their numbers can be compared."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ..learning_rate.units import OF_QUANTITIES
from ..show.table import integer
from .results import NONE, Results

QUANTITIES = tuple(OF_QUANTITIES)
SIGNED = ("loss", "grad_curvature", "trace_hessian_cov", "sharpness")  # may be negative
ROUNDING = {"float64": 1e-9, "float32": 1e-4}  # relative; of other types FEW_DIGITS
FEW_DIGITS = 1e-2

ANOTHER_OBJECTIVE = "Its numbers are of another objective: only learning rates and advice compare."
RELATED = (
    "Both profiles may be of the same samples: their errors are taken to be related in the worst "
    "way, and the margins of both are added. Where the samples are surely different, say so "
    "(independent=True, --independent): intervals are then about 0.7 times as long."
)
TOLD = "Errors of the two profiles are taken to be independent, as was said."
WHOLE = (
    "Both are of their whole populations: numbers without an interval have no sampling error, and "
    "differ where the models or the data do. The other intervals are of random directions: "
)
ADDED = "their errors may be related, and the margins of both are added."
SQUARES = "their errors are taken to be independent, as was said."


@dataclass(frozen=True)
class Difference:
    """Something in which two measurements differ.

    Args:
        name: of the setting.
        first, second: what it was.
        sentence: what follows from it; or empty.
    """

    name: str
    first: str
    second: str
    sentence: str = ""

    def __str__(self) -> str:
        text = f"{self.name}: {self.first}, then {self.second}."
        return f"{text} {self.sentence}" if self.sentence else text


def differences(first: Results, second: Results) -> tuple[Difference, ...]:
    """All of them, those first that make numbers not comparable."""
    return tuple(found for found in _all(first, second) if found.first != found.second)


def comparable(first: Results, second: Results) -> tuple[str, ...]:
    """The quantities of which a change says something about the models."""
    if not _same_objective(first, second):
        return ()
    if _coordinates(first) != _coordinates(second):
        return ("loss",)
    return QUANTITIES


def same_layers(first: Results, second: Results) -> bool:
    """Whether layers of the same name are the same layers."""
    same = (first.model, first.parameters) == (second.model, second.parameters)
    return same and comparable(first, second) == QUANTITIES


def assumption(first: Results, second: Results, independent: bool) -> str:
    """What was assumed about the errors, in a sentence."""
    if all(one.samples >= one.population for one in (first, second)):
        return WHOLE + (SQUARES if independent else ADDED)
    return TOLD if independent else RELATED


def rounding(first: Results, second: Results) -> float:
    """Relative change that is no more than the arithmetic's."""
    return max(ROUNDING.get(one.dtype, FEW_DIGITS) for one in (first, second))


def _same_objective(first: Results, second: Results) -> bool:
    kinds = {(one.unit, one.group_size, one.objective) for one in (first, second)}
    return len(kinds) == 1


def _coordinates(one: Results) -> str:
    return one.optimizer.name if one.metric == "optimizer" and one.optimizer else one.metric


def _all(first: Results, second: Results) -> Iterator[Difference]:
    def found(name: str, told: object, sentence: str = "") -> Difference:
        return Difference(name, told(first), told(second), sentence)  # type: ignore[operator]

    yield found("objective", lambda one: one.objective, ANOTHER_OBJECTIVE)
    if first.objective == second.objective:  # it names the size of groups
        yield found("unit", _unit, ANOTHER_OBJECTIVE)
    yield found(
        "metric", _coordinates,
        "Gradients and curvature are in different coordinates: only the loss and learning rates, "
        "each of its own optimizer, compare.",
    )  # fmt: skip
    yield found("model", lambda one: one.model, "Nothing is said about layers.")
    yield found("parameters", lambda one: integer(one.parameters), "Nothing is said about layers.")
    yield found("mode", lambda one: one.mode, "A change may come from that (dropout, batch norm).")
    yield found("random numbers", _draws, "A change may come from that.")
    yield found(
        "population", lambda one: _size(one.population), "The intervals are about different data."
    )
    yield found("samples", lambda one: integer(one.samples))
    yield found("seed", lambda one: str(one.seed))
    yield found("dtype", lambda one: one.dtype, "A small change may be one of rounding.")
    yield found("level", lambda one: f"{one.level:.3g}", "Intervals are brought to one level.")
    yield found("optimizer", _optimizer)
    yield found("batch size", lambda one: f"{one.batch_size or 'unknown'}")
    yield found(
        "gradnoise", lambda one: one.versions.get("gradnoise", "unknown"),
        "A change may come from another way of measuring.",
    )  # fmt: skip


def _unit(one: Results) -> str:
    return "single samples" if one.unit == "sample" else f"groups of {one.group_size}"


def _draws(one: Results) -> str:
    return "none" if one.randomness == NONE else "drawn by the loss"


def _size(population: float) -> str:
    return "a distribution" if math.isinf(population) else integer(population)


def _optimizer(one: Results) -> str:
    own = one.optimizer
    if own is None:
        return "none"
    rate = "" if own.lr is None else f", learning rate {own.lr:g}"
    momentum = f", momentum {own.momentum:g}" if own.momentum else ""
    return f"{own.name}{rate}{momentum}"
