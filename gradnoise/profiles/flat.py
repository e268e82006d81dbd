"""A profile as rows of a table, and as numbers for a logger."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ..history.run_file import PREFIX
from ..learning_rate.units import OF_LIMITS, OF_QUANTITIES
from ..moments.layer import Layer
from ..statistics.estimate import Estimate
from .results import Results
from .verdict import limit_at, limits_refused

OF_LAYERS = (
    *("grad_sq_norm", "trace_cov", "simple_noise_scale"),
    *("noise_share", "sharpness_share", "curvature_share", "curvature_noise_share"),
)
# a `NoiseMonitor` logs B_simple under this key, and the same key must be the same quantity
KEYS = {"simple_noise_scale": "noise_scale", "noise_scale": "hessian_noise_scale"}

Row = dict[str, Any]


def rows(results: Results) -> list[Row]:
    """One row for each quantity, limit and layer; see `Profile.rows`."""
    found = [
        _row(results, "model", "", name, OF_QUANTITIES.get(name, ""), estimate)
        for name, estimate in results.estimates.items()
    ]
    size = results.setting.batch_size
    found += [
        {**_row(results, "model", "", name, OF_LIMITS[name], estimate), "batch_size": size}
        for name, estimate in _limits(results).items()
    ]
    for scope, parts in (("layer", results.layers), ("group", results.groups)):
        found += _of_parts(results, scope, parts)
    return found


def values(results: Results) -> dict[str, float]:
    """Finite numbers by the keys of loggers; see `Profile.values`."""
    numbers: dict[str, float | None] = {}
    for name, estimate in {**results.estimates, **_limits(results)}.items():
        key = KEYS.get(name, name)
        numbers[key] = estimate.value
        numbers[f"{key}_low"], numbers[f"{key}_high"] = estimate.low, estimate.high
    own, size = results.optimizer, results.setting.batch_size
    numbers["batch_size"] = size
    if own is not None:
        numbers["lr"], numbers["momentum"] = own.lr, own.momentum
    simple = results.estimates.get("simple_noise_scale")
    if size is not None and simple is not None and simple.value:
        numbers["batch_over_noise_scale"] = size / simple.value
    return {
        f"{PREFIX}{key}": float(number)
        for key, number in numbers.items()
        if number is not None and math.isfinite(number)
    }


def _limits(results: Results) -> dict[str, Estimate]:
    """The limits of the learning rate at the batch size in use; empty where there are none."""
    if limits_refused(results):
        return {}
    size = results.setting.batch_size
    names = OF_LIMITS if size is not None else ("stable_lr",)
    return {name: limit_at(results, name, size) for name in names}


def _of_parts(results: Results, scope: str, parts: Mapping[str, Layer]) -> Iterator[Row]:
    for name, part in parts.items():
        for quantity in OF_LAYERS:
            found = getattr(part, quantity)
            if isinstance(found, float):
                yield {**_row(results, scope, name, quantity, "1"), "value": found}
            elif found is not None:
                yield _row(results, scope, name, quantity, OF_QUANTITIES.get(quantity, "1"), found)


def _row(
    results: Results,
    scope: str,
    name: str,
    quantity: str,
    unit: str,
    estimate: Estimate | None = None,
) -> Row:
    given = None if estimate is None else estimate.to_dict()
    own = ("value", "low", "high", "level", "stderr", "status", "samples")
    return {
        "model": results.model,
        "date": results.date,
        "scope": scope,
        "name": name,
        "quantity": quantity,
        **{key: None if given is None else given[key] for key in own},
        "unit": unit,
        "batch_size": None,
        "metric": results.metric,
    }
