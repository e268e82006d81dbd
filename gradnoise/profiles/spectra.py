"""The spectral densities of H and Σ that a profile keeps: curves of a few hundred points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import CurvatureError, OperatorError
from ..linalg.density.spectral_density import SpectralDensity
from ..measurement.opened import Opened
from ..operators.gradient_covariance import GradientCovariance
from ..operators.preconditioned import with_decay
from ..show.progress import StartTask

PROBES, STEPS = 1, 40
POINTS = 300  # of a curve, about


@dataclass(frozen=True)
class Spectrum:
    """The density of the eigenvalues of a matrix, broadened by Gaussians; see `SpectralDensity`.

    Args:
        grid: eigenvalues x: of H in loss/parameter², of Σ in loss²/parameter².
        density, low, high: the share of the eigenvalues per unit at each x, and its interval.
        width: standard deviation of the Gaussians.
        size: number of eigenvalues, P.
        lowest, highest: the outermost Ritz values; eigenvalues are there or beyond.
        products: products with the matrix that were spent.
        level: coverage of the interval, point by point.
    """

    grid: tuple[float, ...]
    density: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    width: float
    size: int
    lowest: float
    highest: float
    products: int
    level: float

    @classmethod
    def of(cls, seen: SpectralDensity, scale: float = 1.0) -> Spectrum:
        """From a density, for the matrix times `scale`; peaks of the curve are kept."""
        curve = seen.curve
        inner = curve.density[1:-1]
        peak = np.r_[True, (inner >= curve.density[:-2]) & (inner >= curve.density[2:]), True]
        kept = peak.copy()
        kept[:: max(1, len(peak) // POINTS)] = True
        parts = scale * curve.grid, *(y / scale for y in (curve.density, curve.low, curve.high))
        grid, density, low, high = (tuple(float(f"{x:.6g}") for x in part[kept]) for part in parts)
        return cls(
            grid, density, low, high, scale * curve.width, seen.size, scale * seen.lower_edge,
            scale * seen.upper_edge, seen.matvecs, seen.level,
        )  # fmt: skip

    @classmethod
    def from_dict(cls, contents: dict[str, Any]) -> Spectrum:
        """What `asdict` gave, with lists for tuples."""
        lines = {
            k: tuple(map(float, v)) for k, v in contents.items() if isinstance(v, (list, tuple))
        }
        lengths = {len(lines[name]) for name in ("grid", "density", "low", "high")}
        if len(lengths) != 1 or min(lengths) < 2:
            raise ValueError("the lines of a spectrum differ in length")
        return cls(**{**contents, **lines})


def find_spectra(
    opened: Opened, stage: StartTask, *, curvature: bool, memory_budget: int
) -> tuple[dict[str, Spectrum], str]:
    """The spectra of Σ, and of H where curvature was measured, in the metric of the profile.

    And why there is none of them; the rest of a profile is kept.
    """
    try:
        with opened.problem.objective.ranks.together(always=True):
            return _measured(opened, stage, curvature, memory_budget), ""
    except (CurvatureError, OperatorError) as error:
        reason = str(error).strip().split("\n")[0]
        return {}, f"spectra were not measured: {reason}"


def _measured(
    opened: Opened, stage: StartTask, curvature: bool, memory_budget: int
) -> dict[str, Spectrum]:
    problem, options = opened.problem, opened.options
    matrices: dict[str, Any] = {"Σ": GradientCovariance.of(problem, engine=opened.engine)}
    if curvature:
        matrices = {"H": with_decay(opened.hessian(memory_budget=memory_budget)), **matrices}
    found = {}
    for name, matrix in matrices.items():
        tick = stage(f"spectrum of {name}", PROBES)
        seen = SpectralDensity.of(
            matrix, probes=PROBES, steps=STEPS, seed=int(options.seed), level=options.level,
            tick=tick,
        )  # fmt: skip
        found[name] = Spectrum.of(seen, 1.0 if name == "H" else opened.unit.size)
    return found
