"""Noise scales by enumeration in place of random signs: every average over probes is exact."""

from __future__ import annotations

from torch import Tensor

from gradnoise.estimators.noise.noise_scale import measure_noise_scale
from gradnoise.estimators.noise.sums import NoiseScale
from gradnoise.linalg.deflation import krylov_deflation
from gradnoise.moments.measure import stream, with_intervals
from gradnoise.operators.hessian import Hessian
from gradnoise.per_sample.choice import choose
from gradnoise.problem.problem import Problem
from tests import oracles


def noise_scale_of(problem: Problem, probes: Tensor | None = None, steps: int = 0) -> NoiseScale:
    """Of a problem that is open.

    Args:
        problem: what to measure.
        probes: signs; None for all of them.
        steps: of the Krylov space that is taken out of the probes; 0 for probes alone.
    """
    with problem.guard():
        engine = choose(problem.objective, problem.largest_batch())
        moments = with_intervals(problem, engine, stream(problem, engine))
        if probes is None:
            probes = oracles.complete_probes(moments.count)
        hessian = Hessian.of(problem)
        deflation = krylov_deflation(hessian, steps=steps) if steps else None
        return measure_noise_scale(
            hessian, engine, moments, probes, deflation=deflation, sampling_probes=len(probes)
        )
