"""The curvature half of a profile: λ, GᵀHG, tr(HΣ), B_noise and B_curv."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from ..errors import CurvatureError, OperatorError, check_whole
from ..estimators.curvature.curvature_noise import (
    Turning,
    curvature_noise_scale,
    direction_error,
    turning,
)
from ..estimators.curvature.extreme_eigenvalue import (
    Halves,
    half_sharpness,
    sample_curvatures,
    sharpness_estimate,
)
from ..estimators.curvature.few_samples import PART, accepted_residual, chances, sides_of
from ..estimators.curvature.sharpest import sharpest_of_many
from ..estimators.curvature.spread import measure_curvature_spread, sharp_directions
from ..estimators.noise.noise_scale import (
    ACCURACY,
    PER_ERROR,
    PROBES,
    STEPS,
    by_few,
    check_accuracy,
    measure_noise_scale,
    noise_scale_by_few,
    sign_probes,
)
from ..estimators.noise.shares import Shares, shares_of
from ..estimators.noise.sums import NoiseScale
from ..learning_rate.mean_square import CurvatureSpread
from ..linalg.deflation import Deflation, explore
from ..linalg.eigen_options import EigenOptions
from ..linalg.iteration import Eigenpairs
from ..linalg.lanczos import lanczos
from ..linalg.operator import MEMORY_BUDGET
from ..measurement.opened import Opened
from ..moments.layer import Layer
from ..moments.moments import GradientMoments
from ..operators.hessian import Hessian
from ..operators.preconditioned import uniform_decay, with_decay
from ..problem.work import Work
from ..show.progress import StartTask
from ..statistics.estimate import Estimate, Status
from ..statistics.transform import all_in_samples
from ..tensors.trees import flatten

DIRECTIONS, FEW_DIRECTIONS = 4, 3  # in which the curvature of samples is measured, at most


@dataclass(frozen=True)
class Effort:
    """How much is spent on the curvature; values out of range raise ArgumentError.

    Args:
        probes: random directions for tr(HΣ), at most, of fewer than 512 samples.
        accuracy: half the interval of B_noise, relative, that is enough.
        tol: relative residual at which λ is accepted; None for `accepted_residual`.
        memory_budget: bytes of graphs that are kept, and of the basis of λ.
        spectra: whether the spectral densities of H and Σ are measured as well.
    """

    probes: int = PROBES
    accuracy: float = ACCURACY
    tol: float | None = None
    memory_budget: int = MEMORY_BUDGET
    spectra: bool = False

    def __post_init__(self) -> None:
        check_whole("probes", self.probes, 2)
        check_accuracy(self.accuracy)
        check_whole("memory_budget", self.memory_budget, 1)


@dataclass(frozen=True, eq=False)
class CurvatureResults:
    """Results that need second derivatives; empty, with a note, where there are none."""

    estimates: dict[str, Estimate]
    matvecs: int = 0
    notes: tuple[str, ...] = ()
    shares: Shares | None = None
    noise_work: Work | None = None
    spread: CurvatureSpread | None = None

    def in_samples(self, group_size: int) -> dict[str, Estimate]:
        """The estimates in samples, from those of groups of b samples."""
        return all_in_samples(self.estimates, group_size, kept=("sharpness", "grad_curvature"))

    def shared(self, layers: dict[str, Layer]) -> dict[str, Layer]:
        """The layers with their shares of the curvature."""
        return layers if self.shares is None else self.shares.give(layers)


def find_curvature(
    opened: Opened, moments: GradientMoments, stage: StartTask, effort: Effort
) -> CurvatureResults:
    """The curvature, or why the model has none; an error of the user's own code is raised."""
    try:
        with opened.problem.objective.ranks.together(always=True):
            return _measured(opened, moments, stage, effort)
    except (CurvatureError, OperatorError) as error:
        reason = str(error).strip().split("\n")[0]
        reason = max(opened.problem.objective.ranks.gathered(reason, "reasons"))
        return CurvatureResults({}, notes=(f"curvature was not measured: {reason}",))


def _measured(
    opened: Opened, moments: GradientMoments, stage: StartTask, effort: Effort
) -> CurvatureResults:
    hessian = opened.hessian(memory_budget=effort.memory_budget)
    samples = opened.problem.samples
    way = _from_few if by_few(hessian, moments, effort.accuracy) else _from_all
    found = way(opened, hessian, moments, stage, effort)
    pairs, halves, scale = found.pairs, found.halves, found.scale
    sharpness = sharpness_estimate(
        pairs, found.curvatures, halves, samples, moments.level,
        error=hessian.product_error_along(pairs.vectors[:, 0]),
    )  # fmt: skip
    return CurvatureResults(
        {
            "noise_scale": scale.hessian,
            "sharpness": sharpness,
            "grad_curvature": scale.grad_curvature,
            "trace_hessian_cov": scale.trace_hessian_cov,
            "curvature_noise_scale": curvature_noise_scale(
                found.curvatures, moments, found.turned, direction_error(pairs, found.deflation)
            ),
        },
        pairs.matvecs + (halves.matvecs if halves else 0),
        (
            *(() if pairs.converged else (f"sharpness: {Status.NOT_CONVERGED.remedy}",)),
            *_by_differences(hessian),
        ),
        shares_of(moments, pairs, found.deflation, halves, sharpness, scale),
        found.noise_work,
        found.spread,
    )


