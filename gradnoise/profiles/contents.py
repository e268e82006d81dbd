"""What a report says, as sentences and rows: the console and the page set them in their own way."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..learning_rate.formulas import stable_lr
from ..learning_rate.landscape import Landscape
from ..learning_rate.noise_floor import in_training
from ..show.table import cells, duration, integer
from ..statistics.estimate import Estimate, short
from .cost import Cost
from .results import (
    MEAN,
    NONE,
    Results,
    has_curvature,
    is_unsettled,
    nothing_follows,
    other_optimizer,
)

SYMBOLS = (
    "G: mean gradient. Σ: covariance of the gradients of single samples. H: Hessian of the loss L. "
    "B: batch size, N: samples of the data set."
)
UNITS = (
    "Units: learning rates in parameter²/loss, λ in loss/parameter², |G|² and trΣ in "
    "loss²/parameter², GᵀHG and tr(HΣ) in loss³/parameter⁴. Formulas: help(gradnoise.Profile)."
)
OTHER_UNITS = (
    "In this metric, parameter means P^½w, with P the preconditioner of the optimizer (of Adam "
    "√v + eps)."
)
REGIME = "noise limits a step where B < B_noise, curvature where B > B_noise"
HERE = (
    "The limits hold at this point of training. Beyond the mean-square limit a run leaves this "
    "bowl, and often settles where the loss is flatter. So one point does not tell the largest "
    "stable rate of training, which `gn.branch` finds from here."
)


class Quantity(NamedTuple):
    """A line of the table of what was measured; `formula` is short, `meaning` a sentence."""

    name: str
    label: str
    unit: str
    formula: str
    meaning: str


MEASURED = (
    Quantity("loss", "loss L", "", "mean over the samples", "mean over the samples"),
    Quantity(
        "grad_sq_norm", "gradient |G|²", "", "squared norm of G",
        "squared norm of the mean gradient G",
    ),
    Quantity(
        "trace_cov", "gradient noise trΣ", "", "variance of gradients g_i",
        "variance of single-sample gradients g_i",
    ),
    Quantity(
        "simple_noise_scale", "B_simple", "samples", "trΣ/|G|²",
        "trΣ/|G|²; batch size where noise = gradient",
    ),
    Quantity(
        "grad_curvature", "curvature GᵀHG", "", "curvature along G",
        "curvature along the gradient, times |G|²",
    ),
    Quantity(
        "trace_hessian_cov", "tr(HΣ)", "", "curvature of the noise",
        "noise adds ½ε²·tr(HΣ)/B to the loss per step",
    ),
    Quantity(
        "noise_scale", "noise scale B_noise", "samples", "tr(HΣ)/GᵀHG",
        "tr(HΣ)/GᵀHG; larger batches save few steps",
    ),
    Quantity(
        "sharpness", "sharpness λ", "", "largest eigenvalue of H",
        "largest eigenvalue of the Hessian H",
    ),
    Quantity(
        "curvature_noise_scale", "B_curv", "samples", "sampling noise in λ",
        "batch size where sampling noise in λ = λ",
    ),
)  # fmt: skip
KEY = ("simple_noise_scale", "noise_scale", "sharpness")
WITHOUT_CURVATURE = ("loss", "grad_sq_norm", "trace_cov", "simple_noise_scale")


class Limit(NamedTuple):
    """A learning rate as a function of the batch size; `method` of a landscape."""

    method: str
    label: str
    formula: str  # without momentum
    meaning: str


LIMITS = (
    Limit(
        "max_lr", "noise-scale rule", "(2/λ)/(1 + B_noise/B)",
        "beyond it a step gains less; no limit of stability",
    ),
    Limit(
        "greedy_lr", "best single step", "ε_opt = (|G|²/GᵀHG)/(1 + B_noise/B)",
        "beyond twice it one step raises the loss",
    ),
    Limit(
        "mean_square_lr", "mean-square limit", "at most (2/λ)/(1 + (1/B - 1/N)·B_curv)",
        "SGD is unstable at this point beyond it",
    ),
    Limit(
        "doubling_lr", "noise doubles loss", "1/(1/limit + (1/B - 1/N)·trΣ/(4L))",
        "beyond it the noise of the steps would double the loss",
    ),
)  # fmt: skip
BEYOND = "unstable here beyond it"
AT_BATCH = {  # of the short table: label, and a meaning that is short enough for it
    "mean_square_lr": ("limit", BEYOND),
    "max_lr": ("rule", "(2/λ)/(1 + B_noise/B)"),
}
TRADE_OFF = (
    Limit("steps", "steps (1 = fewest)", "1 + B_noise/B", "steps of a run, relative to very large "
          "batches"),
    Limit("samples", "samples (1 = fewest)", "1 + B/B_noise", "samples of a run, relative to very "
          "small batches"),
)  # fmt: skip


class Row(NamedTuple):
    """A line of a table of numbers."""

    label: str
    value: str
    interval: str
    meaning: str


class RateRow(NamedTuple):
    """A line of the table over batch sizes."""

    label: str
    values: list[str]
    meaning: str


def title(profile: Results) -> str:
    """The heading of the verdict: how sure it is."""
    if profile.advised is not None:
        return f"What to do (tried by short training: {profile.advised.confidence})"
    sure = profile.recommend().confidence
    return "What to do" if sure == "none" else f"What to do ({sure})"


def findings(profile: Results) -> tuple[str, ...]:
    """What this point says beside advice that was tried; empty where the advice is from it."""
    if profile.advised is None:
        return ()
    snapshot = profile.snapshot()
    names_pair = snapshot.batch_size and has_curvature(profile) and not profile.setting.no_rate
    return snapshot.reasons[1:] if names_pair else snapshot.reasons


def caveats(profile: Results) -> tuple[str, ...]:
    """What the verdict leaves open, and the notes of the measurement."""
    return (*profile.recommend().caveats, *profile.warnings)


def key_rows(profile: Results) -> list[Row]:
    """The numbers that carry the verdict."""
    if not has_curvature(profile):
        return [_row(profile, q) for q in MEASURED if q.name in WITHOUT_CURVATURE]
    rows = [_row(profile, quantity) for quantity in MEASURED if quantity.name in KEY]
    if nothing_follows(profile):
        return rows
    return [*rows, stable_row(profile, _of_plain(profile) or BEYOND), *_at_batch(profile)]


def _of_plain(profile: Results) -> str:
    """Whose limits these are, where they are not those of the optimizer in use."""
    other = other_optimizer(profile)
    return f"of SGD, not of {other}" if other else ""


def _at_batch(profile: Results) -> list[Row]:
    """The limits at the batch size in use, or at the one that is advised."""
    batch = profile.setting.batch_size or profile.recommend().batch_size
    if not batch:
        return []
    landscape, of_sgd = _landscape(profile)
    rows = []
    for method, (label, meaning) in AT_BATCH.items():
        said = meaning if of_sgd or method != "max_lr" else "a step gains less beyond"
        said = _of_plain(profile) or said
        found: Estimate = getattr(landscape, method)(batch)
        rows.append(Row(f"{label} at B = {batch:g}", *cells(found, ""), said))
    return rows


def measured_rows(profile: Results) -> list[Row]:
    """Every quantity."""
    rows = [_row(profile, q, full=True) for q in MEASURED if q.name in profile.estimates]
    if has_curvature(profile) and not is_unsettled(profile):
        rows.append(stable_row(profile, "full batch unstable at this point beyond it"))
    return rows


def stable_row(profile: Results, meaning: str) -> Row:
    """The full-batch limit, with the factor of the optimizer's momentum."""
    landscape, _ = _landscape(profile)
    factor = stable_lr(1.0, landscape.optimizer, landscape.momentum)
    return Row(f"stable rate {factor:.3g}/λ", *cells(landscape.stable_lr, ""), meaning)


