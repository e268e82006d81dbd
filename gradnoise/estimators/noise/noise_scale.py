"""B_noise = tr(HΣ)/GᵀHG and its parts, unbiased for a finite or infinite population.

H, Σ and G come from the same samples, so a product of them is biased even where each is not. With
c_i = g_i - ḡ, h_i = H_i - H and φ = 1/n - 1/N, sampling n of N without replacement gives

    E[tr(HΣ)]  = tr(HΣ) + φ K3
    E[ḡᵀHḡ]    = GᵀHG + φ tr(HΣ) + 2φ C + φ(1/n - 2/N) K3
    C = Σ ḡᵀh_ic_i/(n - 1) with E[C] = C + φ K3,   K3 = n Σ c_iᵀh_ic_i/((n - 1)(n - 2)) unbiased,

the moment identities of Tukey's k-statistics, linear in each factor (docs/theory/noise_scale.md).
The sums over samples are estimated with random signs s ∈ {±1}ⁿ: u = Σ s_ic_i/√(n - 1) is one
weighted backward pass, and E[uᵀHu] = tr(HΣ). The part M of H that is known from the Krylov space of
λ (`Deflation`) is subtracted from every uᵀHu and added exactly, as tr(MΣ) = Σ c_iᵀMc_i/(n - 1): a
few slopes of every sample, no product. Of many samples M comes from few of them (`LowRank`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ArgumentError, check_whole
from ...linalg.deflation import Deflation, krylov_deflation
from ...linalg.operator import MEMORY_BUDGET
from ...measurement.opened import Opened
from ...moments.measure import mean_with_shares
from ...moments.moments import GradientMoments
from ...operators.gradients import PerSampleGradients
from ...operators.hessian import Hessian
from ...per_sample.contract.engine import Engine
from ...problem.directional import per_sample_curvatures
from ...problem.gathering import by_layers_or_whole
from ...problem.losses.loss_fn import LossFn
from ...problem.options import AUTO, Options
from ...problem.samples import MICRO_BATCH
from ...problem.shares import ratio_influence
from ...tensors.random import independent_signs, random_signs
from ...tensors.trees import flatten, widen
from ..curvature.few_samples import chances, is_worthwhile, near_spectrum
from .block_probes import block_noise_scale
from .drawn_probes import drawn_noise_scale
from .errors import are_all, joint_skew, probe_variance, quadratic_part, sampling_covariance
from .sign_probes import SAMPLING_PROBES, Known, Probed, mean_variance, probe
from .sums import NoiseScale, Parts, Sums

PROBES = 32
ACCURACY = 0.15  # half the interval of B_noise, relative, that is enough
PER_ERROR = 3  # half an interval in standard errors, where there are few probes
SPREAD_OF_FEW = 0.3  # of values from few samples each, relative
STEPS = 20  # products of the Krylov space that is taken out of the probes
LEADING = 3  # Ritz vectors of few samples that are taken out at least, the largest in size
LARGE = 0.5  # of the largest: others of this size are taken out as well


def noise_scale(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    metric: str = "auto",
    population: str | int = "dataset",
    engine: str = "auto",
    probes: int = PROBES,
    accuracy: float = ACCURACY,
    max_samples: int | None = 4096,
    level: float = 0.95,
    seed: int = 0,
    micro_batch: int = MICRO_BATCH,
    unit: str = "auto",
    group_size: int | None = None,
    process_group: Any = None,
    gather: str = AUTO,
    memory_budget: int = MEMORY_BUDGET,
) -> NoiseScale:
    """B_simple and B_noise with their intervals.

    B_noise = tr(HΣ)/GᵀHG (McCandlish et al. 2018, arXiv:1812.06162, eq. 2.8); both unbiased parts
    are kept. A ratio whose denominator is not resolved has a lower bound and no value.

    Args:
        model, loss_fn, data, optimizer, metric, population, engine, max_samples, level, seed,
            micro_batch, unit, group_size, process_group, gather: as for `gradient_moments`.
        probes: random sign vectors for tr(HΣ), at most, where there are fewer than 512 samples.
        accuracy: half the interval of tr(HΣ), relative, at which fewer are taken, 8 at least.
        memory_budget: bytes of graphs that are kept, and of the basis.

    Returns:
        NoiseScale; B_simple and B_noise are in samples.

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
    options = Options(
        optimizer=optimizer, metric=metric, engine=engine, population=population,
        max_samples=max_samples, level=level, seed=seed, micro_batch=micro_batch,
        unit=unit, group_size=group_size, process_group=process_group, gather=gather,
    )  # fmt: skip

    def found(own: Options) -> NoiseScale:
        opened = Opened.open(model, loss_fn, data, own)
        return find_noise_scale(
            opened, probes=probes, accuracy=accuracy, memory_budget=memory_budget
        )

    return by_layers_or_whole(found, options)


def find_noise_scale(
    opened: Opened,
    *,
    probes: int = PROBES,
    accuracy: float = ACCURACY,
    memory_budget: int = MEMORY_BUDGET,
) -> NoiseScale:
    """The noise scales of a model that is open; see `noise_scale`."""
    check_accuracy(accuracy)
    seed = opened.options.seed
    with opened.problem.guard():
        hessian, moments = opened.hessian(memory_budget=memory_budget), opened.moments()
        signs = sign_probes(moments, probes, seed)
        if by_few(hessian, moments, accuracy):
            near = near_spectrum(hessian, chances(moments), seed)
            image = widen(hessian @ flatten([*moments.mean.values()]))
            found = noise_scale_by_few(
                hessian, opened.engine, moments, near, image, accuracy=accuracy, seed=seed
            )
        else:
            deflation = krylov_deflation(
                hessian, steps=STEPS, seed=seed, memory_budget=memory_budget
            )
            found = measure_noise_scale(
                hessian,
                opened.engine,
                moments,
                signs,
                deflation=deflation,
                accuracy=accuracy / PER_ERROR,
            )
    return found.in_samples(opened.unit.size)


