"""What was measured, on what, and what follows from it; nothing is printed or drawn here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..errors import NotMeasuredError
from ..learning_rate.advice import Recommendation, recommend, without_curvature
from ..learning_rate.formulas import capped, regime, temperature
from ..learning_rate.landscape import Landscape, Limits
from ..learning_rate.mean_square import CurvatureSpread
from ..learning_rate.reasons import NO_CURVATURE
from ..learning_rate.setting import Setting
from ..moments.layer import Layer
from ..problem.optimizer_settings import OptimizerSettings
from ..statistics.estimate import Estimate, short
from .cost import Cost
from .spectra import Spectrum

OWN_METRIC = (  # optimizers whose P can be read
    *("SGD", "Adam", "AdamW", "NAdam", "RMSprop", "Adagrad", "Adafactor"),
)
MEAN = "mean loss of the samples"
NONE = "none: the loss draws no random numbers"
NO_GRADIENT = (
    "Every gradient is zero, so nothing follows for batch size or learning rate. Does the loss use "
    "this model? Are all labels ignored (-100)?"
)


@dataclass(frozen=True)
class Results:
    """The noise and curvature of one model at one point of its training; see `Profile`."""

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
    curvature_spread: CurvatureSpread | None = None
    unit: str = "sample"
    group_size: int = 1
    objective: str = MEAN
    randomness: str = NONE
    labels_per_sample: float | None = None
    cost: Cost | None = field(default=None, compare=False)
    advised: Recommendation | None = None
    spectra: dict[str, Spectrum] = field(default_factory=dict)
    date: str = field(default="", compare=False)
    environment: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def loss(self) -> Estimate:
        """L, the mean of the per-sample losses."""
        return self._measured("loss")

    @property
    def grad_sq_norm(self) -> Estimate:
        """|G|², squared norm of the mean gradient, in loss²/parameter²; unbiased."""
        return self._measured("grad_sq_norm")

    @property
    def trace_cov(self) -> Estimate:
        """trΣ, variance of one sample's gradient summed over parameters, in loss²/parameter²."""
        return self._measured("trace_cov")

    @property
    def simple_noise_scale(self) -> Estimate:
        """B_simple = trΣ/|G|², in samples: where the noise of a batch equals the gradient."""
        return self._measured("simple_noise_scale")

    @property
    def noise_scale(self) -> Estimate:
        """B_noise = tr(HΣ)/GᵀHG, in samples (arXiv:1812.06162): larger batches save few steps."""
        return self._measured("noise_scale")

    @property
    def sharpness(self) -> Estimate:
        """λ, the largest eigenvalue of the Hessian of the mean loss, in loss/parameter²."""
        return self._measured("sharpness")

    @property
    def grad_curvature(self) -> Estimate:
        """GᵀHG, the curvature along the gradient times |G|², in loss³/parameter⁴."""
        return self._measured("grad_curvature")

    @property
    def trace_hessian_cov(self) -> Estimate:
        """tr(HΣ) in loss³/parameter⁴: noise adds ½ε²·tr(HΣ)/B to the loss in every step."""
        return self._measured("trace_hessian_cov")

    @property
    def curvature_noise_scale(self) -> Estimate:
        """B_curv = Var_i(vᵀH_iv)/λ² with 1/(n - 1), in samples; v is the sharpest direction."""
        return self._measured("curvature_noise_scale")

    def temperature(self, lr: float, batch_size: float, momentum: float = 0.0) -> float:
        """T = ε/(1 - m)·(1/B - 1/N) for the measured population N; see `gn.temperature`."""
        return temperature(lr, capped(batch_size, self.population), momentum, self.population)

    def stable_lr(self, momentum: float | None = None) -> Estimate:
        """2/λ in parameter²/loss, the limit of full-batch descent; see `gn.stable_lr`.

        Args:
            momentum: m of heavy-ball SGD, or of Nesterov's form where the optimizer uses it. In the
                metric of an optimizer its own formula, with its own momentum by default.
        """
        return self.landscape(momentum).stable_lr

    def max_lr(self, batch_size: float, momentum: float | None = None) -> Estimate:
        """The noise-scale rule (2/λ)/(1 + B_noise/B); momentum as in `stable_lr`."""
        return self.landscape(momentum).max_lr(batch_size)

    def greedy_lr(self, batch_size: float) -> Estimate:
        """ε_opt(B) = |G|²/(GᵀHG + tr(HΣ)/B); one step raises the expected loss beyond 2ε_opt."""
        return self.landscape().greedy_lr(batch_size)

    def mean_square_lr(self, batch_size: float, momentum: float | None = None) -> Estimate:
        """The mean-square limit, at most (2/λ)/(1 + (1/B - 1/N)·B_curv).

        Beyond it SGD is unstable at this point: the second moment of the weights grows from step to
        step. The formula is the limit along the sharpest direction; the next directions, as many as
        change it, lower it (`curvature_spread`). Momentum as in `stable_lr`.
        """
        return self.landscape(momentum).mean_square_lr(batch_size)

    def limits(self, batch_size: float, momentum: float | None = None) -> Limits:
        """The three limits at one batch size, with a sentence that compares them."""
        return self.landscape(momentum).limits(batch_size)

    def landscape(self, momentum: float | None = None) -> Landscape:
        """What limits a step, by the formulas of the optimizer; momentum as in `stable_lr`."""
        own, rule, m = self.optimizer, "sgd", 0.0
        if own is not None and self.metric == "optimizer":
            rule, m = own.kind, own.momentum
        elif own is not None and own.nesterov:
            rule = "nesterov"
        return Landscape(
            sharpness=self.sharpness,
            curvature_noise_scale=self.curvature_noise_scale,
            noise_scale=self.noise_scale,
            grad_sq_norm=self.grad_sq_norm,
            grad_curvature=self.grad_curvature,
            trace_hessian_cov=self.trace_hessian_cov,
            population=self.population,
            spread=self.curvature_spread,
            optimizer=rule,
            momentum=m if momentum is None else momentum,
            loss=self.estimates.get("loss"),
            trace_cov=self.estimates.get("trace_cov"),
        )

    def regime(self, batch_size: float) -> str:
        """ "noise-dominated", "curvature-dominated" or "unresolved"; see `gn.regime`."""
        return regime(capped(batch_size, self.population), self.noise_scale)

    def recommend(self) -> Recommendation:
        """Batch size and learning rate with reasons, for the optimizer in use.

        What short training has tried, where it did (`Profile.with_advice`); else what follows
        from this one point, see `snapshot`.
        """
        return self.advised or self.snapshot()

    def snapshot(self) -> Recommendation:
        """What follows from this one point of training: a start for trials.

        No rate is given where the numbers are not those of the optimizer in use, or its second
        moments have not settled.
        """
        reason = nothing_follows(self)
        if reason:
            return Recommendation(None, None, (reason,), "none")
        simple, setting = self.estimates.get("simple_noise_scale"), self.setting
        if has_curvature(self):
            found = recommend(self.landscape(setting.momentum), setting, simple)
        else:
            found = without_curvature(simple, self.population)
        if self.labels_per_sample is None or found.critical is None:
            return found
        said = _in_labels(self.labels_per_sample, found)
        return replace(found, reasons=(*found.reasons, said))

    @property
    def setting(self) -> Setting:
        """How the model is trained now: learning rate and momentum only where limits are its."""
        own, size = self.optimizer, self.batch_size and capped(self.batch_size, self.population)
        if own is None:
            return Setting(size)
        if other_optimizer(self):
            return Setting(size, no_rate=_not_of(own))
        rescales = None if own.is_plain else own.name
        return Setting(size, own.lr, own.momentum, own.kind, rescales)

    def _measured(self, name: str) -> Estimate:
        try:
            return self.estimates[name]
        except KeyError:
            reasons = [text for text in self.warnings if "not measured" in text]
            raise NotMeasuredError(
                f"`{name}` was not measured. {' '.join(reasons)}".strip()
            ) from None


