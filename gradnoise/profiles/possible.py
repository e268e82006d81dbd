"""Whether numbers that were read can be those of a measurement.

A file that somebody has edited, or that was put together by another program, is refused when it is
read: later it would print a report that looks right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime

from ..moments.layer import Layer
from ..problem.optimizer_settings import OptimizerSettings
from ..statistics.estimate import Estimate
from .results import Results

TEXTS = ("model", "mode", "dtype", "device", "engine", "engine_reason", "objective", "randomness")
COUNTS = {"parameters": 1, "samples": 1, "matvecs": 0, "seed": 0, "group_size": 1}  # the least
CHOICES = {"metric": ("euclidean", "optimizer"), "unit": ("sample", "group")}
POSITIVE = ("simple_noise_scale", "noise_scale", "curvature_noise_scale")  # where they exist
ROUNDING = 1e-6  # relative, by which a value may stand outside of its interval


def check_possible(profile: Results) -> None:
    """Raise ValueError with what cannot be."""
    for fault in _faults(profile):
        raise ValueError(fault)


def _faults(profile: Results) -> Iterator[str]:
    yield from _fields(profile)
    yield from _level("", profile.level)
    if not profile.samples <= profile.population:
        yield f"{profile.samples} samples out of a population of {profile.population:g}"
    if profile.batch_size is not None and not _is_whole(profile.batch_size, 1):
        yield f"batch_size = {profile.batch_size!r}, and not a whole number from 1 on"
    for name, estimate in profile.estimates.items():
        yield from _estimate(name, name, estimate)
    for kind, parts in (("layer", profile.layers), ("group", profile.groups)):
        for name, part in parts.items():
            yield from _part(f"{kind} {name!r}", part)
    yield from _optimizer(profile.optimizer)
    yield from _place(profile)


def _fields(profile: Results) -> Iterator[str]:
    for name in TEXTS:
        if not isinstance(getattr(profile, name), str):
            yield f"{name} = {getattr(profile, name)!r}, and not a text"
    for name, least in COUNTS.items():
        if not _is_whole(getattr(profile, name), least):
            yield f"{name} = {getattr(profile, name)!r}, and not a whole number from {least} on"
    for name, known in CHOICES.items():
        if getattr(profile, name) not in known:
            yield f"{name} = {getattr(profile, name)!r}, and not one of {', '.join(known)}"


def _is_whole(number: object, least: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= least


def _level(where: str, level: float) -> Iterator[str]:
    if not (isinstance(level, float) and 0 < level < 1):
        yield f"{where}level = {level!r}, and not between 0 and 1"


def _estimate(where: str, name: str, found: Estimate) -> Iterator[str]:
    yield from _level(f"{where}: ", found.level)
    if math.isnan(found.low) or math.isnan(found.high):
        yield f"{where}: an end of the interval is nan"
    if found.low > found.high:
        yield f"{where}: low = {found.low:g} is above high = {found.high:g}"
    room = ROUNDING * abs(found.value)
    if found.value < found.low - room or found.value > found.high + room:
        yield f"{where}: value = {found.value:g} is outside of {found.low:g} to {found.high:g}"
    if found.stderr < 0:
        yield f"{where}: stderr = {found.stderr:g} is negative"
    if not _is_whole(found.samples, 0):
        yield f"{where}: samples = {found.samples!r}"
    if name in POSITIVE and (found.value < 0 or found.high < 0):
        worst = found.value if found.value < 0 else found.high
        yield f"{where} is negative ({worst:g}), which no noise scale can be"


def _part(where: str, part: Layer) -> Iterator[str]:
    for name in ("grad_sq_norm", "trace_cov", "simple_noise_scale"):
        yield from _estimate(f"{where}, {name}", name, getattr(part, name))
    for name in ("sharpness_share", "curvature_share", "curvature_noise_share"):
        share = getattr(part, name)
        if share is not None:
            yield from _estimate(f"{where}, {name}", name, share)
    if not _is_whole(part.size, 0):
        yield f"{where}: size = {part.size!r}"


def _optimizer(own: OptimizerSettings | None) -> Iterator[str]:
    if own is None:
        return
    if own.lr is not None and not own.lr >= 0:
        yield f"learning rate {own.lr:g} is negative"
    if not 0 <= own.momentum < 1:
        yield f"momentum {own.momentum:g} is not at least 0 and below 1"


def _place(profile: Results) -> Iterator[str]:
    try:
        is_utc = not profile.date or datetime.fromisoformat(profile.date).utcoffset() is not None
    except (TypeError, ValueError):
        is_utc = False
    if not is_utc:
        yield f"date = {profile.date!r}, and not ISO 8601 with its offset from UTC"
    texts = profile.environment.items()  # an AttributeError where it is no dict
    if not all(isinstance(text, str) for pair in texts for text in pair):
        yield "environment holds something that is not a text"
