"""What a profile is: the estimates, what they were measured on, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import store
from .errors import NotMeasuredError
from .estimate import Estimate
from .layers import Layer
from .limits import falling, greedy
from .optimizer import OptimizerSettings
from .recommendation import Recommendation, Setting, recommend
from .regime import max_lr, mean_square_lr, regime, stable_lr, temperature
from .report import draw, write


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
        layers: moments and shares of the curvature module by module; see `Layer`.
        optimizer: what the given optimizer says, or None.
        metric: "euclidean", or "optimizer": estimates are of P^-½g and P^-½HP^-½, and learning
            rates those of the optimizer.
        batch_size: of the data loader or as given, or None.
        matvecs: Hessian-vector products of the eigenvalue iteration.
        warnings: what the reader should know.
        versions: of gradnoise and torch.
        groups: the same as `layers` for the optimizer's parameter groups, "group 0" and on; empty
            without an optimizer.
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
    metric: str = "euclidean"
    batch_size: int | None = None
    matvecs: int = 0
    warnings: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    groups: dict[str, Layer] = field(default_factory=dict)

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

    def stable_lr(self, momentum: float | None = None) -> Estimate:
        """2/λ: the limit of full-batch descent; with momentum that of `gn.stable_lr`.

        Nesterov's form when the profile was given an optimizer that uses it, else heavy ball's. In
        the optimizer's metric its own form, and its own momentum unless another is given.
        """
        kind, own = "sgd", 0.0
        if self.optimizer is not None and self.metric == "optimizer":
            kind, own = self.optimizer.kind, self.optimizer.momentum
        elif self.optimizer is not None and self.optimizer.nesterov:
            kind = "nesterov"
        m = own if momentum is None else momentum
        return falling(lambda sharpness: stable_lr(sharpness, kind, momentum=m), self.sharpness)

    def max_lr(self, batch_size: float) -> Estimate:
        """The noise-scale rule (2/λ)/(1 + B_noise/B)."""
        return falling(
            lambda sharpness, scale: max_lr(sharpness, scale, batch_size),
            self.sharpness,
            self.noise_scale,
        )

    def greedy_lr(self, batch_size: float) -> Estimate:
        """ε_opt(B) = |G|²/(GᵀHG + tr(HΣ)/B); the loss rises in one step beyond twice this."""
        parts = self.grad_sq_norm, self.grad_curvature, self.trace_hessian_cov, self.noise_scale
        return greedy(*parts, batch_size)

    def mean_square_lr(self, batch_size: float) -> Estimate:
        """(2/λ)/(1 + p·B_curv) with p = 1/B - 1/N: beyond it SGD diverges in mean square."""
        return falling(
            lambda sharpness, scale: mean_square_lr(sharpness, scale, batch_size, self.population),
            self.sharpness,
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
        """How the model is trained now, as far as it can be compared with what was measured."""
        own = self.optimizer
        if own is None or not (own.is_plain or self.metric == "optimizer"):
            return Setting(self.batch_size)
        rescales = None if own.is_plain else own.name
        return Setting(self.batch_size, own.lr, own.carried, rescales)

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
