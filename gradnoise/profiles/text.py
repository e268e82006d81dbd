"""The report: what to do, then every number with its meaning."""

from __future__ import annotations

import math

from rich.table import Table
from rich.text import Text

from ..learning_rate.formulas import stable_lr
from ..learning_rate.landscape import Landscape
from ..learning_rate.noise_floor import in_training
from ..show.table import cells, fitted, integer, listed, plain_table, render
from ..statistics.estimate import short
from .cost import Cost
from .layer_table import by_layer
from .results import MEAN, NONE, Results, is_unsettled, other_optimizer

MEASURED = (
    ("loss", "loss L", "", "mean over the samples"),
    ("grad_sq_norm", "gradient |G|²", "", "squared norm of the mean gradient G"),
    ("trace_cov", "gradient noise trΣ", "", "variance of single-sample gradients g_i"),
    (
        "simple_noise_scale",
        "B_simple",
        "samples",
        "trΣ/|G|²; batch size where noise = gradient",
    ),
    ("grad_curvature", "curvature GᵀHG", "", "curvature along the gradient, times |G|²"),
    ("trace_hessian_cov", "tr(HΣ)", "", "noise adds ½ε²·tr(HΣ)/B to the loss per step"),
    ("noise_scale", "noise scale B_noise", "samples", "tr(HΣ)/GᵀHG; larger batches save few steps"),
    ("sharpness", "sharpness λ", "", "largest eigenvalue of the Hessian H"),
    ("curvature_noise_scale", "B_curv", "samples", "batch size where sampling noise in λ = λ"),
)
UNITS = (
    "Units: learning rates in parameter²/loss, λ in loss/parameter², |G|² and trΣ in "
    "loss²/parameter², GᵀHG and tr(HΣ) in loss³/parameter⁴. Formulas: help(gradnoise.Profile)."
)
OTHER_UNITS = "In this metric, parameter means P^½w."

# method, label, the formula without momentum, what it means
LEARNING_RATES = (
    (
        "max_lr",
        "noise-scale rule",
        "(2/λ)/(1 + B_noise/B); ",
        "beyond it a step gains less; no limit of stability",
    ),
    (
        "greedy_lr",
        "best single step",
        "ε_opt = (|G|²/GᵀHG)/(1 + B_noise/B); ",
        "beyond twice it one step raises the loss",
    ),
    (
        "mean_square_lr",
        "mean-square limit",
        "at most (2/λ)/(1 + (1/B - 1/N)·B_curv); ",
        "SGD is unstable at this point beyond it",
    ),
    (
        "doubling_lr",
        "noise doubles loss",
        "1/(1/limit + (1/B - 1/N)·trΣ/(4L)); ",
        "beyond it the noise of the steps would double the loss",
    ),
)
TRADE_OFF = (
    (
        "steps",
        "steps (1 = fewest)",
        "1 + B_noise/B; steps of a run, relative to very large batches",
    ),
    (
        "samples",
        "samples (1 = fewest)",
        "1 + B/B_noise; samples of a run, relative to very small batches",
    ),
)
REGIME = "noise limits a step where B < B_noise, curvature where B > B_noise"
HERE = (
    "The limits hold at this point of training. Beyond the mean-square limit a run leaves this "
    "bowl, and often settles where the loss is flatter. So one point does not tell the largest "
    "stable rate of training, which `gn.branch` finds from here."
)


def write(profile: Results) -> str:
    """The report as plain text."""
    return render(_parts(profile))


def _parts(profile: Results) -> list[Text | Table]:
    has_curvature = "noise_scale" in profile.estimates
    parts: list[Text | Table] = [_header(profile)]
    if has_curvature:
        advice = profile.recommend()
        sure = "" if advice.confidence == "none" else f" ({advice.confidence})"
        parts += [Text(), *listed(f"What to do{sure}", advice.reasons)]
    parts += [Text(), *_measured(profile)]
    if has_curvature and not is_unsettled(profile):
        parts += [Text(), *_learning_rates(profile)]
    parts += [Text(), *by_layer(profile)]
    if profile.warnings:
        parts += [Text(), *listed("Please note", profile.warnings)]
    return parts


def _header(profile: Results) -> Text:
    size = "∞" if math.isinf(profile.population) else integer(profile.population)
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
    if _is_weighted(profile):
        lines.append(f"the loss L is the {profile.objective}")
    if profile.randomness != NONE:
        lines.append(profile.randomness)
    if profile.metric == "optimizer" and profile.optimizer is not None:
        lines.append(
            f"in the metric of {profile.optimizer.name}: gradients P^-½g and Hessian P^-½HP^-½, "
            f"with P from its state"
        )
    setting = profile.setting
    used = []
    if profile.optimizer is not None:
        momentum = f", momentum {setting.momentum:g}" if setting.momentum else ""
        rate = profile.optimizer.lr
        used.append(
            profile.optimizer.name + (f", learning rate {rate:g}{momentum}" if rate else "")
        )
    if setting.batch_size:
        used.append(f"batch size {setting.batch_size:g}")
    if used:
        lines.append(f"trained with {', '.join(used)}")
    if profile.cost is not None:
        lines.append(_cost(profile, profile.cost))
    return Text("\n".join(lines))


