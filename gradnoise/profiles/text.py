"""A profile as a table that says what each number means for the person who trains."""

from __future__ import annotations

import math

from rich.table import Table
from rich.text import Text

from ..learning_rate.formulas import stable_lr
from ..learning_rate.landscape import Landscape
from ..show.table import cells, integer, listed, plain_table, render
from ..statistics.estimate import short
from .layer_table import by_layer
from .results import Results

MEASURED = (
    ("loss", "loss L", "", "mean over the samples"),
    ("grad_sq_norm", "gradient |G|²", "", "the slope all samples share"),
    ("trace_cov", "gradient noise trΣ", "", "how far single samples stray from it"),
    ("simple_noise_scale", "trΣ/|G|²", "samples", "batch whose noise is as long as its slope"),
    ("grad_curvature", "curvature GᵀHG", "", "how the slope bends: it ends the step"),
    ("trace_hessian_cov", "tr(HΣ)", "", "loss that the noise of a step adds"),
    ("noise_scale", "noise scale B_noise", "samples", "beyond it larger batches hardly help"),
    ("sharpness", "sharpness λ", "", "curvature of the steepest direction"),
    ("curvature_noise_scale", "B_curv", "samples", "batch that sees that curvature as it is"),
)

LEARNING_RATES = (
    ("max_lr", "noise-scale rule", "beyond it noise eats the gain"),
    ("greedy_lr", "best single step", "loss rises beyond twice it"),
    ("mean_square_lr", "mean-square limit", "SGD diverges beyond it"),
)


TRADE_OFF = (
    ("steps", "steps × fewest", "what a run takes in time"),
    ("samples", "samples × fewest", "what it takes in compute"),
)


def write(profile: Results) -> str:
    """The report as plain text."""
    return render(_parts(profile))


def _parts(profile: Results) -> list[Text | Table]:
    parts: list[Text | Table] = [_header(profile), Text(), _measured(profile)]
    if "noise_scale" in profile.estimates:
        parts += [Text(), *_learning_rates(profile)]
    parts += [Text(), *by_layer(profile)]
    if "noise_scale" in profile.estimates:
        advice = profile.recommend()
        parts += [Text(), *listed(f"What to do (confidence: {advice.confidence})", advice.reasons)]
    if profile.warnings:
        parts += [Text(), *listed("Please note", profile.warnings)]
    return parts


def _header(profile: Results) -> Text:
    size = "∞" if math.isinf(profile.population) else integer(profile.population)
    lines = [
        f"{profile.model}: {integer(profile.parameters)} trainable parameters, {profile.dtype} "
        f"on {profile.device}, {profile.mode} mode",
        f"measured on {integer(profile.samples)} samples out of {size}, per-sample gradients by "
        f"{profile.engine!r}, seed {profile.seed}",
    ]
    if profile.metric == "optimizer" and profile.optimizer is not None:
        lines.append(
            f"in the metric of {profile.optimizer.name}: gradient P^-½g and Hessian P^-½HP^-½, P "
            f"from its state"
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
    return Text("\n".join(lines))


def _measured(profile: Results) -> Table:
    table = plain_table("measured", "value", f"{profile.level:.0%} interval", "what it means")
    for name, label, unit, meaning in MEASURED:
        if name in profile.estimates:
            table.add_row(label, *cells(profile.estimates[name], unit), meaning)
    if "sharpness" in profile.estimates:
        meaning = "learning rate at which full batches diverge"
        landscape = profile.landscape(profile.setting.momentum)
        table.add_row(_stable(landscape), *cells(landscape.stable_lr, ""), meaning)
    return table


def _stable(landscape: Landscape) -> str:
    """The name of the stable rate, with the factor of the optimizer's momentum."""
    return f"stable rate {stable_lr(1.0, landscape.optimizer, landscape.momentum):.3g}/λ"


def _learning_rates(profile: Results) -> list[Text | Table]:
    batches, setting = _batches(profile), profile.setting
    landscape = profile.landscape(setting.momentum)
    table = plain_table("learning rate at B =", *map(integer, batches), "what it says")
    for method, label, meaning in LEARNING_RATES:
        limits = [getattr(landscape, method)(batch) for batch in batches]
        meaning = meaning.replace("SGD", setting.rescales or "SGD")
        table.add_row(label, *(cells(limit, "")[0] for limit in limits), meaning)
    for method, label, meaning in TRADE_OFF:
        costs = [getattr(landscape, method)(batch) for batch in batches]
        table.add_row(label, *(cells(cost, "")[0] for cost in costs), meaning)
    sides = [profile.regime(batch).removesuffix("-dominated") for batch in batches]
    table.add_row("regime", *sides, "what limits a step")
    if setting.effective_lr:
        rates = [profile.temperature(setting.effective_lr, batch) for batch in batches]
        drift = " ε/(1-m)B" if setting.effective_lr != setting.lr else " ε/B"
        table.add_row(f"temperature{drift}", *map(short, rates), "equal ones, equal noise")
    readings = [
        landscape.limits(batch).reading for batch in dict.fromkeys((batches[0], batches[-1]))
    ]
    if setting.momentum:
        own = f"with momentum {setting.momentum:g}"
        readings.append(
            f"All are those of {setting.rescales or 'SGD'} {own}, but for the single step."
        )
    return [table, Text(), *listed("The limits side by side", tuple(readings))]


def _batches(profile: Results) -> list[int]:
    """The batch in use, and others around the noise scale, within the population."""
    scale = profile.noise_scale
    known = float(scale) if scale.is_resolved else scale.low
    centre = max(1.0, min(known if math.isfinite(known) and known > 0 else 64.0, 2.0**20))
    middle = 2 ** round(math.log2(centre))
    wanted = {max(1, middle // 8), middle, middle * 8, profile.setting.batch_size or middle // 2}
    return sorted({int(max(1, min(batch, profile.population))) for batch in wanted})
