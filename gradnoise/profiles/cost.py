"""What a measurement cost."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import torch

from ..problem.problem import Problem
from ..problem.work import Work
from ..show.table import duration

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

KIBIBYTE = 1 if sys.platform == "darwin" else 1024  # in which peaks are told


@dataclass(frozen=True)
class Cost:
    """What a measurement cost, or is expected to.

    Args:
        samples: n, those that are measured; groups where these are the units.
        passes: plain passes (forward and backward) over these n samples that are as much work. In
            products of matrices a plain pass is 3, a Hessian-vector product 6. Sums of vectors as
            long as the parameters are left out; with many parameters and few samples they take as
            long again.
        seconds: by the clock; of the slowest rank.
        peak_bytes: by how much the peak memory of the process grew, or that of torch's allocator on
            a CUDA device; 0 where it had been higher before. Of the rank that takes most.
        products: Hessian-vector products; one over m of the n samples counts as m/n.
        half_width: `passes` for an interval of B_noise half as wide: from 4 times as many random
            vectors where the samples are the population, else from 4 times as many samples.

    Example:
        >>> cost = Cost(1024, passes=24, seconds=1.5, peak_bytes=2**20, products=8, half_width=60)
        >>> print(cost)
        24 plain passes over 1024 samples, 8 Hessian-vector products, 1.5 s, 1 MiB
    """

    samples: int
    passes: float
    seconds: float
    peak_bytes: int
    products: float
    half_width: float

    def __str__(self) -> str:
        memory = f", {self.peak_bytes / 2**20:.3g} MiB" if self.peak_bytes else ""
        return (
            f"{self.passes:.3g} plain passes over {self.samples} samples, {self.products:.3g} "
            f"Hessian-vector products, {duration(self.seconds)}{memory}"
        )


class Meter:
    """Begins to measure what is spent.

    Args:
        before: work that was done already.
    """

    def __init__(self, before: Work | None = None) -> None:
        self._before = Work() if before is None else before.copy()
        self._start, self._peaks = time.perf_counter(), _peaks()

    def cost(self, problem: Problem, for_noise: Work | None) -> Cost:
        """What was spent since.

        Args:
            problem: that was measured.
            for_noise: the part that was spent on tr(HΣ) and GᵀHG.
        """
        ranks, n = problem.objective.ranks, problem.samples.count
        device = problem.objective.device
        kind = device.type if device.type == "cuda" else "cpu"
        own = (
            problem.objective.work.since(self._before), for_noise or Work(),
            time.perf_counter() - self._start, max(0, _peaks()[kind] - self._peaks[kind]),
        )  # fmt: skip
        works, of_noise, times, peaks = zip(*ranks.gathered(own, "costs"), strict=True)
        work, noise = Work.together(works), Work.together(of_noise)
        passes, whole = work.passes(n), problem.samples.sampling_factor == 0
        again = noise.passes(n)
        return Cost(
            samples=n,
            passes=passes,
            seconds=max(times),
            peak_bytes=max(peaks),
            products=work.products / n,
            half_width=passes + 3 * (again if whole else passes),
        )


def _peaks() -> dict[str, int]:
    """Peaks of memory so far, in bytes; that of the allocators of all CUDA devices together."""
    own = 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    devices = range(torch.cuda.device_count())
    return {
        "cpu": KIBIBYTE * own,
        "cuda": sum(torch.cuda.max_memory_allocated(device) for device in devices),
    }
