"""B_noise = tr(HΣ)/GᵀHG and its parts, unbiased for a finite or infinite population.

H, Σ and G come from the same samples, so a product of them is biased even where each is not. With
c_i = g_i - ḡ, h_i = H_i - H and φ = 1/n - 1/N, sampling n of N without replacement gives

    E[tr(HΣ)]  = tr(HΣ) + φ K3
    E[ḡᵀHḡ]    = GᵀHG + φ tr(HΣ) + 2φ C + φ(1/n - 2/N) K3
    C = Σ ḡᵀh_ic_i/(n - 1) with E[C] = C + φ K3,   K3 = n Σ c_iᵀh_ic_i/((n - 1)(n - 2)) unbiased,

the moment identities of Tukey's k-statistics, linear in each factor (docs/theory/noise_scale.md).
The sums over samples are read off random signs s ∈ {±1}ⁿ: u = Σ s_ic_i/√(n - 1) is one weighted
backward pass, and E[uᵀHu] = tr(HΣ). The part M of H that the Krylov space of λ knows (`Deflation`)
is taken out of every uᵀHu and added exactly, as tr(MΣ) = Σ c_iᵀMc_i/(n - 1): a few slopes of every
sample, no product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..algebra.deflation import Deflation, krylov_deflation
from ..directional import forms, sign_sums, weighted_sum
from ..errors import ArgumentError, check_whole
from ..estimate import Estimate, flag_zero, pooled_freedom
from ..losses import LossFn
from ..metric import check_metric
from ..moments import GradientMoments
from ..operators import Hessian, PerSampleGradients
from ..pergrad import Engine, choose
from ..probes import is_complete, random_signs
from ..problem import Problem
from ..ratio import ratio
from ..rescaled import in_metric
from ..samples import MICRO_BATCH
from ..skew import Skew, lopsided
from ..streaming import stream, with_intervals
from ..sums import by_parameter
from ..trees import widen

PROBES = 32
SAMPLING_PROBES = 8  # at least; they also measure what sampling adds: bias and standard error
ACCURACY = 0.05  # relative standard error of tr(HΣ) at which no more probes are taken
STEPS = 20  # products of the Krylov space that is taken out of the probes


@dataclass(frozen=True)
class Parts:
    """GᵀHG and tr(HΣ) parameter by parameter; uᵀHu is the sum over them of u_pᵀ(Hu)_p.

    Args:
        curvature: ḡ_pᵀ(Hḡ)_p less the part of noise (1/n - 1/N) tr((HΣ)_pp), shape (p,).
        traces: u_pᵀ(Hu)_p per probe, E = tr((HΣ)_pp), shape (K, p).
        complete: whether the probes are all there are.
    """

    curvature: Tensor
    traces: Tensor
    complete: bool


@dataclass(frozen=True)
class NoiseScale:
    """The two noise scales and what they are made of.

    Args:
        simple: B_simple = trΣ/|G|².
        hessian: B_noise = tr(HΣ)/GᵀHG.
        grad_sq_norm, trace_cov, grad_curvature, trace_hessian_cov: |G|², trΣ, GᵀHG, tr(HΣ).
        parts: the latter two parameter by parameter.
    """

    simple: Estimate
    hessian: Estimate
    grad_sq_norm: Estimate
    trace_cov: Estimate
    grad_curvature: Estimate
    trace_hessian_cov: Estimate
    parts: Parts | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class _Probed:
    """What random signs tell.

    Args:
        traces: uᵀ(H - M)u + tr(MΣ) per probe, shape (K,).
        third: the unbiased K3 per pair of sampling probes, empty when nothing is sampled.
        mixed: C per sampling probe.
        influences: of each sample on tr(HΣ), per sampling probe, shape (K', n).
        lengths: ‖(H - M)u‖ per probe, and 1 for a probe that happened to be zero itself.
        squares: (u_sᵀHu_t)² per pair of sampling probes: E = tr((HΣ)²).
        parts: `traces` parameter by parameter, shape (K, p).
    """

    traces: Tensor
    third: Tensor
    mixed: Tensor
    influences: Tensor
    lengths: Tensor
    squares: Tensor
    parts: Tensor


def noise_scale(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    metric: str = "euclidean",
    population: str | int = "dataset",
    engine: str = "auto",
    probes: int = PROBES,
    accuracy: float = ACCURACY,
    max_samples: int | None = 4096,
    level: float = 0.95,
    seed: int = 0,
    micro_batch: int = MICRO_BATCH,
) -> NoiseScale:
    """B_simple and B_noise with their intervals.

    B_noise = tr(HΣ)/GᵀHG (McCandlish et al. 2018, arXiv:1812.06162, eq. 2.8); both unbiased parts
    are kept. A ratio whose denominator is not resolved has a lower bound and no value.

    Args:
        model, loss_fn, data, optimizer, metric, population, engine, max_samples, level, seed,
            micro_batch: as for `gradient_moments`.
        probes: random sign vectors for tr(HΣ), at most.
        accuracy: relative standard error at which fewer are taken, 8 at least.

    Returns:
        NoiseScale.

    Raises:
        GradNoiseError: see `gradient_moments`.
        ArgumentError: fewer than 2 probes, or a negative accuracy.

    Example:
        >>> from gradnoise.toy import NoisyQuadratic
        >>> toy = NoisyQuadratic(torch.diag(torch.tensor([2.0, 1.0])), torch.ones(2))
        >>> scale = noise_scale(toy.model(), toy.loss_fn, toy.sample(512, seed=0))
        >>> scale.hessian.is_resolved
        True
    """
    check_accuracy(accuracy)
    check_metric(metric, optimizer)
    problem = Problem.open(
        model,
        loss_fn,
        data,
        max_samples=max_samples,
        population=population,
        seed=seed,
        micro_batch=micro_batch,
    )
    problem = in_metric(problem, metric, optimizer)
    with problem.guard():
        chosen = choose(problem.objective, problem.largest_batch(), engine)
        hessian = Hessian.of(problem, hvp="kept")
        moments = with_intervals(problem, chosen, stream(problem, chosen, level=level))
        signs = sign_probes(moments.count, probes, seed)
        deflation = krylov_deflation(hessian, steps=STEPS, seed=seed)
        return measure_noise_scale(
            hessian, chosen, moments, signs, deflation=deflation, accuracy=accuracy
        )


def check_accuracy(accuracy: float) -> None:
    """Raise ArgumentError unless `accuracy` is a relative standard error."""
    if not accuracy >= 0:
        raise ArgumentError(f"`accuracy` is a relative error such as 0.05, or 0; got {accuracy}")


def sign_probes(count: int, probes: int, seed: int) -> Tensor:
    """Random signs, shape (probes, count)."""
    check_whole("probes", probes, 2)
    return random_signs(probes, count, seed)


def measure_noise_scale(
    hessian: Hessian,
    engine: Engine,
    moments: GradientMoments,
    signs: Tensor,
    *,
    deflation: Deflation | None = None,
    accuracy: float = 0.0,
    sampling_probes: int = SAMPLING_PROBES,
    tick: Any = None,
) -> NoiseScale:
    """The noise scales from moments (with intervals) and sign vectors of shape (K, n).

    Args:
        hessian, engine, moments: of the same samples.
        signs: at most so many probes; fewer once `accuracy` is reached, if they are random.
        deflation: of the Hessian; None for plain probes.
        accuracy: relative standard error of tr(HΣ) that is enough.
        sampling_probes: that also look at single samples, where only a part is measured.
        tick: called with 1 after every probe.
    """
    n, factor = moments.count, moments.sampling_factor
    mean = torch.cat([part.reshape(-1) for part in moments.mean.values()])
    sampled = min(sampling_probes, len(signs)) if factor else 0
    rows = PerSampleGradients.of(hessian.problem, engine=engine)
    with hessian.problem.guard():
        along, influence, image = _curvature_of_mean(hessian, rows, mean, factor)
        known = _Known.of(deflation, rows, mean)
        enough = 0.0 if is_complete(len(signs), n) else accuracy
        probed = _probe(hessian, rows, mean, signs, sampled, known, enough, tick)

    third = float(probed.third.mean()) if len(probed.third) else 0.0
    trace = float(probed.traces.mean()) - factor * third
    mixed = (float(probed.mixed.mean()) if len(probed.mixed) else 0.0) - factor * third
    curvature = along - factor * (trace + 2 * mixed + (1 / n - 2 / moments.population) * third)

    probe_variance = _probe_variance(probed, moments)
    sampling = _sampling_covariance(probed, influence, factor)
    freedom = pooled_freedom((probe_variance, len(probed.traces) - 1), (sampling[0], n - 1))
    from_probes = factor**2 * (probe_variance + 4 * _mean_variance(probed.mixed))
    variances = (sampling[0] + probe_variance, sampling[1] + from_probes)
    skew = _skew(probed, influence, moments)
    if factor:
        with hessian.problem.guard():
            skew = skew.bent(factor**2 * _bend(hessian, influence, trace))
    level, size = moments.level, float(moments.trace_cov)
    rounding = moments.rounding * abs(trace) / size if size else 0.0
    return NoiseScale(
        simple=moments.simple_noise_scale,
        hessian=ratio(
            trace,
            curvature,
            variances=(variances[0], variances[1] + rounding**2),
            covariance=sampling[2] - factor * probe_variance,
            level=level,
            samples=n,
            freedom=freedom,
            skew=skew,
        ),
        grad_sq_norm=moments.grad_sq_norm,
        trace_cov=moments.trace_cov,
        grad_curvature=flag_zero(
            lopsided(curvature, variances[1], skew, level=level, samples=n, freedom=n - 1, part=1)
        ),
        trace_hessian_cov=flag_zero(
            lopsided(trace, variances[0], skew, level=level, samples=n, freedom=freedom)
        ),
        parts=Parts(
            by_parameter(mean, image, _sizes(rows)) - factor * probed.parts.mean(0),
            probed.parts,
            is_complete(len(probed.parts), n),
        ),
    )


def _sizes(rows: PerSampleGradients) -> list[int]:
    return [parameter.numel() for parameter in rows.problem.objective.parameters.values()]


def _curvature_of_mean(
    hessian: Hessian, rows: PerSampleGradients, mean: Tensor, factor: float
) -> tuple[float, Tensor, Tensor]:
    """ḡᵀHḡ, the influence of each sample on it, and Hḡ."""
    if factor == 0:
        image = widen(hessian @ mean)
        return float(mean @ image), torch.zeros(0), image
    along = forms(hessian.problem, mean, [mean])
    value = float(mean @ along.product)
    own = along.values[:, 0] - value
    return value, own + 2 * (_slopes(rows, along.product) - value), along.product


def _slopes(rows: PerSampleGradients, direction: Tensor) -> Tensor:
    """g_iᵀv, shape (n,)."""
    return rows.along(direction[:, None])[:, 0]


def _probe(
    hessian: Hessian,
    rows: PerSampleGradients,
    mean: Tensor,
    signs: Tensor,
    sampled: int,
    known: _Known | None,
    accuracy: float,
    tick: Any,
) -> _Probed:
    """The probes; the first `sampled` of them also look at the samples one by one."""
    signs = signs.to(mean)
    ring: list[tuple[Tensor, Tensor]] = []  # the first and the latest (signs, direction)
    seen: list[_Sampling] = []
    traces: list[Tensor] = []
    parts: list[Tensor] = []
    squares: list[Tensor] = []
    lengths: list[Tensor] = []
    for k, direction in enumerate(sign_sums(rows.problem, signs)):
        if k < sampled:
            partners = [*ring[-1:], *(ring[:1] if k == sampled - 1 else [])]
            image, sampling = _look_closer(rows, mean, signs[k], direction, partners, known)
            seen.append(sampling)
            squares += [(partner @ image).square() for _, partner in partners]
            ring = [*ring[:1], (signs[k], direction)]
        else:
            image = widen(hessian @ direction)
        rest = image if known is None else known.rest(direction, image, hessian.resolution)
        traces.append(direction @ rest + (known.trace if known else 0.0))
        own = by_parameter(direction, rest, _sizes(rows))
        parts.append(own + (known.parts if known else 0.0))
        lengths.append(rest.norm() if direction.any() else torch.ones_like(traces[-1]))
        if tick is not None:
            tick(1)
        if k + 1 >= max(sampled, SAMPLING_PROBES) and _suffice(traces, accuracy):
            break
    n = signs.shape[1]
    third = [value for sampling in seen for value in sampling.third]
    return _Probed(
        traces=torch.stack(traces),
        third=_stack(third) * (n / (n - 2) if n > 2 else 0.0),
        mixed=_stack([sampling.mixed for sampling in seen]),
        influences=_stack([sampling.influence for sampling in seen]),
        lengths=_stack(lengths),
        squares=_stack(squares),
        parts=torch.stack(parts),
    )


@dataclass(frozen=True)
class _Sampling:
    """One probe's share of `_Probed`, before the factor n/(n - 2) of the third moment."""

    third: list[Tensor]
    mixed: Tensor
    influence: Tensor


def _look_closer(
    rows: PerSampleGradients,
    mean: Tensor,
    signs: Tensor,
    direction: Tensor,
    partners: list[tuple[Tensor, Tensor]],
    known: _Known | None,
) -> tuple[Tensor, _Sampling]:
    """Hu, and from the same pass what single samples do to it.

    With u_s and u_t of two sign vectors: E Σ s_i t_i u_sᵀh_iu_t = Σ c_iᵀh_ic_i/(n - 1), and
    E Σ s_i ḡᵀh_iu_s = Σ ḡᵀh_ic_i/√(n - 1). Sample i's own part of uᵀHu is √(n - 1) s_i c_iᵀHu,
    of which c_iᵀMc_i is known.
    """
    others = [direction, mean, *(partner for _, partner in partners)]
    found = forms(rows.problem, direction, others)
    image = found.product
    centred = found.values - torch.stack([image @ other for other in others])  # [n, k], of h_i
    root = math.sqrt(len(signs) - 1)
    rest = image if known is None else known.rest(direction, image, 0.0)
    own = root * signs * (_slopes(rows, rest) - mean @ rest) + (known.own if known else 0.0)
    third = [(signs * t) @ column for (t, _), column in zip(partners, centred.T[2:], strict=True)]
    mixed = signs @ centred[:, 1] / root
    return image, _Sampling(third, mixed, own - own.mean() + centred[:, 0])


@dataclass(frozen=True)
class _Known:
    """What is known without probes.

    Args:
        deflation: M.
        own: c_iᵀMc_i, shape (n,).
        trace: tr(MΣ).
        parts: the same by parameter, shape (p,).
    """

    deflation: Deflation
    own: Tensor
    trace: float
    parts: Tensor

    @classmethod
    def of(
        cls, deflation: Deflation | None, rows: PerSampleGradients, mean: Tensor
    ) -> _Known | None:
        """By the slopes of every sample along the directions of M."""
        if deflation is None:
            return None
        sizes = _sizes(rows)
        centre = torch.stack([by_parameter(mean, d, sizes) for d in deflation.directions])  # [k, p]
        along, parts = [], torch.zeros_like(centre[0])
        for batch in rows.along_by_parameter(deflation.directions.T):
            gaps = batch - centre
            along.append(batch.sum(2))
            parts += torch.einsum("ikp,ik->p", gaps, gaps.sum(2) @ deflation.kernel)
        whole = torch.cat(along)
        whole = whole - whole.mean(0)
        own = deflation.form(whole, whole)
        return cls(deflation, own, float(own.sum()) / (len(own) - 1), parts / (len(own) - 1))

    def rest(self, direction: Tensor, image: Tensor, resolution: float) -> Tensor:
        """(H - M)u from Hu; zero where it is nothing but rounding."""
        rest = image - self.deflation.image(self.deflation.coordinates(direction))
        if float(rest.norm()) <= 8 * resolution * float(image.norm()):
            return torch.zeros_like(rest)
        return rest


def _suffice(traces: list[Tensor], accuracy: float) -> bool:
    """Whether the mean of the probes is as sure as is asked for."""
    values = torch.stack(traces)
    stderr = math.sqrt(_mean_variance(values))
    return bool(accuracy) and stderr <= accuracy * abs(float(values.mean()))


def _stack(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts) if parts else torch.zeros(0)


def _mean_variance(values: Tensor) -> float:
    """Variance of the mean of independent values."""
    return float(values.var()) / len(values) if len(values) > 1 else 0.0


def _probe_variance(probed: _Probed, moments: GradientMoments) -> float:
    """Variance of the estimate of tr(HΣ) that comes from the choice of signs."""
    from_third = moments.sampling_factor**2 * _mean_variance(probed.third)
    if is_complete(len(probed.traces), moments.count):
        return from_third
    own = _mean_variance(probed.traces)
    if own == 0 and bool(probed.lengths.any()):
        # few probes that happen to agree prove nothing, unless Hu = 0 for every one of them
        return math.nan
    return own + from_third


def _sampling_covariance(
    probed: _Probed, curvature: Tensor, factor: float
) -> tuple[float, float, float]:
    """Sampling variances of tr(HΣ) and GᵀHG and their covariance, from influences.

    The influences on the trace carry the noise of their few probes; its part is taken out. With
    no signal at all, what is left of GᵀHG is the variance of a product of two noises.
    """
    trace = probed.influences
    if factor == 0:
        return 0.0, 0.0, 0.0
    if len(curvature) < 3:  # two samples are equally far from their mean
        return math.nan, math.nan, math.nan
    noise = float(trace.var(0).mean()) / len(trace) if len(trace) > 1 else 0.0
    matrix = torch.cov(torch.stack([trace.mean(0), curvature])) * factor
    weakest = 2 * factor**2 * float(probed.squares.mean()) if len(probed.squares) else 0.0
    return (
        max(float(matrix[0, 0]) - factor * noise, weakest),
        max(float(matrix[1, 1]), weakest),
        float(matrix[0, 1]),
    )


def _skew(probed: _Probed, curvature: Tensor, moments: GradientMoments) -> Skew:
    """Skewness of (tr(HΣ), GᵀHG): from sampling, and from the choice of signs."""
    n, probes, factor = moments.count, len(probed.traces), moments.sampling_factor
    found = Skew.from_moment(torch.zeros(2, 2, 2, dtype=torch.float64), max(n, 1))
    if probes > 2 and not is_complete(probes, n):
        found += Skew.of(torch.stack([probed.traces, -factor * probed.traces]))
    if factor and n > 2:
        moment = _third_moment(probed.influences, curvature - curvature.mean())
        scale = n / ((n - 1) * (n - 2))
        found += Skew.from_moment(moment.cpu() * scale, n, moments.population)
    return found


def _bend(hessian: Hessian, curvature: Tensor, trace: float) -> Tensor:
    """2 uᵀHu with u = Cov(η, g), less its noise: GᵀHG is quadratic in the samples, by c_iᵀHc_j."""
    pull = widen(weighted_sum(hessian.problem, curvature - curvature.mean())) / (len(curvature) - 1)
    found = torch.zeros(2, 2, 2, dtype=torch.float64)
    noise = float(curvature.var()) * trace / len(curvature)
    found[1, 1, 1] = 2 * (float(pull @ widen(hessian @ pull)) - noise)
    return found


def _third_moment(rows: Tensor, other: Tensor) -> Tensor:
    """Σ_i of products of three influences, shape (2, 2, 2).

    Products of different probes' rows (K', n) alone, whose noise is independent; of fewer than
    three probes their mean serves.
    """
    rows = rows if len(rows) > 2 else rows.mean(0).expand(3, -1)
    k, first, second, third = len(rows), rows.sum(0), rows.square().sum(0), (rows**3).sum(0)
    triples = (first**3 - 3 * first * second + 2 * third) / (k * (k - 1) * (k - 2))
    pairs = (first.square() - second) / (k * (k - 1))
    aaa, aab = triples.sum(), pairs @ other
    abb, bbb = (first / k) @ other.square(), (other**3).sum()
    return torch.stack([aaa, aab, aab, abb, aab, abb, abb, bbb]).reshape(2, 2, 2).double()
