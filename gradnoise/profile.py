"""One call that goes the whole way once: samples, gradients, curvature, estimates, verdict."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import store
from .directional import require_second_order
from .errors import CurvatureError, NotMeasuredError, check_whole
from .estimate import Estimate, Status, check_level
from .estimators import (
    curvature_noise_scale,
    half_sharpness,
    measure_noise_scale,
    sample_curvatures,
    sharpness_estimate,
    sign_probes,
)
from .estimators.noise_scale import PROBES
from .lanczos import lanczos
from .losses import LossFn
from .moments import GradientMoments, Layer, stream, with_intervals
from .operators import Hessian
from .optimizer import OptimizerSettings, read_optimizer
from .pergrad import choose
from .problem import Problem
from .recommendation import Recommendation, Setting, recommend
from .regime import (
    greedy_lr,
    max_lr,
    mean_square_lr,
    positive,
    regime,
    stable_lr,
    temperature,
)
from .report import draw, progress_bar, write
from .samples import MICRO_BATCH

Tick = Callable[[int], None]


@dataclass(frozen=True)
class Profile:
    """The noise and curvature of one model at one point of its training.

    Args:
        model: class name; `parameters` its trainable parameters P.
        mode: "train", "eval" or "mixed": how the modules were set.
        dtype, device: of the parameters.
        samples, population: n and N (inf for a distribution).
        level: coverage of the intervals.
        seed: of samples and probes.
        engine, engine_reason: how per-sample gradients were made, and why so.
        estimates: by name; read them as attributes.
        layers: the gradient's moments module by module.
        optimizer: what the given optimizer says, or None.
        batch_size: of the data loader or as given, or None.
        matvecs: Hessian-vector products of the eigenvalue iteration.
        warnings: what the reader should know.
        versions: of gradnoise and torch.
    """

    model: str
    parameters: int
    mode: str
    dtype: str
    device: str
    samples: int
    population: float
    level: float
    seed: int
    engine: str
    engine_reason: str
    estimates: dict[str, Estimate]
    layers: dict[str, Layer]
    optimizer: OptimizerSettings | None = None
    batch_size: int | None = None
    matvecs: int = 0
    warnings: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def loss(self) -> Estimate:
        """L, the mean loss."""
        return self._measured("loss")

    @property
    def grad_sq_norm(self) -> Estimate:
        """|G|², squared norm of the mean gradient."""
        return self._measured("grad_sq_norm")

    @property
    def trace_cov(self) -> Estimate:
        """trΣ, variance of one sample's gradient summed over parameters."""
        return self._measured("trace_cov")

    @property
    def simple_noise_scale(self) -> Estimate:
        """B_simple = trΣ/|G|², in samples."""
        return self._measured("simple_noise_scale")

    @property
    def noise_scale(self) -> Estimate:
        """B_noise = tr(HΣ)/GᵀHG, in samples."""
        return self._measured("noise_scale")

    @property
    def sharpness(self) -> Estimate:
        """λ, the largest eigenvalue of the Hessian of the mean loss."""
        return self._measured("sharpness")

    @property
    def grad_curvature(self) -> Estimate:
        """GᵀHG, curvature along the gradient times |G|²."""
        return self._measured("grad_curvature")

    @property
    def trace_hessian_cov(self) -> Estimate:
        """tr(HΣ), twice the loss that the noise of one-sample steps adds, per ε²."""
        return self._measured("trace_hessian_cov")

    @property
    def curvature_noise_scale(self) -> Estimate:
        """B_curv = Var_i(vᵀH_iv)/λ², in samples."""
        return self._measured("curvature_noise_scale")

    def temperature(self, lr: float, batch_size: float, momentum: float = 0.0) -> float:
        """T = ε/(1 - m)·(1/B - 1/N) for the measured population; see `gn.temperature`."""
        return temperature(lr, batch_size, momentum, self.population)

    def stable_lr(self, momentum: float = 0.0) -> Estimate:
        """2/λ: the limit of full-batch descent; with momentum that of `gn.stable_lr`.

        Nesterov's form when the profile was given an optimizer that uses it, else heavy ball's.
        """
        nesterov = self.optimizer is not None and self.optimizer.nesterov
        kind = "nesterov" if nesterov else "sgd"
        return _falling(
            self.sharpness, lambda curvature: stable_lr(curvature, kind, momentum=momentum)
        )

    def max_lr(self, batch_size: float) -> Estimate:
        """The noise-scale rule (2/λ)/(1 + B_noise/B)."""
        return _falling(
            self.sharpness,
            lambda curvature, scale: max_lr(curvature, scale, batch_size),
            self.noise_scale,
        )

    def greedy_lr(self, batch_size: float) -> Estimate:
        """ε_opt(B) = |G|²/(GᵀHG + tr(HΣ)/B); the loss rises in one step beyond twice this."""
        batch_size = positive("batch_size", batch_size)
        signal, curve, trace = self.grad_sq_norm, self.grad_curvature, self.trace_hessian_cov
        scale = self.noise_scale
        if scale.status is Status.NEGATIVE_CURVATURE:
            return _undefined(scale)
        least, most = (curve.low + trace.low / batch_size), (curve.high + trace.high / batch_size)
        low = max(signal.low, 0.0) / most if most > 0 else 0.0
        high = max(signal.high, 0.0) / least if least > 0 else math.inf
        value = math.nan
        if scale.is_resolved and float(signal) > 0:
            value = greedy_lr(float(signal), float(curve), float(scale), batch_size)
        status = signal.status if not signal.is_resolved else scale.status
        return Estimate(value, low, high, self.level, math.nan, self.samples, status)

    def mean_square_lr(self, batch_size: float) -> Estimate:
        """(2/λ)/(1 + p·B_curv) with p = 1/B - 1/N: beyond it SGD diverges in mean square."""
        return _falling(
            self.sharpness,
            lambda curvature, scale: mean_square_lr(curvature, scale, batch_size, self.population),
            self.curvature_noise_scale,
        )

    def regime(self, batch_size: float) -> str:
        """ "noise-dominated", "curvature-dominated" or "unresolved"; see `gn.regime`."""
        return regime(batch_size, self.noise_scale)

    def recommend(self) -> Recommendation:
        """Batch size and learning rate with reasons."""
        return recommend(
            self.sharpness,
            self.noise_scale,
            self.curvature_noise_scale,
            self.population,
            self.setting,
        )

    @property
    def setting(self) -> Setting:
        """How the model is trained now, as far as it can be compared with plain SGD."""
        if self.optimizer is None or not self.optimizer.is_plain:
            return Setting(self.batch_size)
        return Setting(self.batch_size, self.optimizer.lr, self.optimizer.momentum)

    def plot(self, path: str | Path | None = None) -> Any:
        """The regime map, learning rate against batch size, as a matplotlib Figure.

        Args:
            path: where to save it as well; the suffix says the format.

        Raises:
            NotMeasuredError: curvature was not measured.
            ImportError: matplotlib is not installed.
        """
        return draw(self, path)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values that JSON can hold; infinities as strings."""
        return store.to_dict(self)

    def save(self, path: str | Path) -> None:
        """Write `to_dict` as JSON, whole or not at all."""
        store.save(self.to_dict(), path)

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read a saved profile.

        Raises:
            ProfileFileError: no such file, damaged, or not a profile of this version.
        """
        return store.load(cls, path)  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return write(self)

    def _measured(self, name: str) -> Estimate:
        try:
            return self.estimates[name]
        except KeyError:
            reasons = [text for text in self.warnings if "not measured" in text]
            raise NotMeasuredError(
                f"`{name}` was not measured. {' '.join(reasons)}".strip()
            ) from None


