"""`gn.pool`: the noise scales of a run, from several measurements along it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ArgumentError
from ..estimators.report import line, report
from ..statistics.estimate import Estimate, Status, check_level, short
from ..statistics.interval import quantile

AGREE = 2.0  # two noise scales agree when neither is more than this factor above the other
LAST = 3  # measurements at the end of the run that have to agree
SIMPLE = ("trace_cov", "grad_sq_norm")
HESSIAN = ("trace_hessian_cov", "grad_curvature")
SAME = ("metric", "population", "parameters")  # of all members that have it


@dataclass(frozen=True)
class Pool:
    """What several measurements of one run say together; `print` it.

    One measurement tells the noise scale of one moment, and that moves by a factor of ten and more
    along a run, and from one step to the next. The ratios of sums tell that of the run:

        B_simple = Σ_t trΣ_t / Σ_t |G|²_t        B_noise = Σ_t tr(HΣ)_t / Σ_t (GᵀHG)_t

    over the measurements t, each with the weight 1. They are never means of ratios: a measurement
    with a weak gradient adds little to both sums, and is not divided by.

    The interval is not that of a population's mean, since the points of a run are not draws of one
    population. It says how far the ratio moves with the choice of the points, plus what the samples
    leave open: on the logarithm, the delete-one jackknife variance (K - 1)/K Σ_t (θ_-t - θ̄)² over
    the K measurements plus the sampling variance, as if the errors of all measurements went the
    same way (they mostly use the same samples), with Student's t of K - 1 degrees of freedom. With
    two measurements it is very wide; one has none.

    Args:
        members: the measurements, in the order of the run.
        level: coverage of the intervals.

    Source: McCandlish et al. 2018 (arXiv:1812.06162), app. A.1 for ratios of averages.

    Example:
        >>> from gradnoise import noise_scale_from_gradients
        >>> import torch
        >>> moments = noise_scale_from_gradients(torch.tensor([[3.0], [1.0]]), population="dataset")
        >>> print(pool([moments] * 4).simple_noise_scale)  # 2/4 each time
        0.500 (exact)
    """

    members: tuple[Any, ...]
    level: float = 0.95

    @property
    def simple_noise_scale(self) -> Estimate:
        """B_simple = Σ trΣ/Σ|G|² along the run, in samples."""
        return _ratio_of_sums(_parts(self.members, SIMPLE), self.level)

    @property
    def noise_scale(self) -> Estimate:
        """B_noise = Σ tr(HΣ)/Σ GᵀHG along the run, in samples, from the members that have it."""
        return _ratio_of_sums(_parts(self.members, HESSIAN), self.level)

    @property
    def sharpness(self) -> tuple[float, float]:
        """The smallest and the largest λ along the run; (nan, nan) where none was measured."""
        values = [float(m.sharpness) for m in self.members if hasattr(m, "sharpness")]
        return (min(values), max(values)) if values else (math.nan, math.nan)

    @property
    def agreement(self) -> float:
        """The factor between B_simple and B_noise along the run, at least 1; nan where unknown."""
        return _factor([float(self.simple_noise_scale), float(self.noise_scale)])

    @property
    def steadiness(self) -> float:
        """The factor between the largest and the smallest B_simple of the last three members."""
        last = _parts(self.members, SIMPLE)[-LAST:]
        return _factor([_quotient(pair) for pair in last]) if len(last) == LAST else math.nan

    @property
    def confidence(self) -> str:
        """ "good", "rough" or "none": whether the noise scale of the run is known.

        "good": B_simple and B_noise agree within a factor 2, and B_simple of the last three
        measurements does too. "none": neither of the two has a value.
        """
        if self.agreement <= AGREE and self.steadiness <= AGREE:
            return "good"
        known = (
            math.isfinite(float(self.simple_noise_scale)),
            math.isfinite(float(self.noise_scale)),
        )
        return "rough" if any(known) else "none"

    def __str__(self) -> str:
        heading = f"{len(self.members)} measurements along a run; confidence: {self.confidence}"
        low, high = self.sharpness
        lines = [
            line("B_simple = Σ trΣ/Σ|G|²", self.simple_noise_scale, "samples"),
            line("B_noise = Σ tr(HΣ)/Σ GᵀHG", self.noise_scale, "samples"),
            ("sharpness λ", "", f"{short(low)} to {short(high)} along the run"),
            ("B_simple against B_noise", f"factor {short(self.agreement)}", ""),
            ("last three B_simple", f"factor {short(self.steadiness)}", ""),
        ]
        return report(heading, lines)


def pool(profiles: Iterable[Any], *, level: float = 0.95) -> Pool:
    """The noise scales of a run from measurements along it, as ratios of sums.

    B_simple = Σ_t trΣ_t/Σ_t |G|²_t and B_noise = Σ_t tr(HΣ)_t/Σ_t (GᵀHG)_t; what the intervals mean
    is said at `Pool`.

    Args:
        profiles: in the order of the run: `Profile`, `NoiseScale` or `GradientMoments`, or anything
            with `grad_sq_norm` and `trace_cov`, each an Estimate. Those with `grad_curvature` and
            `trace_hessian_cov` count for B_noise, those with `sharpness` for the range of λ.
        level: coverage of the intervals.

    Returns:
        Pool, with noise scales in samples.

    Raises:
        ArgumentError: no measurements, something that is none, measurements of other models,
            populations or metrics.

    Example:
        >>> from gradnoise import noise_scale_from_gradients
        >>> import torch
        >>> first = noise_scale_from_gradients(torch.tensor([[3.0], [1.0]]), population="dataset")
        >>> last = noise_scale_from_gradients(torch.tensor([[2.0], [0.0]]), population="dataset")
        >>> float(pool([first, last]).simple_noise_scale)  # (2 + 2)/(4 + 1)
        0.8
    """
    check_level(level)
    members = tuple(profiles)
    if not members:
        raise ArgumentError("`profiles` is empty; measure at several points of a run")
    for member in members:
        missing = [name for name in SIMPLE if not isinstance(getattr(member, name, None), Estimate)]
        if missing:
            raise ArgumentError(
                f"`profiles` must hold profiles, noise scales or gradient moments; got "
                f"{type(member).__name__} without `{missing[0]}`"
            )
    for name in SAME:
        values = list(dict.fromkeys(getattr(m, name) for m in members if hasattr(m, name)))
        if len(values) > 1:
            raise ArgumentError(
                f"`profiles` must be of one run, measured alike; got `{name}` = {values[0]!r} and "
                f"{values[1]!r}"
            )
    return Pool(members, level)


def _parts(members: Sequence[Any], names: tuple[str, str]) -> list[tuple[Estimate, Estimate]]:
    """(numerator, denominator) of the members that have both."""
    found = [tuple(getattr(member, name, None) for name in names) for member in members]
    return [(a, b) for a, b in found if isinstance(a, Estimate) and isinstance(b, Estimate)]


def _ratio_of_sums(parts: list[tuple[Estimate, Estimate]], level: float) -> Estimate:
    """Σ numerators/Σ denominators with the jackknife interval of its logarithm."""
    samples = max((part.samples for pair in parts for part in pair), default=0)
    top, bottom = (math.fsum(float(pair[k]) for pair in parts) for k in (0, 1))
    if not parts or not top > 0 or not bottom > 0:
        status = Status.SIGNAL_BELOW_NOISE if top > 0 else Status.NOISE_BELOW_ERROR
        status = status if parts else Status.NO_INTERVAL
        return Estimate(math.nan, 0.0, math.inf, level, math.nan, samples, status)
    value, count = top / bottom, len(parts)
    if count == 1:
        return Estimate(value, 0.0, math.inf, level, math.nan, samples, Status.NO_INTERVAL)
    variance = _jackknife(parts, top, bottom) + _sampling(parts, top, bottom)
    reach = quantile(level, _matter(parts) - 1) * math.sqrt(variance)
    factor = math.exp(reach) if reach < 700 else math.inf  # beyond, exp overflows
    return Estimate(value, value / factor, value * factor, level, math.nan, samples)


def _matter(parts: list[tuple[Estimate, Estimate]]) -> float:
    """(Σd)²/Σd² of the denominators: K where all are equal, towards 1 where one outweighs all."""
    sizes = [abs(float(bottom)) for _, bottom in parts]
    count = math.fsum(sizes) ** 2 / math.fsum(size**2 for size in sizes)
    return max(count, 1.1)  # Student's quantile of fewer degrees of freedom overflows


def _jackknife(parts: list[tuple[Estimate, Estimate]], top: float, bottom: float) -> float:
    """Delete-one variance of the logarithm of the ratio; inf where one member decides its sign."""
    left = [(top - float(a), bottom - float(b)) for a, b in parts]
    if any(min(pair) <= 0 for pair in left):
        return math.inf
    logs = [math.log(a / b) for a, b in left]
    mean = math.fsum(logs) / len(logs)
    return (len(logs) - 1) / len(logs) * math.fsum((log - mean) ** 2 for log in logs)


def _sampling(parts: list[tuple[Estimate, Estimate]], top: float, bottom: float) -> float:
    """Sampling variance of the logarithm, the errors of all members in the same direction."""
    totals = (top, bottom)
    errors = [
        math.fsum(pair[k].stderr for pair in parts if pair[k].stderr > 0) / totals[k]
        for k in (0, 1)
    ]
    return math.fsum(error**2 for error in errors)


def _quotient(pair: tuple[Estimate, Estimate]) -> float:
    """The ratio of one measurement; nan where it is not positive."""
    top, bottom = map(float, pair)
    return top / bottom if top > 0 and bottom > 0 else math.nan


def _factor(values: list[float]) -> float:
    """The largest over the smallest; nan unless all are positive numbers."""
    known = all(0 < value < math.inf for value in values)
    return max(values) / min(values) if known else math.nan
