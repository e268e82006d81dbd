"""The density of all eigenvalues of a symmetric operator, from its products alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ...errors import OperatorError, check_whole
from ...show.axes import plotted
from ...statistics.estimate import check_level, short
from ...tensors.random import generator
from ...tensors.sums import without_autocast
from ..convert import as_operator
from ..krylov import breakdown
from ..operator import Operator
from .measure import SpectralMeasure
from .picture import spectral_density
from .quadrature import gauss_rule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST_STEPS = 4  # moments up to 7 are exact then: tr A² and the third moment of its interval


@dataclass(frozen=True, eq=False, repr=False)
class SpectralDensity(SpectralMeasure):
    """The density of the eigenvalues of a symmetric matrix A, from a few random vectors.

    Every probe v, uniform on the sphere, has the measure Σ_i (vᵀu_i)² δ(λ_i), whose mean is the
    spectral measure (1/P) Σ_i δ(λ_i); k steps of Lanczos give its Gauss rule (Ubaru, Chen, Saad
    2017; Ghorbani, Krishnan, Xiao 2019, arXiv:1901.10159). Intervals include the sampling error of
    the probes and the quadrature error of k steps (derived in docs/theory/spectrum.md). They are
    for the given A: for a Hessian, that of the samples it was measured on.
    Eigenvalues are in the unit of A's entries (loss/parameter² for a Hessian).

    Args:
        size: P.
        rules: one Gauss rule for each probe.
        steps: products per probe asked for; a rule has fewer where it holds every eigenvalue.
        zero: eigenvalues smaller than this in absolute value are rounding.
        level: nominal coverage of the intervals.

    Example:
        >>> import torch
        >>> seen = SpectralDensity.of(torch.diag(torch.tensor([3.0, -1.0, -1.0, -1.0])))
        >>> round(seen.upper_edge, 5), seen.matvecs  # two distinct eigenvalues: two steps
        (3.0, 8)
    """

    @classmethod
    @without_autocast
    def of(
        cls,
        operator: Any,
        *,
        probes: int = 4,
        steps: int = 80,
        seed: int = 0,
        level: float = 0.95,
        tick: Callable[[int], Any] | None = None,
    ) -> SpectralDensity:
        """The density of any symmetric operator.

        Args:
            operator: anything symmetric with `shape` (P, P) and `@`, as for `lanczos`.
            probes: number of random vectors; one is enough for intervals, more make them narrower.
            steps: products per probe, at least 4; `steps` vectors of length P are kept in memory.
            seed: of the random vectors.
            level: nominal coverage of the intervals.
            tick: called with 1 after every probe.

        Raises:
            ArgumentError: probes, steps or level out of range.
            OperatorError: the operator is empty, not square or not symmetric, or a product is not
                finite.
        """
        matrix = as_operator(operator)
        size = _check(matrix, probes, steps, level)
        source = generator(seed)
        rules = []
        for _ in range(probes):
            start = matrix.space.random(source)
            rules.append(gauss_rule(matrix, start, steps))
            if tick is not None:
                tick(1)
        scale = max(float(np.abs(rule.nodes).max()) for rule in rules)
        return cls(size, tuple(rules), steps, breakdown(matrix.resolution) * scale, level)

    @overload
    def plot(
        self, path: str | Path | None = None, *, width: float | None = None, axes: None = None
    ) -> Figure: ...
    @overload
    def plot(
        self, path: str | Path | None = None, *, width: float | None = None, axes: Axes
    ) -> Axes: ...
    def plot(
        self,
        path: str | Path | None = None,
        *,
        width: float | None = None,
        axes: Axes | None = None,
    ) -> Figure | Axes:
        """The density on a logarithmic axis; see `gn.pictures.spectral_density`.

        Args:
            path: save it there as well; the suffix gives the format.
            width: of the broadening; see `broaden`.
            axes: draw into these matplotlib Axes.

        Returns:
            The new matplotlib Figure; or `axes` where they were given.

        Raises:
            ArgumentError: see `broaden`; or the file cannot be written, or not in that format.
            ImportError: matplotlib is not installed.
        """
        return plotted(lambda: spectral_density(self, width=width, axes=axes), path, axes)

    def __repr__(self) -> str:
        return (
            f"SpectralDensity of P = {self.size}: {len(self.rules)} probes, "
            f"{self.matvecs} products\n"
            f"  eigenvalues     from {short(self.lower_edge)} or below "
            f"to {short(self.upper_edge)} or above\n"
            f"  trace           {self.trace}\n"
            f"  Frobenius norm  {self.frobenius_norm}\n"
            f"  share negative  {self.share_negative}\n"
            f"  by more than {short(self.curve.width)}: {self.cumulative(-self.curve.width)}"
        )


def _check(matrix: Operator, probes: int, steps: int, level: float) -> int:
    shape = matrix.shape
    if shape[0] != shape[1] or shape[0] == 0:
        raise OperatorError(
            f"a spectral density needs a square operator that is not empty; got shape {shape}"
        )
    check_whole("probes", probes, 1)
    check_whole("steps", steps, LEAST_STEPS)
    check_level(level)
    return shape[0]