def _row(profile: Results, quantity: Quantity, *, full: bool = False) -> Row:
    meaning = quantity.meaning if full else quantity.formula
    if quantity.name == "trace_cov" and profile.unit == "group":
        meaning = f"{profile.group_size} times the variance of group gradients"
    if quantity.name == "loss" and is_weighted(profile):
        meaning = f"weighted {meaning}"
    return Row(quantity.label, *cells(profile.estimates[quantity.name], quantity.unit), meaning)


def exactness(profile: Results) -> str:
    """What "exact" means, where all samples were measured; else empty."""
    if profile.samples < profile.population or profile.unit != "sample":
        return ""
    return f"exact: no sampling error, all {integer(profile.samples)} samples were measured."


def units(profile: Results) -> str:
    """The units of every number."""
    return UNITS + (f" {OTHER_UNITS}" if profile.setting.rescales else "")


def rate_rows(profile: Results, batches: list[int]) -> list[RateRow]:
    """Limits, costs, regime and temperature at several batch sizes."""
    landscape, of_sgd = _landscape(profile)
    who, rows = profile.setting.rescales or "SGD", []
    for limit in LIMITS:
        if _holds(profile, limit):
            formula = f"{limit.formula}; " if of_sgd else ""
            meaning = formula + limit.meaning.replace("SGD", who)
            rows.append(RateRow(limit.label, _at(landscape, limit, batches), meaning))
    for cost in TRADE_OFF:
        meaning = f"{cost.formula}; {cost.meaning}"
        rows.append(RateRow(cost.label, _at(landscape, cost, batches), meaning))
    sides = [profile.regime(batch).removesuffix("-dominated") for batch in batches]
    return [*rows, RateRow("regime", sides, REGIME), *_temperature(profile, batches)]


