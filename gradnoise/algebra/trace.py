"""The trace of a matrix known by its products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..estimate import Estimate, check_level, skewed, skewness, symmetric
from ..probes import generator, random_signs
from .leave_one_out import EstimateOf, LeaveOneOut, gaussian_tests
from .products import Products, suffices

# one estimate per probe, the variance of their mean, and ‖A‖ for what rounding adds
Measured = tuple[Tensor, float, float]


def trace(
    operator: Any,
    *,
    method: str = "xtrace",
    products: int = 64,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """tr A from products with random vectors, with an interval.

    - "hutchinson": the mean of ωᵀAω over random signs ω, variance 2(‖A‖_F² - Σ a_ii²)/m for
      symmetric A (Hutchinson 1990).
    - "hutch++": tr(QᵀAQ) exactly, Q the range found by a third of the products, and Hutchinson on
      the remainder (I - QQᵀ)A(I - QQᵀ) (Meyer et al. 2021, arXiv:2010.09649).
    - "xtrace": the mean over i of tr(Q_iᵀAQ_i) + ν_iᵀAν_i, Q_i the range found without test vector
      i and ν_i that vector's part outside of it, scaled to the length it has on the average
      (Epperly, Tropp and Webber 2024, arXiv:2301.07825). The best of the three where the spectrum
      decays, √2 behind Hutchinson where it is flat. Its standard error is not the one of that
      paper, which is too small: `LeaveOneOut.estimates` says why.

    All are unbiased. With `products` ≥ P the matrix itself is read off, and the answer is exact.
    Work beyond the products is O(P m²), memory about three blocks of P × m numbers (xtrace).

    Args:
        operator: anything square with `shape` (P, P) and `@` on blocks of vectors (P, k); it need
            not be symmetric.
        method: "xtrace", "hutch++" or "hutchinson".
        products: m, products with the operator, at most.
        level: nominal coverage of the interval.
        seed: of the random vectors.

    Returns:
        Estimate; `samples` counts the probes: m/2, m/3, m, or P where the answer is exact. Its
        standard error contains the rounding of products in the operator's dtype.

    Raises:
        ArgumentError: method, products or level out of range.
        OperatorError: the operator is empty, not square, or a product is not finite.

    Example:
        >>> float(trace(torch.diag(torch.tensor([1.0, 2.0, 3.0]))))
        6.0
    """
    check_level(level)
    if method not in _METHODS:
        raise ArgumentError(f"`method` must be one of {', '.join(_METHODS)}; got {method!r}")
    known, (measure, least) = Products(operator), _METHODS[method]
    if suffices(products, known.size, least):
        exact = float(known.dense().trace())
        return symmetric(exact, 0.0, level=level, samples=known.size)
    values, variance, norm = measure(known, products, seed)
    variance += known.rounding(norm) ** 2
    skew = skewness(values.tolist())
    return skewed(float(values.mean()), variance, skew, level=level, samples=len(values))


def _hutchinson(known: Products, budget: int, seed: int) -> Measured:
    signs = random_signs(budget, known.size, seed).T.to(known.device, known.dtype)
    images = known(signs)
    forms = (signs * images).sum(0)
    return forms, _spread(forms), float(images.norm(dim=0).max()) / known.size**0.5


def _hutch_plus_plus(known: Products, budget: int, seed: int) -> Measured:
    third = budget // 3
    signs = random_signs(2 * third, known.size, seed).T.to(known.device, known.dtype)
    basis = torch.linalg.qr(known(signs[:, :third])).Q
    images = known(basis)
    rest = signs[:, third:]
    rest = rest - basis @ (basis.T @ rest)
    forms = (basis * images).sum() + (rest * known(rest)).sum(0)
    return forms, _spread(forms), float(images.norm(dim=0).max())


def _spread(forms: Tensor) -> float:
    return float(forms.var()) / len(forms)


def _xtrace(known: Products, budget: int, seed: int) -> Measured:
    sketch = LeaveOneOut(known, gaussian_tests(budget // 2, known.size, generator(seed)))
    if sketch.is_captured:
        return sketch.inner.trace().expand(sketch.count), 0.0, sketch.norm
    return *sketch.estimates(_without(sketch)), sketch.norm


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
        # ω is Gaussian: ν is uniform in direction and its length only adds noise
        value: Tensor = found + (sketch.size - sketch.count + removed.shape[-1]) * form / length
        return value

    return estimate


# name -> how, and the fewest products that show a spread
_METHODS = {
    "xtrace": (_xtrace, 4),
    "hutch++": (_hutch_plus_plus, 6),
    "hutchinson": (_hutchinson, 2),
}
