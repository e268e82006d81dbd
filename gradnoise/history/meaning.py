"""What the numbers of a run mean, in sentences; none promises what training refuted."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..show.table import integer
from ..statistics.estimate import Estimate, Status, short
from .critical import FLAT
from .pool import RunPool
from .run_file import Run
from .summary import Part, Summary

FAR = 5  # B_simple of one point is within this factor of the critical batch size in half of cases
NOISE, EQUAL, GRADIENT, UNKNOWN = "noise", "equal", "gradient", "unknown"
SENTENCES = {
    NOISE: "Noise dominates: a larger batch may save steps where the learning rate can grow with "
    "it; a trial (gn.branch) tells.",
    EQUAL: "Noise and gradient are of similar size. Whether a larger batch saves steps, only a "
    "trial (gn.branch) tells.",
    GRADIENT: "The gradient dominates: a larger batch probably saves few steps.",
    UNKNOWN: "Too few steps were measured so far to say more.",
}
NOT_CRITICAL = (
    "Pooled B_simple is not the critical batch size of training. That was within a factor 2 of it "
    "in 35 % of the cases in docs/advice.md, within a factor 5 in 71 %. `gn.branch` finds it, by "
    "short runs from a checkpoint."
)


NOT_RIGHT = (
    "How right B_crit is (docs/advice.md, 200 measured steps). For a run to here: within a factor "
    "2 of training in 64 % of the cases, inside of its interval in 151 of 152. For the rest of a "
    "run: in 53 %, and 70 of 85."
)


def noise_scale(run: Run) -> Estimate:
    """B_simple of the last line, as the monitor had it."""
    value, low, high = (run.last(f"noise_scale{end}") for end in ("", "_low", "_high"))
    low, high = (0.0 if math.isnan(low) else low), (math.inf if math.isnan(high) else high)
    status = Status.SIGNAL_BELOW_NOISE if math.isnan(value) else Status.RESOLVED
    if low <= 0 and math.isinf(high):
        status = Status.NO_INTERVAL
    return Estimate(value, low, high, run.level, math.nan, 0, status)


def over(batch_size: float, scale: Estimate) -> Estimate:
    """B/B_simple; its interval is that of B_simple, turned round."""
    low = batch_size / scale.high
    high = batch_size / scale.low if scale.low > 0 else math.inf
    value = batch_size / scale.value if scale.value else math.nan
    return Estimate(value, low, high, scale.level, math.nan, scale.samples, scale.status)


def regime(ratio: Estimate) -> str:
    """Which of noise and gradient is larger in a batch, by B/B_simple and its interval.

    One of them dominates where the ratio is beyond a factor `FAR`, and the interval excludes 1.
    """
    best = ratio.value if math.isfinite(ratio.value) else ratio.high
    if ratio.high < 1 and best < 1 / FAR:
        return NOISE
    if ratio.low > 1 and best > FAR:
        return GRADIENT
    return EQUAL if math.isfinite(ratio.value) else UNKNOWN


def about_batch(ratio: Estimate, is_critical_known: bool = False) -> str:
    """How much of a batch's gradient is noise, and what that says about the batch size.

    Where B_crit is known it is left to say the latter.

    E|g_B|² = |G|² + trΣ/B, so that noise is the share 1/(1 + B/B_simple) of it.
    """
    if not ratio.low > 0 and math.isinf(ratio.high):
        return "Too few steps were measured so far to compare noise and gradient."
    shares = sorted(round(100 / (1 + x)) for x in (ratio.low, ratio.high))
    least, most = (f"{share}" for share in shares)
    share = f"{least} to {most}" if least != most else least
    if math.isnan(ratio.value):
        share = f"at least {least}" if math.isfinite(ratio.high) else f"at most {most}"
    told = f"In a batch, {share} % of the squared gradient is noise, 1/(1 + B/B_simple)."
    return told if is_critical_known else f"{told} {SENTENCES[regime(ratio)]}"


def about_run(found: Summary, pool: RunPool) -> list[str]:
    """Whether B_simple grew, when a larger batch would have paid, and what none of it says."""
    first, last = found.thirds[0], found.thirds[-1]
    is_known, change = pool.unknown == "", last.lr / first.lr if first.lr else math.nan
    when = _critical(pool) if is_known else [_since(found.thirds)]
    lines = [_growth(first.noise_scale, last.noise_scale), *when]
    if 0 < change < math.inf and not 1 / 1.5 < change < 1.5:
        direction = "fell" if change < 1 else "rose"
        factor = short(max(change, 1 / change))
        lines.append(
            f"The learning rate {direction} by a factor {factor} from the first third to "
            f"the last. B_simple goes with B/ε."
        )
    if not found.whole.noise_scale.is_resolved:
        lines.append(
            "Of B_simple there is a bound only: measure more steps (the monitor's `every`)."
        )
    return [*lines, NOT_RIGHT] if is_known else [*lines, NOT_CRITICAL, pool.unknown]


def _critical(pool: RunPool) -> Iterator[str]:
    """What the batch size in use cost, and from when on a larger one would have paid."""
    size, whole, rest = pool.batch_size, pool.critical_batch_size(), pool.rest
    if whole.status is FLAT:
        yield (
            "The loss did not fall, so that no critical batch size can be told. If it should have "
            "fallen, look at the learning rate before the batch size."
        )
        return
    if math.isfinite(whole.value):
        yield (
            f"B = {integer(size)} takes about {short(1 + size / whole.value)} times the fewest "
            f"samples, 1 + B/B_crit ({_range(size / whole.high, size / whole.low)}), and "
            f"{short(1 + whole.value / size)} times the fewest steps, 1 + B_crit/B "
            f"({_range(whole.low / size, whole.high / size)}), each batch size with its best "
            f"learning rate."
        )
    if not rest:
        yield (
            "From when on a larger batch would have paid is not known: between 10 and 75 % of the "
            "run there is no B_crit of the rest."
        )
        return
    where = f"B_crit of the rest was looked at from step {integer(rest[0].step)} to "
    where = f"{where}{integer(rest[-1].step)}. "
    if math.isnan(pool.larger_from):
        yield f"{where}At the end of that it was not above B: nothing here speaks for a larger one."
    else:
        since = pool.larger_from
        start = "All along" if since == rest[0].step else f"From step {integer(since)} on"
        yield (
            f"{where}{start} its value was above B: if that is right, twice the batch size takes "
            f"at most 1.5 times the samples in 0.75 times the steps there, with its best learning "
            f"rate."
        )


def _range(low: float, high: float) -> str:
    """1 + the ends of an interval."""
    return f"{short(1 + low)} to {short(1 + high)}"


def _growth(first: Estimate, last: Estimate) -> str:
    if first.high < last.low:
        return f"B_simple grew from the first third to the last, {_factor(last, first)}."
    if last.high < first.low:
        return f"B_simple fell from the first third to the last, {_factor(first, last)}."
    return "The first and the last third do not differ by more than their intervals."


def _factor(larger: Estimate, smaller: Estimate) -> str:
    if math.isnan(larger.value):
        return f"by a factor of at least {short(larger.low / smaller.high)}"
    return f"by a factor of about {short(larger.value / smaller.value)}"


def _since(thirds: tuple[Part, ...]) -> str:
    """From which third on noise dominated until the end."""
    regimes = [regime(over(part.batch_size, part.noise_scale)) for part in thirds]
    if regimes[-1] == UNKNOWN:
        return (
            f"For the last third too few steps were measured to tell whether noise dominates there "
            f"(B/B_simple below 1/{FAR})."
        )
    if regimes[-1] != NOISE:
        return (
            f"In the last third noise did not dominate (B/B_simple was not below 1/{FAR}): nothing "
            f"here says that a larger batch would have saved steps."
        )
    since = next(k for k in range(3) if set(regimes[k:]) == {NOISE})
    where = f"From step {integer(thirds[since].first)} on" if since else "In the whole run"
    return (
        f"{where} noise dominated (B/B_simple below 1/{FAR}): a larger batch may have saved steps "
        f"there, where the learning rate could grow with it."
    )