def _temperature(profile: Results, batches: list[int]) -> list[RateRow]:
    setting = profile.setting
    if not setting.effective_lr:
        return []
    rates = [short(profile.temperature(setting.effective_lr, batch)) for batch in batches]
    formula = "ε/((1-m)B)" if setting.effective_lr != setting.lr else "ε/B"
    meaning = (
        f"noise of the steps at ε = {setting.lr:g}, with 1/B - 1/N in place of 1/B; runs of equal "
        f"temperature train alike "
        f"where noise dominates"
    )
    return [RateRow(f"temperature {formula}", rates, meaning)]


def _at(landscape: Landscape, limit: Limit, batches: list[int]) -> list[str]:
    return [cells(getattr(landscape, limit.method)(batch), "")[0] for batch in batches]


def _holds(profile: Results, limit: Limit) -> bool:
    """Whether the limit is one: where a loss can be negative, nothing doubles it."""
    return limit.method != "doubling_lr" or profile.loss.low > 0


def _landscape(profile: Results) -> tuple[Landscape, bool]:
    """What limits a step, and whether the formulas are those of SGD without momentum."""
    landscape = profile.landscape(profile.setting.momentum)
    return landscape, landscape.optimizer == "sgd" and not landscape.momentum


def compared(profile: Results, batches: list[int]) -> tuple[str, ...]:
    """How the limits compare at the smallest and the largest of these batch sizes."""
    setting = profile.setting
    landscape, _ = _landscape(profile)
    readings = [
        landscape.limits(batch).reading for batch in dict.fromkeys((batches[0], batches[-1]))
    ]
    other = other_optimizer(profile)
    if other:
        readings.append(f"All are limits of plain SGD, not of {other}.")
    if setting.momentum:
        who = f"{setting.rescales or 'SGD'} with momentum {setting.momentum:g}"
        readings.append(f"All are limits of {who}; the best single step is without momentum.")
    rate = float(landscape.doubling_lr(batches[0]))
    return (*readings, HERE, *in_training(rate, batches[0], setting.rescales))


