"""What follows from a profile, as values for a file."""

from __future__ import annotations

from typing import Any

from ..statistics.estimate import Estimate
from .results import Results, has_curvature, nothing_follows, why_no_curvature

AT_BATCH_SIZE = ("max_lr", "greedy_lr", "mean_square_lr", "steps", "samples")


def verdict_of(results: Results) -> dict[str, Any]:
    """The advice, and what limits a step at the batch size in use; None where nothing follows."""
    advice = results.recommend()
    critical = advice.critical and dict(zip(("low", "high"), advice.critical, strict=True))
    return {
        "batch_size": advice.batch_size,
        "lr": advice.lr,
        "confidence": advice.confidence,
        "tried": results.advised is not None,
        "reasons": list(advice.reasons),
        "caveats": list(advice.caveats),
        "critical_batch_size": critical,
        "samples_needed": advice.samples,
        **_in_use(results),
    }


def limit_at(results: Results, name: str, batch_size: float | None) -> Estimate:
    """A limit of the learning rate by the name of its method; `stable_lr` needs no batch size."""
    landscape = results.landscape(results.setting.momentum)
    return landscape.stable_lr if name == "stable_lr" else getattr(landscape, name)(batch_size)


def limits_refused(results: Results) -> str:
    """Why no limit of the learning rate holds for the optimizer in use; empty where they do."""
    if not has_curvature(results):
        return why_no_curvature(results)
    return nothing_follows(results) or results.setting.no_rate


def _in_use(results: Results) -> dict[str, Any]:
    """ "in_use", and why it is None."""
    size = results.setting.batch_size
    refused = limits_refused(results)
    if size is None:
        refused = refused or "No batch size is known: give `batch_size`, or a DataLoader as data."
    if size is None or refused:
        return {"in_use": None, "in_use_reason": refused}
    landscape = results.landscape(results.setting.momentum)
    own = {name: getattr(landscape, name)(size).to_dict() for name in AT_BATCH_SIZE}
    found = {"batch_size": size, "regime": results.regime(size), "lr": results.setting.lr}
    return {
        "in_use": {**found, "stable_lr": landscape.stable_lr.to_dict(), **own},
        "in_use_reason": "",
    }