def _falling(
    first: Estimate, function: Callable[..., float], second: Estimate | None = None
) -> Estimate:
    """A function that falls in each estimate, at the value and at the corners of the intervals."""
    parts = [first] if second is None else [first, second]
    for part in parts:
        if part.status is Status.NEGATIVE_CURVATURE:
            return _undefined(part)
    bad = next((part for part in parts if not part.is_resolved), first)
    lows = [max(part.low, 0.0) for part in parts]
    highs = [part.high for part in parts]
    low = function(*highs) if math.isfinite(highs[0]) else 0.0
    high = function(*lows) if lows[0] > 0 else math.inf
    values = [float(part) for part in parts]
    value = math.nan if any(map(math.isnan, values)) else function(*values)
    return Estimate(value, low, high, first.level, math.nan, first.samples, bad.status)


def _undefined(part: Estimate) -> Estimate:
    bounds = (math.nan, -math.inf, math.inf)
    return Estimate(*bounds, part.level, math.nan, part.samples, part.status)


def profile(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    batch_size: int | None = None,
    max_samples: int | None = 4096,
    population: str | int = "dataset",
    engine: str = "auto",
    level: float = 0.95,
    seed: int = 0,
    probes: int = PROBES,
    tol: float = 1e-3,
    micro_batch: int = MICRO_BATCH,
    progress: bool = False,
) -> Profile:
    """Measure the gradient noise and the curvature of a model where it stands.

    Args:
        model: any `nn.Module`; it is left as found. Its trainable parameters are measured.
        loss_fn: `loss_fn(model, batch)` with one loss per sample, shape (n,), or a torch
            criterion for batches (inputs, targets).
        data: a DataLoader, a Dataset, a list of batches, or one batch.
        optimizer: the one in use; its learning rate and momentum enter the report.
        batch_size: B in use; default that of a DataLoader.
        max_samples: n at most; None measures all.
        population: "dataset", "distribution" or N: what the intervals are about.
        engine: "auto", "functional" or "loop".
        level: coverage of the intervals.
        seed: of the samples and probes; the same seed gives the same numbers.
        probes: random directions for tr(HΣ).
        tol: relative residual at which λ is accepted.
        micro_batch: samples evaluated at once; lower it when memory is short.
        progress: show a progress bar on stderr.

    Returns:
        Profile.

    Raises:
        GradNoiseError: with what was got, what was expected and what to do; see `Objective`,
            `Samples.draw` and `choose`.

    Example:
        >>> from gradnoise.toy import NoisyQuadratic
        >>> toy = NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
        >>> p = profile(toy.model(), toy.loss_fn, toy.sample(256, seed=0))
        >>> round(float(p.stable_lr()), 3)  # 2/λ = 2/4
        0.5
    """
    settings = read_optimizer(optimizer)
    check_level(level)
    if batch_size is not None:
        check_whole("batch_size", batch_size, 1)
    check_whole("probes", probes, 2)
    check_whole("seed", seed, 0)
    problem = Problem.open(
        model,
        loss_fn,
        data,
        max_samples=max_samples,
        population=population,
        seed=seed,
        micro_batch=micro_batch,
    )
    with problem.guard(), progress_bar(progress) as stage:
        choice = choose(problem.objective, problem.largest_batch(), engine)
        tick = stage("per-sample gradients", problem.samples.count)
        moments = stream(problem, choice.engine, level=level, tick=tick)
        curvature: dict[str, Estimate] = {}
        matvecs, notes = 0, tuple[str, ...]()
        try:
            require_second_order(problem)
            moments = with_intervals(problem, moments)
            curvature, matvecs, notes = _curvature(problem, moments, stage, probes, tol, seed)
        except torch.OutOfMemoryError:
            raise
        except (CurvatureError, RuntimeError, NotImplementedError) as error:
            reason = str(error).strip().split("\n")[0]
            notes = (f"curvature was not measured: {reason}",)
    fallback = (f"engine: {choice.reason}",) if choice.fell_back else ()
    return Profile(
        model=type(model).__name__,
        parameters=problem.objective.size,
        mode=_mode(model),
        dtype=_dtypes(problem),
        device=str(problem.objective.device),
        samples=moments.count,
        population=moments.population,
        level=level,
        seed=seed,
        engine=choice.engine.name,
        engine_reason=choice.reason,
        estimates={
            "loss": moments.loss,
            "grad_sq_norm": moments.grad_sq_norm,
            "trace_cov": moments.trace_cov,
            "simple_noise_scale": moments.simple_noise_scale,
            **curvature,
        },
        layers=moments.layers,
        optimizer=settings,
        batch_size=batch_size or _loader_batch_size(data),
        matvecs=matvecs,
        warnings=(
            *problem.samples.notes,
            *fallback,
            *notes,
            *_precision_notes(problem),
            *(settings.notes if settings else ()),
        ),
        versions=store.versions(),
    )


