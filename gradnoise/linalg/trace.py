"""The trace of a matrix from its products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..statistics.estimate import Estimate, check_level
from ..statistics.interval import skewed, skewness, symmetric
from ..tensors.random import generator
from ..tensors.sums import without_autocast
from .leave_one_out import EstimateOf, LeaveOneOut, gaussian_tests
from .operator import MEMORY_BUDGET
from .products import PRODUCTS, Products, default_products, products_within

# one estimate per probe, the variance of their mean, and what rounding adds
Measured = tuple[Tensor, float, float]

HELD = 4.5  # vectors of length P for each product
HELD_ONE = 4.0  # vectors in all, where they are taken one by one
METHODS = ("xtrace", "hutch++", "hutchinson")
FEW = 24  # products; where the budget holds fewer, they are taken one by one
PROBES = 10  # at least: one dominant eigenvalue gives estimates distributed like χ²₁


@without_autocast
def trace(
    operator: Any,
    *,
    method: str = "xtrace",
    products: int | None = None,
    level: float = 0.95,
    seed: int = 0,
    memory_budget: int = MEMORY_BUDGET,
) -> Estimate:
    """tr A from products with random vectors, with an interval.

    - "hutchinson": the mean of P ωᵀAω/ωᵀω over random directions ω, variance less than
      2(‖A‖_F² - (tr A)²/P)/m for symmetric A (Hutchinson 1990).
    - "hutch++": tr(QᵀAQ) exactly, Q the range from a third of the products, and Hutchinson on
      the remainder (I - QQᵀ)A(I - QQᵀ) (Meyer et al. 2021, arXiv:2010.09649). With fewer than
      30 products, 10 of them probe the remainder.
    - "xtrace": the mean over i of tr(Q_iᵀAQ_i) + ν_iᵀAν_i, Q_i the range without test vector i
      and ν_i the part of that vector outside of it, scaled to its root-mean-square length
      (Epperly, Tropp and Webber 2024, arXiv:2301.07825). The most accurate of the three where the
      spectrum decays; where it is flat, the error is √2 times Hutchinson's. The standard error
      differs from that paper's, which is too small: see `LeaveOneOut.estimates`.

    All are unbiased, and none depends on the choice of coordinates, because the probes are random
    directions. With random signs, ωᵀAω takes few values where few coordinates dominate (with four
    of them and 12 products the 95 % interval of Hutchinson's estimate covers 0.82). With
    `products` ≥ P the whole matrix is computed, and the answer is exact. The work besides the
    products is O(P m²).

    Args:
        operator: anything square with `shape` (P, P) and `@` on blocks of vectors (P, k); it need
            not be symmetric.
        method: "xtrace", "hutch++" or "hutchinson".
        products: m, products with the operator, at most; at least 4 for xtrace, 10 for hutchinson
            and 12 for hutch++. None: 64, or as many as the budget holds; where these are fewer
            than 24, Hutchinson's estimate from 64 that are taken one by one.
        level: nominal coverage of the interval.
        seed: of the random vectors.
        memory_budget: bytes of the vectors held, about 4.5 of length P for each product.

    Returns:
        Estimate in the unit of A's entries; `samples` counts the probes: m/2 (xtrace), m/3 and not
        less than 10 (hutch++), m (hutchinson), or P where the answer is exact. Its standard error
        includes the rounding of products in the dtype of the operator.

    Raises:
        ArgumentError: method, products or level out of range; more products than the budget holds.
        OperatorError: the operator is empty, not square, or a product is not finite.

    Example:
        >>> float(trace(torch.diag(torch.tensor([1.0, 2.0, 3.0]))))
        6.0
    """
    check_level(level)
    if method not in METHODS:
        raise ArgumentError(f"`method` must be one of {', '.join(METHODS)}; got {method!r}")
    known, held = Products(operator), HELD
    if products is None:
        usual = default_products(known, _METHODS[method][1], held, memory_budget)
        if usual < min(FEW, known.size):
            method, products, held = "one by one", PRODUCTS, HELD_ONE / PRODUCTS
    measure, least = _METHODS[method]
    products = products_within(known, products, least, held, memory_budget)
    if products >= known.size:
        exact = float(known.dense().trace())
        return symmetric(exact, 0.0, level=level, samples=known.size)
    values, variance, rounding = measure(known, products, seed)
    variance += rounding**2
    skew = skewness(values.tolist())
    return skewed(float(values.mean()), variance, skew, level=level, samples=len(values))


def _hutchinson(known: Products, budget: int, seed: int) -> Measured:
    probes = known.fitting(gaussian_tests(budget, known.size, generator(seed)))
    images = known(probes)
    norms = images.norm(dim=0) / probes.norm(dim=0)
    return *_forms(probes, images, known.size), known.rounding(float(norms.max()))


def _one_by_one(known: Products, budget: int, seed: int) -> Measured:
    """Hutchinson's estimate, a few vectors in memory at a time."""
    source, forms, largest = generator(seed), [], 0.0
    for _ in range(budget):
        probe = known.fitting(gaussian_tests(1, known.size, source))
        image = known(probe)
        largest = max(largest, float(image.norm() / probe.norm()))
        forms.append(known.size * (probe * image).sum() / probe.square().sum())
    found = torch.stack(forms)
    return found, float(found.var()) / budget, known.rounding(largest)


def _hutch_plus_plus(known: Products, budget: int, seed: int) -> Measured:
    found = min(budget // 3, (budget - PROBES) // 2)
    tests = known.fitting(gaussian_tests(budget - found, known.size, generator(seed)))
    basis = torch.linalg.qr(known(tests[:, :found])).Q
    images = known(basis)
    rest = tests[:, found:]
    rest = rest - basis @ (basis.T @ rest)
    forms, variance = _forms(rest, known(rest), known.size - found)
    rounding = known.rounding(float(images.norm(dim=0).max()), images)
    return (basis * images).sum() + forms, variance, rounding


def _forms(probes: Tensor, images: Tensor, dimension: int) -> tuple[Tensor, float]:
    """Estimates of a trace from the directions of Gaussian probes, and the variance of their mean.

    Their lengths are independent of the directions and would only add noise.
    """
    forms = dimension * (probes * images).sum(0) / probes.square().sum(0)
    return forms, float(forms.var()) / len(forms)


def _xtrace(known: Products, budget: int, seed: int) -> Measured:
    sketch = LeaveOneOut(known, gaussian_tests(budget // 2, known.size, generator(seed)))
    rounding = known.rounding(sketch.norm, sketch.basis_images)
    if sketch.is_captured:
        return sketch.inner.trace().expand(sketch.count), 0.0, rounding
    return *sketch.estimates(_without(sketch)), rounding


def _without(sketch: LeaveOneOut) -> EstimateOf:
    """tr(Q_BᵀAQ_B) + (P - rank Q_B) νᵀAν/νᵀν with the directions B removed from Q."""
    outside, images, inner = sketch.outside, sketch.outside_images, sketch.inner
    forms, lengths = (outside * images).sum(0), outside.square().sum(0)
    cross = (sketch.basis.T @ images + sketch.basis_images.T @ outside).T

    def estimate(removed: Tensor, probe: Tensor) -> Tensor:
        back = sketch.returned(removed, probe)
        form = forms[probe] + (back * (cross[probe] + back @ inner.T)).sum(-1)
        length = lengths[probe] + back.square().sum(-1)
        found = inner.trace() - (removed * (inner @ removed)).sum((-2, -1))
        # ω is Gaussian: the direction of ν is uniform, and its length would only add noise
        value: Tensor = found + (sketch.size - sketch.count + removed.shape[-1]) * form / length
        return value

    return estimate


# name -> how, and the fewest products
_METHODS = {
    "one by one": (_one_by_one, PROBES),
    "xtrace": (_xtrace, 4),
    "hutch++": (_hutch_plus_plus, PROBES + 2),
    "hutchinson": (_hutchinson, PROBES),
}
