"""One set of test vectors used twice: for the range of a matrix, and to probe the remainder.

Epperly, Tropp and Webber (2024, arXiv:2301.07825) find the range from all test vectors but one and
probe the remainder with that one, each in turn. The estimates are exchangeable, and every product
is used for both. One QR factorisation is enough: leaving vectors out removes directions from
its basis.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .products import Products

PAIRS_AMONG = 32  # test vectors whose pairs estimate the covariance
LEAST_SHARE = 1 / 4  # the standard error is at least this fraction of the jackknife's
PARALLEL = 1e-8  # two removed directions closer than this span no plane

# removed directions (..., k, d) and the position of the probe (...) -> estimates (...)
EstimateOf = Callable[[Tensor, Tensor], Tensor]


class LeaveOneOut:
    """AΩ = QR and Z = AQ, from which estimates without some of the test vectors follow.

    Without vector i the products span range(Q) minus the direction Qs_i, where sᵢ ∝ R⁻ᵀeᵢ is
    orthogonal to the coordinates of all the others. Without i and j the plane of s_i and s_j is
    removed. An estimate with removed directions B (k, d) and probe ω_j uses

        ν = (I - Q(I - BBᵀ)Qᵀ)ω_j = μ_j + Qp,   p = BBᵀQᵀω_j,   μ_j = ω_j - QQᵀω_j

    and Aν = Aμ_j + Zp: no products besides AΩ and AQ.

    Args:
        products: the operator.
        tests: Ω, independent random vectors as columns, shape (P, k) with k < P.
    """

    def __init__(self, products: Products, tests: Tensor) -> None:
        self.tests = products.fitting(tests)
        self.images = products(self.tests)
        self.basis, corner = torch.linalg.qr(self.images)
        self.basis_images = products(self.basis)
        self.inner = self.basis.T @ self.basis_images  # QᵀAQ
        self.gram = self.basis_images.T @ self.basis_images  # (AQ)ᵀAQ
        self.coordinates = self.basis.T @ self.tests
        self.outside = self.tests - self.basis @ self.coordinates  # μ, [P, k]
        self.outside_images = self.images - self.basis_images @ self.coordinates
        self.count, self.size = self.coordinates.shape[0], products.size
        self.norm = float(self.basis_images.norm(dim=0).max())  # ‖A‖, from below
        values = torch.linalg.svdvals(corner)
        floor = torch.finfo(corner.dtype).eps * self.count * values[0]
        self.is_captured = bool(values[-1] <= floor)  # rank below k: Q holds the whole range
        if not self.is_captured:
            eye = torch.eye(self.count, dtype=corner.dtype, device=corner.device)
            dropped = torch.linalg.solve_triangular(corner.T, eye, upper=False)
            self.dropped = (dropped / dropped.norm(dim=0)).T  # row i is s_i

    def returned(self, removed: Tensor, probe: Tensor) -> Tensor:
        """p, the component of the probe along the removed directions, shape (..., k)."""
        coordinates = self.coordinates.T[probe].unsqueeze(-1)
        back: Tensor = (removed @ (removed.mT @ coordinates)).squeeze(-1)
        return back

    def singles(self, estimate: EstimateOf) -> Tensor:
        """The k estimates; the basis of each excludes its probe."""
        probes = torch.arange(self.count, device=self.dropped.device)
        return estimate(self.dropped.unsqueeze(-1), probes)

    def pairs(self, among: int) -> tuple[Tensor, Tensor, Tensor]:
        """i, j and an orthonormal basis of the plane of s_i and s_j, shape (pairs, k, 2)."""
        among = min(among, self.count)
        first, second = torch.triu_indices(among, among, 1, device=self.dropped.device)
        s, rest = self.dropped[first], self.dropped[second]
        rest = rest - s * (s * rest).sum(-1, keepdim=True)
        sound = rest.norm(dim=-1) > PARALLEL
        plane = torch.linalg.qr(torch.stack([s, rest], dim=-1)[sound]).Q
        return first[sound], second[sound], plane

    def estimates(self, estimate: EstimateOf) -> tuple[Tensor, float]:
        """The k estimates, shape (k,), and the variance of their mean.

        The estimates t_i share test vectors, so their errors are correlated, and s²/k alone is too
        small (measured: a standard error 0.6 to 0.9 of the true one, coverage down to 0.75 where
        0.95 is nominal). Let u_ij be t_i with vector j left out as well. Both have the true value
        as mean over vector i, for any values of the others. So t_i is the true value plus a term
        a_i of vector i plus a term b_ij whose mean over either vector is zero;
        Cov(t_i, t_j) = E[b_ij b_ji]; and u_ij has another a_i and no b_ij. Hence

            E[(t_i - u_ij)(t_j - u_ji)] = Cov(t_i, t_j),   Var(mean) = E[s²]/k + Cov(t_i, t_j)

        An unbiased estimate of Var(mean) follows; a negative covariance estimate counts as zero.

        If there are as many vectors as large eigenvalues, and all t_i miss the same direction, the
        differences between the t_i are too small to show the error. The u_ij miss two directions
        and show it. Hence the standard error is at least a quarter of the jackknife's (one vector
        deleted at a time), which is biased upwards: 1.1 to 4.6 times the true one.
        """
        values = self.singles(estimate)
        first, second, plane = self.pairs(PAIRS_AMONG)
        gap, mirrored = (values[i] - estimate(plane, i) for i in (first, second))
        shared = float((gap * mirrored).mean()) if len(gap) else 0.0
        variance = float(values.var()) / self.count + max(shared, 0.0)
        # influence of vector j on the others, ⟨t_i - u_ij⟩ over i
        among = values[:PAIRS_AMONG]
        sums, counts = torch.zeros_like(among), torch.zeros_like(among)
        for of, gaps in ((second, gap), (first, mirrored)):
            sums.index_add_(0, of, gaps)
            counts.index_add_(0, of, torch.ones_like(gaps))
        influence = among / (self.count - 1) + sums / counts.clamp(min=1)
        jackknife = (self.count - 1) * float(influence.var(correction=0))
        return values, max(variance, LEAST_SHARE**2 * jackknife)


def gaussian_tests(count: int, size: int, source: torch.Generator) -> Tensor:
    """Test vectors whose direction, also within any subspace, is uniform; shape (P, k)."""
    return torch.randn(size, count, generator=source, dtype=torch.float64)