@dataclass(frozen=True, eq=False)
class _Found:
    """What the Hessian is asked for.

    Args:
        pairs: λ and v.
        deflation: what is known of the spectrum around.
        curvatures: vᵀH_iv of some samples or of all.
        spread: of these curvatures, in more directions.
        halves, turned: λ of halves, and what the error of v does; where samples are a part.
        scale, noise_work: the noise scales, and what was spent on them.
    """

    pairs: Eigenpairs
    deflation: Deflation
    curvatures: Tensor
    spread: CurvatureSpread | None
    halves: Halves | None
    turned: Turning | None
    scale: NoiseScale
    noise_work: Work


def _from_few(
    opened: Opened, hessian: Hessian, moments: GradientMoments, stage: StartTask, effort: Effort
) -> _Found:
    """From few samples at a time, as far as that will do."""
    problem, samples, seed = hessian.problem, hessian.problem.samples, opened.options.seed
    whole, mean = moments.sampling_factor == 0, flatten([*moments.mean.values()])
    found = sharpest_of_many(
        hessian, chances(moments), [mean], halved=not whole,
        tol=accepted_residual(True, effort.tol), seed=seed, tick=stage("sharpness (Lanczos)", None),
    )  # fmt: skip
    pairs, near, halves, image = found.pairs, found.near, found.halves, found.product(hessian, mean)
    del found  # and the graphs of the halves with it
    top = pairs.vectors[:, 0]
    if whole:
        positions = samples.some_positions(PART, seed)
        part = replace(problem, samples=samples.together(positions))
        curvatures = sample_curvatures(problem, top)
        seen = curvatures[positions]
    else:
        sides = sides_of(samples, seed)
        part = replace(problem, samples=sides[0].joined(sides[1]))
        curvatures = seen = sample_curvatures(part, top)
    spread = measure_curvature_spread(part, sharp_directions(top, near, FEW_DIRECTIONS), seen)
    turned = None
    if halves is not None:
        turned = turning(part, top, curvatures, near, halves, sides, samples)
    before = problem.objective.work.copy()
    scale = noise_scale_by_few(
        hessian, opened.engine, moments, near, image,
        accuracy=effort.accuracy, odds=chances(moments, curvatures) if whole else None,
        seed=seed, tick=stage("noise scale (probes)", None),
    )  # fmt: skip
    spent = problem.objective.work.since(before)
    return _Found(pairs, near, curvatures, spread, halves, turned, scale, spent)


def _from_all(
    opened: Opened, hessian: Hessian, moments: GradientMoments, stage: StartTask, effort: Effort
) -> _Found:
    """By products with the Hessian of all samples."""
    problem, samples, seed = hessian.problem, hessian.problem.samples, opened.options.seed
    budget = effort.memory_budget
    tol, tick = accepted_residual(False, effort.tol), stage("sharpness (Lanczos)", None)
    pairs, deflation = explore(
        hessian, tol=tol, steps=STEPS, seed=seed, memory_budget=budget, tick=tick
    )
    pairs = _with_decay(hessian, pairs, tol, seed)
    top = pairs.vectors[:, 0]
    curvatures = sample_curvatures(problem, top)
    spread = measure_curvature_spread(
        problem, sharp_directions(top, deflation, DIRECTIONS), curvatures
    )
    halves = turned = None
    if moments.sampling_factor:
        hessian.forget()  # its graphs and those of the halves would be held together
        aim = EigenOptions(tol=tol, seed=seed, memory_budget=budget)
        halves = half_sharpness(problem, top, aim)
        sides = samples.halves(seed)
        turned = turning(problem, top, curvatures, deflation, halves, sides, samples)
    tick, before = stage("noise scale (probes)", effort.probes), problem.objective.work.copy()
    scale = measure_noise_scale(
        hessian, opened.engine, moments, sign_probes(moments, effort.probes, seed),
        deflation=deflation, accuracy=effort.accuracy / PER_ERROR, tick=tick,
    )  # fmt: skip
    spent = problem.objective.work.since(before)
    return _Found(pairs, deflation, curvatures, spread, halves, turned, scale, spent)


def _by_differences(hessian: Hessian) -> Iterator[str]:
    """What is from differences, why, and how accurate it is."""
    if hessian.hvp == "finite":
        yield (
            f"curvature is from differences of gradients: {hessian.reason}, with a relative error "
            f"of about {hessian.resolution:.1g}"
        )
    elif hessian.problem.objective.hidden or hessian.problem.objective.once:
        yield hessian.reason.partition("; ")[2]


def _with_decay(hessian: Hessian, pairs: Eigenpairs, tol: float, seed: int) -> Eigenpairs:
    """The eigenpair once decoupled weight decay is added, where there is any."""
    decay = uniform_decay(hessian)
    if decay is None:
        found = lanczos(with_decay(hessian), tol=tol, seed=seed)
        return replace(found, matvecs=found.matvecs + pairs.matvecs)
    return pairs.shifted(decay)