def _cost(profile: Results, cost: Cost) -> str:
    """What was spent, and what half the interval of B_noise would cost."""
    spent = f"cost: {short(cost.passes)} plain passes (forward and backward) over these samples"
    scale = profile.estimates.get("noise_scale")
    if scale is None or not scale.low < scale.high:
        return spent
    if not (profile.samples >= profile.population or 4 * profile.samples <= profile.population):
        return spent  # there are not as many samples as that would take
    how = "" if profile.samples >= profile.population else " and 4 times as many samples"
    return f"{spent}; half the interval of B_noise takes about {short(cost.half_width)}{how}"


def _measured(profile: Results) -> list[Text | Table]:
    table = plain_table("measured", "value", f"{profile.level:.0%} interval", "what it means")
    for name, label, unit, meaning in MEASURED:
        if name == "trace_cov" and profile.unit == "group":
            meaning = f"{profile.group_size} times the variance of group gradients"
        if name == "loss" and _is_weighted(profile):
            meaning = f"weighted {meaning}"
        if name in profile.estimates:
            table.add_row(label, *cells(profile.estimates[name], unit), meaning)
    if "sharpness" in profile.estimates and not is_unsettled(profile):
        meaning = "full batch unstable at this point beyond it"
        landscape = profile.landscape(profile.setting.momentum)
        table.add_row(_stable(landscape), *cells(landscape.stable_lr, ""), meaning)
    notes = UNITS + (f" {OTHER_UNITS}" if profile.setting.rescales else "")
    if profile.samples >= profile.population and profile.unit == "sample":
        count = integer(profile.samples)
        notes = f"exact: no sampling error, all {count} samples were measured. {notes}"
    return [*fitted(table), Text(), Text(notes)]


def _is_weighted(profile: Results) -> bool:
    return profile.unit == "sample" and profile.objective != MEAN


def _stable(landscape: Landscape) -> str:
    """The name of the stable rate, with the factor of the optimizer's momentum."""
    return f"stable rate {stable_lr(1.0, landscape.optimizer, landscape.momentum):.3g}/λ"


def _learning_rates(profile: Results) -> list[Text | Table]:
    batches, setting = _batches(profile), profile.setting
    landscape = profile.landscape(setting.momentum)
    who = setting.rescales or "SGD"
    of_sgd = landscape.optimizer == "sgd" and not landscape.momentum
    table = plain_table("learning rate at B =", *map(integer, batches), "what it means")
    for method, label, formula, meaning in LEARNING_RATES:
        limits = [getattr(landscape, method)(batch) for batch in batches]
        if method == "doubling_lr" and not profile.loss.low > 0:
            continue  # zero is not the least that this loss can be
        meaning = (formula if of_sgd else "") + meaning.replace("SGD", who)
        table.add_row(label, *(cells(limit, "")[0] for limit in limits), meaning)
    for method, label, meaning in TRADE_OFF:
        costs = [getattr(landscape, method)(batch) for batch in batches]
        table.add_row(label, *(cells(cost, "")[0] for cost in costs), meaning)
    sides = [profile.regime(batch).removesuffix("-dominated") for batch in batches]
    table.add_row("regime", *sides, REGIME)
    if setting.effective_lr:
        rates = [profile.temperature(setting.effective_lr, batch) for batch in batches]
        formula = " ε/((1-m)B)" if setting.effective_lr != setting.lr else " ε/B"
        meaning = (
            f"noise of the steps at ε = {setting.lr:g}; runs of equal temperature train alike "
            f"where noise dominates"
        )
        table.add_row(f"temperature{formula}", *map(short, rates), meaning)
    return [*fitted(table), Text(), *listed("The limits compared", _compared(profile, batches))]


def _compared(profile: Results, batches: list[int]) -> tuple[str, ...]:
    setting = profile.setting
    landscape = profile.landscape(setting.momentum)
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


def _batches(profile: Results) -> list[int]:
    """The batch in use, and others around the noise scale, within the population."""
    scale = profile.noise_scale
    known = float(scale) if scale.is_resolved else scale.low
    centre = max(1.0, min(known if math.isfinite(known) and known > 0 else 64.0, 2.0**20))
    middle = 2 ** round(math.log2(centre))
    wanted = {max(1, middle // 8), middle, middle * 8, profile.setting.batch_size or middle // 2}
    return sorted({int(max(1, min(batch, profile.population))) for batch in wanted})