def batch_sizes(profile: Results) -> list[int]:
    """The batch in use, and others around the noise scale, within the population."""
    scale = profile.noise_scale
    known = float(scale) if scale.is_resolved else scale.low
    centre = max(1.0, min(known if math.isfinite(known) and known > 0 else 64.0, 2.0**20))
    middle = 2 ** round(math.log2(centre))
    wanted = {max(1, middle // 8), middle, middle * 8, profile.setting.batch_size or middle // 2}
    return sorted({int(max(1, min(batch, profile.population))) for batch in wanted})


def is_weighted(profile: Results) -> bool:
    """Whether samples count differently in the loss."""
    return profile.unit == "sample" and profile.objective != MEAN


def how_measured(profile: Results) -> list[str]:
    """Model, samples, objective, setting and cost, a sentence each."""
    whole = profile.population
    size = "∞ (a distribution)" if math.isinf(whole) else integer(whole)
    grouped = profile.unit == "group"
    parts = f" in groups of {profile.group_size}" if grouped else ""
    kind = "gradients of groups" if grouped else "per-sample gradients"
    lines = [
        f"{profile.model}: {integer(profile.parameters)} trainable parameters, {profile.dtype} "
        f"on {profile.device}, {profile.mode} mode",
        f"measured on {integer(profile.samples)} samples out of {size}{parts}, {kind} by "
        f"{profile.engine!r}, seed {profile.seed}",
    ]
    if profile.labels_per_sample is not None:
        lines.append(
            f"a sample has {short(profile.labels_per_sample)} labels that count (tokens, pixels), "
            f"on average"
        )
    if is_weighted(profile):
        lines.append(f"the loss L is the {profile.objective}")
    if profile.randomness != NONE:
        lines.append(profile.randomness)
    if profile.metric == "optimizer" and profile.optimizer is not None:
        lines.append(
            f"in the metric of {profile.optimizer.name}: gradients P^-½g and Hessian P^-½HP^-½, "
            f"with P from its state"
        )
    if in_use(profile):
        lines.append(f"trained with {in_use(profile)}")
    return lines + ([] if profile.cost is None else [_cost(profile, profile.cost)])


def when_and_where(profile: Results) -> list[str]:
    """Date, versions, machine and command; of older files what is known."""
    where = {**profile.versions, **profile.environment}
    command = where.pop("command", "")
    named = [f"{name} {value}" for name, value in where.items() if name != "platform"]
    machine = where.get("platform")
    date = profile.date.removesuffix("+00:00").replace("T", " ")
    lines = [f"measured at {date} UTC"] if date else []
    lines.append(", ".join(named + ([machine] if machine else [])))
    return lines + ([f"by `{command}`"] if command else [])


def in_use(profile: Results) -> str:
    """The optimizer, its rate and the batch size in training; empty where nothing is known."""
    setting, own, used = profile.setting, profile.optimizer, []
    if own is not None:
        momentum = f", momentum {setting.momentum:g}" if setting.momentum else ""
        used.append(own.name + (f", learning rate {own.lr:g}{momentum}" if own.lr else ""))
    if setting.batch_size:
        used.append(f"batch size {setting.batch_size:g}")
    return ", ".join(used)


def _cost(profile: Results, cost: Cost) -> str:
    """What was spent, and what half the interval of B_noise would cost."""
    spent = (
        f"cost: {duration(cost.seconds)}, {short(cost.passes)} plain passes (forward and backward) "
        f"over these samples"
    )
    scale = profile.estimates.get("noise_scale")
    if scale is None or not scale.low < scale.high:
        return spent
    if not (profile.samples >= profile.population or 4 * profile.samples <= profile.population):
        return spent  # there are not as many samples as that would take
    how = "" if profile.samples >= profile.population else " and 4 times as many samples"
    return f"{spent}; half the interval of B_noise takes about {short(cost.half_width)} passes{how}"


def is_drawn(profile: Results) -> bool:
    """Whether there is a regime map: λ is above zero, and limits hold for the optimizer."""
    return has_curvature(profile) and profile.sharpness.low > 0 and not is_unsettled(profile)
