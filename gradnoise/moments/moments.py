"""Moments of the per-sample gradients, and the estimates that they give."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..statistics.estimate import Estimate
from ..statistics.interval import flag_zero, symmetric, with_skew
from ..statistics.ratio import ratio
from ..statistics.skew import Skew
from ..statistics.transform import in_samples
from ..tensors.trees import TensorDict, sq_norms_of
from .layer import Layer, by_module
from .per_parameter import PerParameter

ROUNDING = 8.0  # relative error of a gradient, in units of its dtype's resolution
ROUNDING_OF_HALF = 2.0  # the same in half precision, whose sums are added in float32
COARSE = 1e-4  # results of a coarser resolution are not called exact
SMALLEST, LARGEST = 1e-45, 1e45  # of gradients: their sixth powers fit into float64


@dataclass(frozen=True)
class Whole:
    """What ranks that hold parts of a mean gradient know of all of it.

    Args:
        sizes: entries of every parameter.
        sq_norms: ‖ḡ‖² of every parameter.
    """

    sizes: dict[str, int]
    sq_norms: dict[str, float]

    def restrict(self, names: Iterable[str]) -> Whole:
        """Of some parameters."""
        kept = list(names)
        return Whole({n: self.sizes[n] for n in kept}, {n: self.sq_norms[n] for n in kept})


@dataclass(frozen=True, eq=False, repr=False)
class GradientMoments:
    """Mean and spread of n per-sample gradients out of a population of N.

    |G|² = |ḡ|² - (1/n - 1/N) trΣ and trΣ = Σ_i ‖g_i - ḡ‖²/(n - 1) are in loss²/parameter²; B_simple
    = trΣ/|G|² is in samples; ḡ is in loss/parameter.

    Args:
        mean: ḡ per parameter, in float64 where the device has it.
        centred_sq: Σ_i ‖g_i - ḡ‖² per parameter.
        losses: ℓ_i, shape (n,).
        sq_norms: ‖g_i‖², shape (n,).
        population: N, inf for a distribution.
        resolution: relative rounding error of the gradients (the dtype's eps).
        level: coverage of the intervals.
        slopes: g_iᵀḡ, shape (n,); None when the intervals were not measured.
        trace_cov_sq: tr(Σ²), for the interval of a weak signal; nan when not measured.
        influence_products: u_aᵀu_b, shape (2, 2), of u_a = Cov(e_a, g) with e the influences on
            trΣ and |G|², for the skewness of both; None when not measured.
        coordinate_sq: Σ_i (g_i - ḡ)² per coordinate; None when not requested.
        second_slopes: (g_i - ḡ)ᵀΣ̂ḡ, shape (n,), for the interval of GᵀΣG; None when not measured.
        per_parameter: the same numbers by parameter; None where only sums over all are known.
        gap_sq_norms: ‖g_i - ḡ‖², shape (n,), where measured from centred gradients; None where they
            are computed as ‖g_i‖² - 2g_iᵀḡ + ‖ḡ‖².
        is_partition: whether units are random groups of a finite population: the spread of groups
            then has the error of K independent ones, also where all samples are in them.
        loss_population: N for the mean loss, where it differs: losses may be coupled more,
            or less, than their gradients. None: the same N.
        group_size: b, where units are groups and results are wanted in samples. trΣ, variances and
            B_simple are then b times those of groups; everything else here counts groups.
        shares: a_i = w_i/w̄, shape (n,), where samples weigh differently.
        whole: sizes and ‖ḡ‖² of the parameters, where `mean` holds this rank's parts of them.
        ratio_influence: what each sample does to trΣ through w̄ and G, by parameter, each (n,); see
            `shares.ratio_influence`. None where samples weigh the same, or were not measured.

    Where units are groups (`unit`), i runs over groups: n and N are numbers of groups.

    Source: as for `gradient_moments`.
    """

    mean: TensorDict
    centred_sq: dict[str, float]
    losses: Tensor
    sq_norms: Tensor
    population: float
    resolution: float
    level: float = 0.95
    slopes: Tensor | None = None
    trace_cov_sq: float = math.nan
    influence_products: Tensor | None = None
    coordinate_sq: TensorDict | None = None
    second_slopes: Tensor | None = None
    per_parameter: PerParameter | None = None
    gap_sq_norms: Tensor | None = None
    is_partition: bool = False
    loss_population: float | None = None
    group_size: int = 1
    shares: Tensor | None = None
    ratio_influence: TensorDict | None = None
    whole: Whole | None = None

    def __repr__(self) -> str:
        return f"GradientMoments({self.count} of {self.population:g}, {len(self.mean)} parameters)"

    def __str__(self) -> str:
        units = "samples" if self.group_size == 1 else f"groups of {self.group_size}"
        whole = "a distribution" if math.isinf(self.population) else f"{self.population:g}"
        return (
            f"{self.count} {units} out of {whole}\n"
            f"B_simple {self.simple_noise_scale} (samples)\n"
            f"|G|² {self.grad_sq_norm}, trΣ {self.trace_cov}"
        )

    def merge(self, other: GradientMoments) -> GradientMoments:
        """Moments of both sets of samples together (Chan, Golub and LeVeque 1979).

        The intervals of the merged moments need `slopes` along the new mean, so they are dropped.

        Raises:
            ArgumentError: the two are about different parameters or populations.
        """
        same = self.population == other.population and self.group_size == other.group_size
        if self.mean.keys() != other.mean.keys() or not same:
            raise ArgumentError(
                "only moments of the same parameters and the same population can be merged; got "
                f"{len(self.mean)} and {len(other.mean)} parameters, populations of "
                f"{self.population:g} and {other.population:g}, groups of {self.group_size} and "
                f"{other.group_size}"
            )
        if self.whole or other.whole:
            raise ArgumentError(
                "moments of which ranks hold parts cannot be merged: measure with gather='model'"
            )
        count = self.count + other.count
        share, weight = other.count / count, self.count * other.count / count
        gaps = {name: other.mean[name] - mean for name, mean in self.mean.items()}
        mine, others, squares = self.per_parameter, other.per_parameter, None
        if self.coordinate_sq is not None and other.coordinate_sq is not None:
            squares = {
                name: spread + other.coordinate_sq[name] + weight * gaps[name] ** 2
                for name, spread in self.coordinate_sq.items()
            }
        return GradientMoments(
            mean={name: mean + share * gaps[name] for name, mean in self.mean.items()},
            centred_sq={
                name: spread + other.centred_sq[name] + weight * float(gaps[name].square().sum())
                for name, spread in self.centred_sq.items()
            },
            losses=torch.cat([self.losses, other.losses]),
            sq_norms=torch.cat([self.sq_norms, other.sq_norms]),
            population=self.population,
            resolution=max(self.resolution, other.resolution),
            level=self.level,
            coordinate_sq=squares,
            per_parameter=mine.merge(others) if mine and others else None,
            is_partition=self.is_partition,
            loss_population=self.loss_population,
            group_size=self.group_size,
        )

    def restrict(self, names: Iterable[str]) -> GradientMoments:
        """The moments of some parameters, as if there were no others.

        The intervals are of the same kind as those of the whole, from the same passes.

        Raises:
            ArgumentError: no parameters, unknown ones, or moments without `per_parameter`.
        """
        names = list(dict.fromkeys(names))
        if not names or not self.mean.keys() >= set(names):
            raise ArgumentError(
                f"`names` must be one or more of the parameters {', '.join(self.mean)}; got {names}"
            )
        if len(names) == len(self.mean):
            return self
        if self.per_parameter is None:
            raise ArgumentError(
                "these moments are sums over all parameters and cannot be restricted; take them "
                "from a model or from per-sample gradients by name"
            )
        return self._restricted(names, self.per_parameter.restrict(names))

    def _restricted(self, names: list[str], per_parameter: PerParameter) -> GradientMoments:
        squares = self.coordinate_sq
        part = replace(
            self,
            mean={name: self.mean[name] for name in names},
            centred_sq={name: self.centred_sq[name] for name in names},
            sq_norms=per_parameter.norms_of(names),
            slopes=per_parameter.slope,
            trace_cov_sq=math.nan,
            influence_products=None,
            coordinate_sq=None if squares is None else {name: squares[name] for name in names},
            second_slopes=None,
            per_parameter=per_parameter,
            gap_sq_norms=per_parameter.gaps,
            ratio_influence=self.ratio_influence
            and {name: self.ratio_influence[name] for name in names},
            whole=self.whole and self.whole.restrict(names),
        )
        if part.slopes is None:
            return part
        influences = part.deviations()[1:]
        return replace(
            part,
            trace_cov_sq=per_parameter.trace_cov_sq(part._trace, part._size),
            influence_products=per_parameter.influence_products(influences, part._mean_sq),
        )

    @property
    def count(self) -> int:
        """n, the number of samples."""
        return len(self.losses)

    @property
    def sampling_factor(self) -> float:
        """1/n - 1/N: the covariance of the mean gradient is this times Σ; 0 when n = N."""
        return 1 / self.count - 1 / self.population

    @property
    def spread_factor(self) -> float:
        """The variance of a mean of squares of deviations over that of one of them."""
        return 1 / self.count if self.is_partition else self.sampling_factor

    @property
    def spread_population(self) -> float:
        """N for such means; of random groups there are as many as one likes."""
        return math.inf if self.is_partition else self.population

    @property
    def steadiness(self) -> float:
        """√((1/n - 1/N)/spread_factor): how much less ḡ varies than a mean of independent units."""
        whole = self.spread_factor
        return math.sqrt(max(self.sampling_factor, 0.0) / whole) if self.is_partition else 1.0

    @property
    def loss(self) -> Estimate:
        """Mean loss L."""
        own = replace(self, population=self.loss_population or self.population)
        value, variance = float(self.losses.mean()), own.sampling_factor * float(self.losses.var())
        found = self._estimate(value, variance, own._skew(own.steadiness * self.losses[None]))
        return in_samples(found, self.group_size, keep=True)

    @property
    def trace_cov(self) -> Estimate:
        """trΣ = Σ_i ‖g_i - ḡ‖²/(n - 1), unbiased."""
        found = self._estimate(self._trace, self._covariances()[0], self._skewness())
        return in_samples(found, self.group_size)

    @property
    def grad_sq_norm(self) -> Estimate:
        """|G|² = ‖ḡ‖² - (1/n - 1/N) trΣ, unbiased; its value can be negative.

        McCandlish et al. 2018 (arXiv:1812.06162) for N = ∞ and single samples as small batches.
        """
        value, variance = self._signal, self._covariances()[1] + self.rounding**2
        estimate = self._estimate(value, variance, self._skewness(), part=1)
        return flag_zero(in_samples(estimate, self.group_size, keep=True), positive=True)

    @property
    def simple_noise_scale(self) -> Estimate:
        """B_simple = trΣ/|G|², in samples, with Fieller's interval."""
        trace_variance, signal_variance, covariance = self._covariances()
        found = ratio(
            self._trace,
            self._signal,
            variances=(trace_variance, signal_variance + self.rounding**2),
            covariance=covariance,
            level=self.level,
            samples=self.count,
            freedom=self.count - 1,
            positive_denominator=True,
            skew=self._skewness(),
        )
        return in_samples(found, self.group_size)

    @property
    def variance(self) -> TensorDict | None:
        """Variance of each coordinate of the gradient (the diagonal of Σ), if asked for."""
        if self.coordinate_sq is None:
            return None
        factor = self.group_size / (self.count - 1)
        return {name: factor * spread for name, spread in self.coordinate_sq.items()}

    @property
    def layers(self) -> dict[str, Layer]:
        """The estimates of each module; a shared parameter belongs to the first that holds it."""
        return self.by_groups(by_module(self.mean))

    def by_groups(self, groups: Mapping[str, Iterable[str]]) -> dict[str, Layer]:
        """The estimates of groups of parameters, given by name; empty groups are left out."""
        members = {group: list(names) for group, names in groups.items()}
        return {name: self._layer(name, own) for name, own in members.items() if own}

    def _layer(self, name: str, members: list[str]) -> Layer:
        part, whole = self.restrict(members), float(self.trace_cov)
        return Layer(
            name=name,
            size=part._size,
            grad_sq_norm=part.grad_sq_norm,
            trace_cov=part.trace_cov,
            simple_noise_scale=part.simple_noise_scale,
            noise_share=float(part.trace_cov) / whole if whole else 0.0,
            parameters=tuple(part.mean),
        )

    def deviations(self) -> Tensor:
        """Influence of every sample on (L, trΣ, |G|²), shape (3, n), each of mean zero."""
        if self.slopes is None:
            raise ArgumentError("these moments hold no slopes; measure with `intervals=True`")
        squares, steady = self.distances, self.steadiness
        spread = squares - squares.mean()
        if self.ratio_influence is not None:
            spread = spread + sum(own.to(spread) for own in self.ratio_influence.values())
        signal = 2 * steady * (self.slopes - self.slopes.mean()) - self.sampling_factor * spread
        return torch.stack([steady * (self.losses - self.losses.mean()), spread, signal])

    def _covariances(self) -> tuple[float, float, float]:
        """Sampling variances of trΣ and |G|², and their covariance."""
        if self.spread_factor == 0:
            # half precision is no exact measurement, of however many samples
            coarse = self.resolution if self.resolution > COARSE else 0.0
            return (coarse * self._trace) ** 2, (coarse * self._mean_sq) ** 2, 0.0
        # two samples are equally far from their mean; equal samples give no estimate of a spread
        if self.slopes is None or self.count < 3 or self._trace == 0:
            return math.nan, math.nan, math.nan
        matrix = torch.cov(self.deviations()[1:]) * self.spread_factor
        # without signal, or with equal norms: the variance of a product of two noises
        weakest = (2 * f**2 * self.trace_cov_sq for f in (self.spread_factor, self.sampling_factor))
        trace, signal = map(max, matrix.diagonal().tolist(), weakest)
        return trace, signal, float(matrix[0, 1])

    def _skewness(self) -> Skew | None:
        """The skewness of (trΣ, |G|²), quadratic in the samples: -c_iᵀc_j and c_iᵀc_j."""
        skew = None if self.slopes is None else self._skew(self.deviations()[1:])
        if skew is None or self.influence_products is None:
            return skew
        signs = torch.tensor([-2.0, 2.0], dtype=torch.float64)
        products = self._unbiased(self.influence_products).cpu().double()
        return skew.with_quadratic(
            self.sampling_factor**2 * torch.einsum("a,bc->abc", signs, products)
        )

    def _unbiased(self, products: Tensor) -> Tensor:
        """u_aᵀu_b minus the bias from sampling noise, which dominates with many parameters."""
        if self.slopes is None:
            return products
        influences, n = self.deviations()[1:], self.count
        squares = (influences * self.distances) @ influences.T / n
        return products - (squares - products.to(squares)) / (n - 1)

    def _skew(self, influences: Tensor) -> Skew | None:
        return Skew.of(influences, self.spread_population) if self.spread_factor else None

    @property
    def distances(self) -> Tensor:
        """‖g_i - ḡ‖², shape (n,), from slopes where not measured from centred gradients."""
        if self.gap_sq_norms is not None:
            return self.gap_sq_norms
        if self.slopes is None:
            raise ArgumentError("these moments hold no slopes; measure with `intervals=True`")
        return (self.sq_norms - 2 * self.slopes + self._mean_sq).clamp(min=0)  # rounding

    @property
    def is_noiseless(self) -> bool:
        """Whether all of N was measured, and all gradients are equal up to rounding."""
        rounding = (ROUNDING * self.resolution) ** 2 * self._mean_sq
        exact = self.sampling_factor == 0 and self.resolution <= COARSE
        return exact and self._trace <= rounding

    @property
    def rounding(self) -> float:
        """The |G|² that rounding alone gives, where |G|² is not clearly larger; else 0."""
        # a mean gradient of the size of its rounding error is no signal
        factor = ROUNDING if self.resolution <= COARSE else ROUNDING_OF_HALF
        rounding = (factor * self.resolution) ** 2 * (self._trace + self._mean_sq)
        return rounding if self._signal <= 4 * rounding else 0.0

    @property
    def _trace(self) -> float:
        return sum(self.centred_sq.values()) / (self.count - 1)

    @property
    def _mean_sq(self) -> float:
        if self.whole is not None:
            return sum(self.whole.sq_norms.values())
        return sum(sq_norms_of(self.mean.values()))

    @property
    def _size(self) -> int:
        if self.whole is not None:
            return sum(self.whole.sizes.values())
        return sum(mean.numel() for mean in self.mean.values())

    @property
    def _signal(self) -> float:
        return self._mean_sq - self.sampling_factor * self._trace

    def _estimate(
        self, value: float, variance: float, skew: Skew | None = None, part: int = 0
    ) -> Estimate:
        level, n = self.level, self.count
        if skew is None:
            return symmetric(value, variance, level=level, samples=n, freedom=n - 1)
        return with_skew(value, variance, skew, level=level, samples=n, freedom=n - 1, part=part)