def _curvature(
    problem: Problem,
    moments: GradientMoments,
    stage: Callable[[str, int | None], Tick],
    probes: int,
    tol: float,
    seed: int,
) -> tuple[dict[str, Estimate], int, tuple[str, ...]]:
    """The estimates that need second derivatives, the products spent, and notes."""
    hessian = Hessian.of(problem)
    pairs = lanczos(hessian, tol=tol, seed=seed, tick=stage("sharpness (Lanczos)", None))
    top = pairs.vectors[:, 0]
    curvatures = sample_curvatures(problem, top)
    sampled = moments.sampling_factor > 0
    halves = half_sharpness(problem, top, tol, seed) if sampled else None
    signs = sign_probes(moments.count, probes, seed)
    scale = measure_noise_scale(problem, moments, signs, tick=stage("noise scale (probes)", probes))
    notes = () if pairs.converged else (f"sharpness: {Status.NOT_CONVERGED.remedy}",)
    return (
        {
            "noise_scale": scale.hessian,
            "sharpness": sharpness_estimate(pairs, curvatures, halves, moments),
            "grad_curvature": scale.grad_curvature,
            "trace_hessian_cov": scale.trace_hessian_cov,
            "curvature_noise_scale": curvature_noise_scale(curvatures, moments),
        },
        pairs.matvecs,
        notes,
    )


def _mode(model: nn.Module) -> str:
    modes = {module.training for module in model.modules()}
    return "mixed" if len(modes) > 1 else "train" if modes.pop() else "eval"


def _dtypes(problem: Problem) -> str:
    dtypes = {str(p.dtype).removeprefix("torch.") for p in problem.objective.parameters.values()}
    return "/".join(sorted(dtypes))


def _precision_notes(problem: Problem) -> tuple[str, ...]:
    coarse = {p.dtype for p in problem.objective.parameters.values()} & {
        torch.float16,
        torch.bfloat16,
    }
    if not coarse:
        return ()
    return (
        f"gradients and curvature were computed in {_dtypes(problem)}, with 2 to 3 significant "
        f"digits; measure a float32 copy of the model for more",
    )


def _loader_batch_size(data: Any) -> int | None:
    size = getattr(data, "batch_size", None)
    return size if isinstance(size, int) else None
