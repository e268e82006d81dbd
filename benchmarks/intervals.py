"""Which interval for a mean of skewed numbers? Candidates on plain arrays, without a model.

    python benchmarks/intervals.py --replicates 2000

The numbers are the influences ‖g_i - ḡ‖² on trΣ, of problems whose truth is known. How often does
each candidate hold the truth, how wide is it, and what do jackknife and bootstrap say of the
standard error? The bias of |G|² and trΣ is in standard errors of its mean over the replicates.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable

import torch
from coverage import PROBLEMS
from resampling import block_jackknife, bootstrap_t
from torch import Tensor

import gradnoise as gn
from gradnoise.statistics.estimate import Estimate
from gradnoise.statistics.interval import symmetric, with_skew
from gradnoise.statistics.skew import Skew

SHOWN = (
    "noisy quadratic",
    "regression, isotropic",
    "regression, ill-conditioned",
    "regression, Student 9",
)


def squares(gradients: Tensor) -> Tensor:
    """‖g_i - ḡ‖² n/(n - 1), whose mean is trΣ."""
    n = len(gradients)
    found: Tensor = (gradients - gradients.mean(0)).square().sum(1) * (n / (n - 1))
    return found


def student(values: Tensor) -> Estimate:
    """m ± t·s.e."""
    n = len(values)
    variance = float(values.var()) / n
    return symmetric(float(values.mean()), variance, level=0.95, samples=n, freedom=n - 1)


def logarithmic(values: Tensor) -> Estimate:
    """m·exp(±t·s.e./m)."""
    plain = student(values)
    factor = math.exp((plain.high - plain.value) / plain.value)
    return Estimate(plain.value, plain.value / factor, plain.value * factor, 0.95, 0.0, len(values))


def skewed(values: Tensor) -> Estimate:
    """The library's."""
    n = len(values)
    mean, variance = float(values.mean()), float(values.var()) / n
    skew = Skew.of(values[None])
    return with_skew(mean, variance, skew, level=0.95, samples=n, freedom=n - 1)


CANDIDATES: dict[str, Callable[[Tensor], Estimate]] = {
    "Student": student,
    "logarithm": logarithmic,
    "with_skew": skewed,
    "bootstrap-t": lambda values: bootstrap_t(values, draws=500),
}


def gradients(name: str, n: int, seed: int) -> Tensor:
    """Per-sample gradients (n, P) of one draw."""
    toy = PROBLEMS[name]
    found = gn.per_sample_gradients(toy.model(), toy.loss_fn, toy.sample(n, seed))
    return torch.cat([part.reshape(n, -1) for part in found.values()], dim=1)


def score(values: list[float], exact: float) -> str:
    """Bias in standard errors."""
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{(statistics.fmean(values) - exact) / error:+.1f}"


def row(name: str, n: int, replicates: int) -> str:
    """One line of the table."""
    truth = PROBLEMS[name].truth()
    signals, traces, errors = [], [], []
    inside, widths = dict.fromkeys(CANDIDATES, 0), {which: [] for which in CANDIDATES}
    for seed in range(replicates):
        drawn = gradients(name, n, 50_000 + seed)
        values = squares(drawn)
        traces.append(float(values.mean()))
        signals.append(float(drawn.mean(0).square().sum()) - traces[-1] / n)
        errors.append(block_jackknife(lambda g: squares(g).mean(), drawn) / student(values).stderr)
        for which, candidate in CANDIDATES.items():
            found = candidate(values)
            inside[which] += found.low <= truth.trace_cov <= found.high
            widths[which].append((found.high - found.low) / truth.trace_cov)
    cells = [
        f"{inside[w] / replicates:.3f} ({statistics.median(widths[w]):.2f})" for w in CANDIDATES
    ]
    biases = score(signals, truth.grad_sq_norm), score(traces, truth.trace_cov)
    jackknife = f"{statistics.fmean(errors):.2f}"
    return f"| {name} | {n} | " + " | ".join([*cells, jackknife, *biases]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--samples", type=int, nargs="+", default=[64, 256])
    options = parser.parse_args()
    torch.set_num_threads(1)
    heads = [*CANDIDATES, "jackknife/analytic", "bias of \\|G\\|²", "bias of trΣ"]
    print("| problem | n | " + " | ".join(heads) + " |")
    print("|" + "---|" * (len(heads) + 2))
    for name in SHOWN:
        for n in options.samples:
            print(row(name, n, options.replicates), flush=True)


if __name__ == "__main__":
    main()
