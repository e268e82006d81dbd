"""The work of a profile, as it mostly is."""

from __future__ import annotations

from ..estimators.curvature.few_samples import FEW, LEAST, PART
from ..estimators.curvature.few_samples import STEPS as STEPS_OF_FEW
from ..estimators.noise.block_probes import BLOCKS, ROUNDS, SAME
from ..estimators.noise.drawn_probes import DRAWN, FIRST
from ..estimators.noise.noise_scale import ACCURACY, LEADING, STEPS, few_suffice
from ..estimators.noise.noise_scale import PROBES as MOST_PROBES
from ..estimators.noise.sign_probes import SAMPLING_PROBES
from ..problem.samples import MICRO_BATCH
from ..problem.work import Work

# usual numbers, counted on the models of benchmarks/cost.py
PRODUCTS = 5  # with the Hessian of all samples, for λ
WITH_HALVES = 8  # the same where λ of halves is measured as well
VALUES = 30  # of tr(HΣ), of few samples each, at ACCURACY
PROBES = 12  # random directions over all samples
KNOWN = 9  # directions in which every sample's slope is measured, where samples are few


def expected_work(count: int, *, whole: bool, divisible: bool, accuracy: float = ACCURACY) -> Work:
    """Of a profile of so many samples.

    Args:
        count: n.
        whole: whether they are the population.
        divisible: whether samples can be taken apart.
        accuracy: half the interval of B_noise that is enough.
    """
    work = Work()
    many = divisible and count >= LEAST and few_suffice(count, accuracy)
    finer = (ACCURACY / max(accuracy, 1e-9)) ** 2
    _add(work, count, forward=1.2, gradients=1.1)  # moments
    _add(work, count, forward=(LEADING if many else KNOWN) + 1, gradients=1)
    if not many:
        probes = min(MOST_PROBES, max(SAMPLING_PROBES, PROBES * finer))
        _add(work, count, forward=4, gradients=4, products=STEPS + 2 + 14)
        _add(work, count, forward=probes, gradients=probes, products=probes)
        if not whole:
            _add(work, count, forward=8, gradients=16, products=45)
        return work
    _add(work, FEW, forward=1, gradients=1, products=STEPS_OF_FEW)
    _add(work, PART, forward=2, gradients=2, products=7)  # curvature in two more directions
    _add(work, count, forward=1, gradients=1, products=PRODUCTS if whole else WITH_HALVES)
    if whole:
        _add(work, count, forward=1, gradients=1, products=2)  # curvature of single samples
        _add(
            work,
            DRAWN,
            forward=2,
            gradients=2,
            products=1,
            times=min(count, max(FIRST, VALUES * finer)),
        )
    else:
        _add(work, PART, forward=4, gradients=4, products=7)  # what the error of v does to it
        _add(work, count, forward=1, gradients=2)  # intervals of moments
        size = count // BLOCKS
        _add(work, size, forward=2, gradients=4, products=1 + ROUNDS + 1 / SAME, times=BLOCKS)
    return work


def _add(
    work: Work,
    count: int,
    *,
    forward: float,
    gradients: float,
    products: float = 0.0,
    times: float = 1.0,
) -> None:
    work.forward += round(count * forward * times)
    work.gradients += round(count * gradients * times)
    work.products += round(count * products * times)
    work.calls += round((gradients + products) * times * -(-count // MICRO_BATCH))
