"""What was measured, in words: units, objective, randomness."""

from __future__ import annotations

from typing import Any

from ..problem.losses.criterion import Supervised
from ..problem.losses.signature import has_reduction, reduction_of
from ..problem.unit import AS_ASKED, Unit
from .results import MEAN, NONE


def objective_in_words(unit: Unit) -> str:
    """What L is the mean of."""
    if unit.mean_weight is not None:
        return f"{MEAN}, weighted as in training: Σwℓ/Σw (labels that count, class weights)"
    if not unit.is_group:
        return MEAN
    return f"mean over random groups of {unit.size} samples of the loss of a group"


def randomness_in_words(unit: Unit, share: float | None) -> str:
    """What the loss draws, and how much of the noise that is."""
    if not unit.is_replayed:
        return NONE
    layers = "" if unit.is_group or not unit.reason else f" ({unit.reason})"
    part = "" if share is None else f"; the draws are about {share:.0%} of trΣ"
    return (
        f"the loss draws random numbers{layers}: one draw for each {unit.kind}, the same in every "
        f"pass{part}"
    )


def unit_notes(unit: Unit) -> tuple[str, ...]:
    """What the reader has to know about units that are groups, and about random losses."""
    notes: tuple[str, ...] = ()
    if unit.is_group:
        why = "as asked for" if unit.reason == AS_ASKED else f"because {unit.reason}"
        notes += (
            f"measured in groups of {unit.size} samples, {why}. Noise scales are in samples and "
            f"hold for this size of the groups: measure with the batch size of training",
        )
    if unit.is_replayed:
        notes += (
            "the loss draws random numbers, so that its samples are taken to be from a "
            "distribution, of infinitely many draws",
        )
    return notes


def sum_note(criterion: Any) -> tuple[str, ...]:
    """That the criterion adds over the batch, and the learning rates here are those of means."""
    bare = criterion.criterion if isinstance(criterion, Supervised) else criterion
    if not has_reduction(bare) or reduction_of(bare) != "sum":
        return ()
    return (
        "the criterion adds the losses of a batch (reduction='sum'), and this report is about "
        "their mean. A step at rate ε with the sum of B losses is a step at rate Bε here: divide "
        "learning rates in this report by B, and multiply yours by B before you compare",
    )