def check_accuracy(accuracy: float) -> None:
    """Raise ArgumentError unless `accuracy` is a relative error."""
    if not accuracy >= 0:
        raise ArgumentError(f"`accuracy` is a relative error such as 0.15, or 0; got {accuracy}")


def by_few(hessian: Hessian, moments: GradientMoments, accuracy: float) -> bool:
    """Whether values from few samples each are the cheaper way to an accuracy.

    They spread by about a third of tr(HΣ); the other way costs as much as one for each sample.
    """
    return is_worthwhile(hessian) and few_suffice(moments.count, accuracy)


def few_suffice(count: int, accuracy: float) -> bool:
    """Whether fewer values than there are samples give an accuracy."""
    return (2 * SPREAD_OF_FEW / max(accuracy, 1e-9)) ** 2 <= count


def noise_scale_by_few(
    hessian: Hessian,
    engine: Engine,
    moments: GradientMoments,
    near: Deflation,
    image: Tensor,
    *,
    accuracy: float,
    odds: Tensor | None = None,
    seed: int,
    tick: Any = None,
) -> NoiseScale:
    """The noise scales from few samples at a time.

    Args:
        hessian, engine, moments: of all samples.
        near: of a Hessian that is similar.
        image: Hḡ.
        accuracy: half the interval of tr(HΣ), relative, that is enough where the samples are the
            population.
        odds: of every sample there; by default from the gradients alone.
        seed: of what is drawn.
        tick: called with 1 after every value.
    """
    part = near.leading(LEADING, LARGE)
    if moments.spread_factor:
        return block_noise_scale(hessian, engine, moments, part, image, seed=seed, tick=tick)
    return drawn_noise_scale(
        hessian, engine, moments, part, image, accuracy=accuracy, odds=odds, seed=seed, tick=tick
    )


def sign_probes(moments: GradientMoments, probes: int, seed: int) -> Tensor:
    """Random signs, shape (probes, n).

    Independent where only a part of the population was measured: the sampling terms are
    estimated from products of different probes, which a list of all sign vectors would bias.
    """
    check_whole("probes", probes, 2)
    draw = independent_signs if moments.spread_factor else random_signs
    return draw(probes, moments.count, seed)


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
    sampled = min(sampling_probes, len(signs)) if moments.spread_factor else 0
    rows = PerSampleGradients.of(hessian.problem, engine=engine)
    with hessian.problem.guard():
        along, influence, image = _curvature_of_mean(hessian, rows, mean, moments)
        known = None if deflation is None else Known.of(deflation, rows, mean)
        enough = 0.0 if are_all(len(signs), moments) else accuracy
        probed = probe(hessian, rows, mean, signs, sampled, known, enough, tick)
        if moments.shares is not None and sampled:
            probed = _with_shares(probed, hessian, rows, moments.shares)

    third = float(probed.third.mean()) if len(probed.third) else 0.0
    trace = float(probed.traces.mean()) - factor * third
    if moments.is_noiseless:  # rounding, of either sign
        trace = 0.0
    mixed = (float(probed.mixed.mean()) if len(probed.mixed) else 0.0) - factor * third
    curvature = along - factor * (trace + 2 * mixed + (1 / n - 2 / moments.population) * third)

    of_probes = probe_variance(probed, moments)
    skew = joint_skew(probed, influence, moments)
    if factor:
        with hessian.problem.guard():
            skew = skew.with_quadratic(factor**2 * quadratic_part(hessian, influence, trace))
    return Sums(
        trace=trace,
        curvature=curvature,
        of_probes=(of_probes, factor**2 * (of_probes + 4 * mean_variance(probed.mixed))),
        of_samples=sampling_covariance(probed, influence, moments),
        freedom=(len(probed.traces) - 1, n - 1),
        skew=skew,
        parts=Parts(
            hessian.space.by_parameter(mean, image) - factor * probed.parts.mean(0),
            probed.parts,
            are_all(len(probed.parts), moments),
        ),
    ).scales(moments, hessian.product_error_along(mean))


def _with_shares(
    probed: Probed, hessian: Hessian, rows: PerSampleGradients, shares: Tensor
) -> Probed:
    """With what a sample does to tr(HΣ) through the mean weight and G."""
    image = widen(hessian @ mean_with_shares(rows.problem, shares))
    trace = float(probed.traces.mean()) * (1 - 1 / len(shares))
    more = ratio_influence(trace, rows.along(image[:, None])[:, 0], shares)
    return replace(probed, influences=probed.influences + more.to(probed.influences))


def _curvature_of_mean(
    hessian: Hessian, rows: PerSampleGradients, mean: Tensor, moments: GradientMoments
) -> tuple[float, Tensor, Tensor]:
    """ḡᵀHḡ, the influence of each sample on it, and Hḡ."""
    if moments.sampling_factor == 0:
        image = widen(hessian @ mean)
        return hessian.space.inner(mean, image), mean.new_zeros(moments.count), image
    along = per_sample_curvatures(hessian.problem, mean, [mean])
    value = hessian.space.inner(mean, along.product)
    own = along.values[:, 0] - value
    slopes = rows.along(along.product[:, None])[:, 0]  # g_iᵀHḡ
    return value, moments.steadiness * (own + 2 * (slopes - value)), along.product
