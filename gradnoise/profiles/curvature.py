"""The curvature half of a profile: λ, GᵀHG, tr(HΣ), B_noise and B_curv from one Krylov space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..errors import CurvatureError, OperatorError, check_whole
from ..estimators.curvature.curvature_noise import curvature_noise_scale, turning
from ..estimators.curvature.extreme_eigenvalue import (
    half_sharpness,
    sample_curvatures,
    sharpness_estimate,
)
from ..estimators.curvature.spread import measure_curvature_spread, sharp_directions
from ..estimators.noise.noise_scale import (
    ACCURACY,
    PROBES,
    STEPS,
    check_accuracy,
    measure_noise_scale,
    sign_probes,
)
from ..estimators.noise.shares import Shares, shares_of
from ..learning_rate.mean_square import CurvatureSpread
from ..linalg.deflation import explore
from ..linalg.eigen_options import EigenOptions
from ..linalg.iteration import Eigenpairs
from ..linalg.lanczos import lanczos
from ..measurement.opened import Opened
from ..moments.layer import Layer
from ..moments.moments import GradientMoments
from ..operators.hessian import Hessian
from ..operators.preconditioned import with_decay
from ..show.progress import StartTask
from ..statistics.estimate import Estimate, Status
from ..statistics.transform import all_in_samples


@dataclass(frozen=True)
class Effort:
    """How much is spent on the curvature; values out of range raise ArgumentError.

    Args:
        probes: random directions for tr(HΣ), at most.
        accuracy: relative standard error of tr(HΣ) at which no further directions are drawn.
        tol: relative residual at which λ is accepted.
    """

    probes: int = PROBES
    accuracy: float = ACCURACY
    tol: float = 1e-3

    def __post_init__(self) -> None:
        check_whole("probes", self.probes, 2)
        check_accuracy(self.accuracy)


@dataclass(frozen=True, eq=False)
class CurvatureResults:
    """Results that need second derivatives; empty, with a note, where there are none."""

    estimates: dict[str, Estimate]
    matvecs: int = 0
    notes: tuple[str, ...] = ()
    shares: Shares | None = None
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
        return _measured(opened, moments, stage, effort)
    except (CurvatureError, OperatorError) as error:
        reason = str(error).strip().split("\n")[0]
        return CurvatureResults({}, notes=(f"curvature was not measured: {reason}",))


def _measured(
    opened: Opened, moments: GradientMoments, stage: StartTask, effort: Effort
) -> CurvatureResults:
    hessian, seed, tol = opened.hessian(), opened.options.seed, effort.tol
    problem = hessian.problem
    tick = stage("sharpness (Lanczos)", None)
    pairs, deflation = explore(hessian, tol=tol, steps=STEPS, seed=seed, tick=tick)
    pairs = _with_decay(hessian, pairs, tol, seed)
    top = pairs.vectors[:, 0]
    curvatures = sample_curvatures(problem, top)
    spread = measure_curvature_spread(problem, sharp_directions(top, deflation), curvatures)
    sampled = moments.sampling_factor > 0
    halves = turned = None
    if sampled:
        hessian.forget()  # its graphs and those of the halves would be held together
        halves = half_sharpness(problem, top, EigenOptions(tol=tol, seed=seed))
        turned = turning(problem, top, curvatures, deflation, halves, seed)
    signs = sign_probes(moments, effort.probes, seed)
    tick = stage("noise scale (probes)", effort.probes)
    scale = measure_noise_scale(
        hessian,
        opened.engine,
        moments,
        signs,
        deflation=deflation,
        accuracy=effort.accuracy,
        tick=tick,
    )
    sharpness = sharpness_estimate(
        pairs, curvatures, halves, problem.samples, moments.level, error=hessian.product_error
    )
    return CurvatureResults(
        {
            "noise_scale": scale.hessian,
            "sharpness": sharpness,
            "grad_curvature": scale.grad_curvature,
            "trace_hessian_cov": scale.trace_hessian_cov,
            "curvature_noise_scale": curvature_noise_scale(curvatures, moments, turned),
        },
        pairs.matvecs + (halves.matvecs if halves else 0),
        (
            *(() if pairs.converged else (f"sharpness: {Status.NOT_CONVERGED.remedy}",)),
            *_by_differences(hessian),
        ),
        shares_of(moments, pairs, deflation, halves, sharpness, scale),
        spread,
    )


def _by_differences(hessian: Hessian) -> Iterator[str]:
    """What is from differences, why, and how accurate it is."""
    if hessian.hvp == "finite":
        yield (
            f"curvature is from differences of gradients, with a relative error of about "
            f"{hessian.resolution:.1g} where the loss is smooth: {hessian.reason}"
        )
    elif hessian.problem.objective.hidden or hessian.problem.objective.once:
        yield hessian.reason.partition("; ")[2]


def _with_decay(hessian: Hessian, pairs: Eigenpairs, tol: float, seed: int) -> Eigenpairs:
    """The eigenpair once decoupled weight decay is added, where there is any."""
    decayed, preconditioner = with_decay(hessian), hessian.problem.objective.preconditioner
    if preconditioner is None or decayed is hessian:
        return pairs
    decays = set(preconditioner.outside.values())
    if len(decays) > 1:
        found = lanczos(decayed, tol=tol, seed=seed)
        return replace(found, matvecs=found.matvecs + pairs.matvecs)
    (decay,) = decays
    return replace(pairs, values=pairs.values + decay, bound=pairs.bound + decay)