def _in_labels(each: float, found: Recommendation) -> str:
    """A recommendation in labels, for those who count tokens or pixels."""
    assert found.critical is not None
    low, high = (short(each * end) for end in found.critical)
    return (
        f"In labels (tokens, pixels; {short(each)} per sample): the critical batch size is about "
        f"{low} to {high}, and a batch of {found.batch_size} samples has "
        f"{short(each * (found.batch_size or 0))}."
    )


def other_optimizer(results: Results) -> str | None:
    """The name of the optimizer in use where learning rates here are those of plain SGD instead."""
    own = results.optimizer
    return None if own is None or own.is_plain or results.metric == "optimizer" else own.name


def has_curvature(results: Results) -> bool:
    """Whether curvature was measured."""
    return "noise_scale" in results.estimates


def why_no_curvature(results: Results) -> str:
    """What the notes say about it."""
    return " ".join(n for n in results.warnings if "not measured" in n) or NO_CURVATURE


def is_unsettled(results: Results) -> bool:
    """Whether its metric is that of an optimizer in its first steps."""
    own = results.optimizer
    return results.metric == "optimizer" and own is not None and not own.is_settled


def nothing_follows(results: Results) -> str:
    """Why neither batch size nor learning rate can be given, or an empty text."""
    own = results.optimizer
    parts = [results.estimates.get(name) for name in ("trace_cov", "grad_sq_norm")]
    if all(part is not None and float(part) == 0 for part in parts):
        return NO_GRADIENT
    if own is not None and is_unsettled(results):
        return (
            f"{own.name} has taken {own.steps} steps: its second moments have not settled, so no "
            f"batch size or learning rate can be given. Limits can be wrong by orders of magnitude "
            f"here. Measure again after about {own.settled_after} steps."
        )
    return ""


def _not_of(own: OptimizerSettings) -> str:
    """Whose numbers these are, where they are not those of the optimizer in use."""
    name = own.name
    here = f"No learning rate is given: these numbers are for plain SGD, not for {name}."
    if own.family in OWN_METRIC or own.kind in ("adam", "nadam"):
        return (
            f'{here} For those of {name}, measure with metric="optimizer" (command line: --metric '
            f"optimizer) after {name} has taken about {own.settled_after or 1000} steps."
        )
    return (
        f"{here} Only {', '.join(OWN_METRIC)} can be measured in their own metric; `gn.branch` and "
        f"`gn.advise` find the rate of any optimizer by training."
    )
