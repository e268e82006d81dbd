"""`gn.pool`: what several measurements along one run say together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from ..errors import ArgumentError, NotMeasuredError, positive
from ..estimators.report import line, report
from ..history.pool import CRITICAL, RunPool
from ..history.run_file import Run
from ..statistics.estimate import Estimate, check_level, short
from ..statistics.ratio_of_sums import ratio_of_sums
from .critical import critical_batch_size

SIMPLE = ("trace_cov", "grad_sq_norm")
HESSIAN = ("trace_hessian_cov", "grad_curvature")
SAME = ("metric", "population", "parameters")  # of all members that have it


@dataclass(frozen=True)
class Pool:
    """What several measurements along one run say together; `print` it.

    **The critical batch size** is where noise and curvature limit the rate alike. A rate ε at batch
    size B holds the loss about ε·trΣ/B too high, so noise allows about ε = B·D/trΣ in a run whose
    loss falls by D = -dL/d ln t; curvature allows ε_max = 2/((1 - m)λ). They are equal at

        B_crit = ε_max·trΣ/D

    It grows along a run, because the loss falls more and more slowly, and hardly depends on the
    rate and the batch size of the run. For SGD with momentum it is often several times too large.

    **The noise scales** of the run are ratios of sums over the measurements t, all of weight 1:

        B_simple = Σ_t trΣ_t/Σ_t |G|²_t        B_noise = Σ_t tr(HΣ)_t/Σ_t (GᵀHG)_t

    They are never means of ratios: a measurement with a weak gradient adds little to both sums, and
    is not divided by. Most of |G|² is the swing of the weights (`gn.swing`), in proportion to ε/B,
    so these ratios go with B/ε of the run. They are near B_crit only where the rate is near the
    best one for the batch size; that both agree does not show it. Their intervals say how far they
    move with the choice of the points (delete-one jackknife of the logarithm), plus the sampling
    error: the points of a run are not draws of one population. They do not say how far B_crit is;
    the interval of `critical_batch_size` does.

    Args:
        members: the measurements, in the order of the run.
        steps: how far the run had come at each; or empty.
        level: coverage of the intervals.

    Source: docs/advice.md has the comparison with training. B_crit is CABS (Balles, Romero and
        Hennig 2017, arXiv:1612.05086) at ε_max, with D in place of the loss; averages apart:
        McCandlish et al. 2018 (arXiv:1812.06162), app. A.1.
    """

    members: tuple[Any, ...]
    steps: tuple[float, ...] = ()
    level: float = 0.95

    def critical_batch_size(self, ahead: float | None = None) -> Estimate:
        """B_crit = ε_max·trΣ/D in samples, of a run to this loss, or of the steps ahead.

        trΣ is the last one, ε_max = 2/((1 - m)λ) with the largest λ of the last third of the run,
        D = -dL/d ln t the slope from the last measurement to the latest one that is a factor 1.5
        earlier. Where the loss falls by D per e-fold of t, it falls by D·n/(t + n) per e-fold of
        n steps that are counted from here, so that B_crit of these is (t + n)/n times as large.
        The interval reaches from half of the smaller one of this and of `simple_noise_scale` to
        twice the larger one, or a factor 5 both ways without the latter; training was in 32 of 44
        such intervals of steps ahead, and in 80 of 92 to here (docs/advice.md).

        Args:
            ahead: n, in the unit of `steps`; None for a run from its beginning to here.

        Returns:
            Estimate; without a value where the loss did not fall.

        Raises:
            NotMeasuredError: no `steps`; measurements without loss or sharpness; rates of plain SGD
                measured while another optimizer trains.
            ArgumentError: `ahead` is not positive.
        """
        return critical_batch_size(self.members, self.steps, ahead, self.simple_noise_scale)

    @property
    def simple_noise_scale(self) -> Estimate:
        """B_simple = Σ trΣ/Σ|G|² along the run, in samples."""
        return ratio_of_sums(_parts(self.members, SIMPLE), self.level)

    @property
    def noise_scale(self) -> Estimate:
        """B_noise = Σ tr(HΣ)/Σ GᵀHG along the run, in samples, from the members that have it."""
        return ratio_of_sums(_parts(self.members, HESSIAN), self.level)

    @property
    def sharpness(self) -> tuple[float, float]:
        """The smallest and the largest λ along the run; (nan, nan) where none was measured."""
        values = [float(m.sharpness) for m in self.members if hasattr(m, "sharpness")]
        return (min(values), max(values)) if values else (math.nan, math.nan)

    def agreement(self, ahead: float | None = None) -> float:
        """The factor between `critical_batch_size(ahead)` and `simple_noise_scale`, at least 1.

        Where the two are within a factor 2, the first was within a factor 2 of training in 12 of 21
        cases about the steps ahead, and in 15 of 20 about a run to here. nan where one of them has
        no value.
        """
        both = float(self.critical_batch_size(ahead)), float(self.simple_noise_scale)
        return max(both) / min(both) if all(scale > 0 for scale in both) else math.nan

    @property
    def confidence(self) -> str:
        """ "rough", or "none" where nothing has a value; only trials in training are "good"."""
        scales = self.simple_noise_scale, self.noise_scale
        return "rough" if any(math.isfinite(float(scale)) for scale in scales) else "none"

    def __str__(self) -> str:
        heading = f"{len(self.members)} measurements along a run; confidence: {self.confidence}"
        low, high = self.sharpness
        lines = [
            line("B_simple = Σ trΣ/Σ|G|²", self.simple_noise_scale, "samples"),
            line("B_noise = Σ tr(HΣ)/Σ GᵀHG", self.noise_scale, "samples"),
            ("sharpness λ", "", f"{short(low)} to {short(high)} along the run"),
        ]
        if self.steps:
            try:
                critical = line(CRITICAL, self.critical_batch_size(), "samples")
            except NotMeasuredError:  # what is missing, the method says
                critical = (CRITICAL, "not measured", "")
            lines.insert(0, critical)
        return report(heading, lines)


@overload
def pool(profiles: str | Path, *, steps: None = None, level: float = 0.95) -> RunPool: ...


@overload
def pool(
    profiles: Iterable[Any], *, steps: Iterable[float] | None = None, level: float = 0.95
) -> Pool: ...


def pool(
    profiles: Iterable[Any] | Path,
    *,
    steps: Iterable[float] | None = None,
    level: float = 0.95,
) -> Pool | RunPool:
    """The critical batch size and the noise scales of a run from measurements along it.

    B_crit = ε_max·trΣ/D with D = -dL/d ln t, and B_simple and B_noise as ratios of sums; see `Pool`
    for what they mean.

    Args:
        profiles: in the order of the run: `Profile`, `NoiseScale` or `GradientMoments`, or anything
            with `grad_sq_norm` and `trace_cov`, each an Estimate. Those with `grad_curvature` and
            `trace_hessian_cov` count for B_noise. B_crit needs `loss` and `sharpness`. Or the path
            of the file that was the `sink` of a `NoiseMonitor`, which says when steps were taken.
        steps: how many steps the run had taken at each, or samples: only their ratios count. Where
            the rate changed, the sum of the rates so far. None leaves B_crit out.
        level: coverage of the intervals.

    Returns:
        Pool, or RunPool of a file, with batch sizes and noise scales in samples.

    Raises:
        OSError: the file cannot be read.
        DataError: it is no file of a monitor.
        ArgumentError: a file without measured steps, or `steps` beside it; no measurements,
            something that is none, measurements of other models, populations or metrics; `steps`
            that do not increase or of another number.

    Example:
        >>> from gradnoise import noise_scale_from_gradients
        >>> import torch
        >>> first = noise_scale_from_gradients(torch.tensor([[3.0], [1.0]]), population="dataset")
        >>> last = noise_scale_from_gradients(torch.tensor([[2.0], [0.0]]), population="dataset")
        >>> float(pool([first, last]).simple_noise_scale)  # (2 + 2)/(4 + 1)
        0.8
    """
    check_level(level)
    if isinstance(profiles, (str, Path)):
        if steps is not None:
            raise ArgumentError("the file says when its steps were taken: leave `steps` out")
        return _of_file(profiles, level)
    if not isinstance(profiles, Iterable):
        raise ArgumentError(
            f"`profiles` must hold the measurements of a run, in a list; got one "
            f"{type(profiles).__name__}"
        )
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
    times = tuple(positive("steps", step) for step in (() if steps is None else steps))
    if times and (len(times) != len(members) or times != tuple(sorted(set(times)))):
        raise ArgumentError(
            f"`steps` must be {len(members)} increasing numbers, one for each of the profiles; got "
            f"{list(times)}"
        )
    return Pool(members, times, level)


def _of_file(path: str | Path, level: float) -> RunPool:
    run = Run.load(path)
    if not len(run):
        raise ArgumentError(" ".join([f"{path} has no measured step yet.", *run.notes]))
    return RunPool(run, level)


def _parts(members: Sequence[Any], names: tuple[str, str]) -> list[tuple[Estimate, Estimate]]:
    """(numerator, denominator) of the members that have both."""
    found = [tuple(getattr(member, name, None) for name in names) for member in members]
    return [(a, b) for a, b in found if isinstance(a, Estimate) and isinstance(b, Estimate)]
