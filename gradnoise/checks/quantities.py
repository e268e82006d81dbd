"""What the names of rules stand for in a profile."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timezone

from ..errors import NotMeasuredError
from ..profiles.results import Results, has_curvature, nothing_follows, why_no_curvature
from ..profiles.verdict import limit_at, limits_refused
from ..statistics.estimate import Estimate, Status

LIMITS = ("stable_lr", "max_lr", "greedy_lr", "mean_square_lr", "doubling_lr")
SCALES = ("simple_noise_scale", "noise_scale", "critical_batch_size")
RELATIVE = {"relative_steps": "steps", "relative_samples": "samples"}


class NotThereError(Exception):
    """The profile does not have the number, and why."""


def quantity(profile: Results, name: str) -> Estimate:
    """The number of this name with its interval; settings are exact.

    Raises:
        NotThereError: the profile has none.
    """
    if name in LIMITS:
        return _limit(profile, name)
    if name in (*RELATIVE, *SCALES) and nothing_follows(profile):
        raise NotThereError(nothing_follows(profile))
    if name in RELATIVE:
        landscape = _with_curvature(profile).landscape()
        return getattr(landscape, RELATIVE[name])(_batch_size(profile))  # type: ignore[no-any-return]
    if name == "critical_batch_size":
        return _critical(profile)
    if name in SETTINGS:
        found = SETTINGS[name](profile)
        return Estimate(found, found, found, profile.level, 0.0, profile.samples)
    try:
        return getattr(profile, name)  # type: ignore[no-any-return]
    except NotMeasuredError as error:
        raise NotThereError(str(error)) from None


def _limit(profile: Results, name: str) -> Estimate:
    refused = limits_refused(profile)
    if refused:
        raise NotThereError(refused)
    if profile.sharpness.high <= 0:
        raise NotThereError("the sharpness λ is not positive, so it sets no limit")
    return limit_at(profile, name, None if name == "stable_lr" else _batch_size(profile))


def _with_curvature(profile: Results) -> Results:
    if not has_curvature(profile):
        raise NotThereError(why_no_curvature(profile))
    return profile


def _batch_size(profile: Results) -> float:
    size = profile.setting.batch_size
    if size is None:
        raise NotThereError(
            "the profile has no batch size: measure with `batch_size` (--batch-size) or a "
            "DataLoader"
        )
    return size


def _lr(profile: Results) -> float:
    if profile.optimizer is None or profile.optimizer.lr is None:
        raise NotThereError(
            "the profile has no learning rate: measure with `optimizer` (command line: --lr)"
        )
    if any("several learning rates" in note for note in profile.optimizer.notes):
        raise NotThereError("the optimizer has several learning rates: none of them is the one")
    return profile.optimizer.lr


def _momentum(profile: Results) -> float:
    if profile.optimizer is None:
        raise NotThereError("the profile has no optimizer: measure with `optimizer`")
    return profile.optimizer.momentum


def _critical(profile: Results) -> Estimate:
    """The range of the report; where nothing is resolved, the bounds of both noise scales."""
    advice, level, samples = profile.recommend(), profile.level, profile.samples
    if advice.critical is not None:
        return Estimate(math.nan, *advice.critical, level, math.nan, samples)
    scales = [profile.estimates.get(name) for name in ("simple_noise_scale", "noise_scale")]
    known = [scale for scale in scales if scale is not None and usable(scale)]
    if len(known) < 2 or nothing_follows(profile):
        raise NotThereError(advice.reasons[0])
    low, high = min(scale.low for scale in known), max(scale.high for scale in known)
    status = next((s.status for s in known if not s.is_resolved), Status.SIGNAL_BELOW_NOISE)
    return Estimate(math.nan, low, high, level, math.nan, samples, status)


def _passes(profile: Results) -> float:
    if profile.cost is None:
        raise NotThereError("the profile does not say what it cost: an older version wrote it")
    return profile.cost.passes


def _age(profile: Results) -> float:
    if not profile.date:
        raise NotThereError("the profile has no date: an older version wrote it; measure again")
    since = datetime.now(timezone.utc) - datetime.fromisoformat(profile.date)
    return since.total_seconds()


SETTINGS: dict[str, Callable[[Results], float]] = {
    "lr": _lr,
    "momentum": _momentum,
    "batch_size": _batch_size,
    "group_size": lambda profile: float(profile.group_size),
    "samples": lambda profile: float(profile.samples),
    "population": lambda profile: profile.population,
    "parameters": lambda profile: float(profile.parameters),
    "passes": _passes,
    "age": _age,
}


def usable(estimate: Estimate) -> bool:
    """Whether its interval can be relied on, also where there is only a bound."""
    return estimate.status not in (Status.NOT_CONVERGED, Status.NEGATIVE_CURVATURE)
