"""`gn.NoiseMonitor`: the noise scale of a run, from the gradients that training computes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist

from ..errors import ArgumentError, check_whole, said
from ..estimators.from_arrays.result import SimpleNoiseScale
from ..history.critical import CriticalBatch
from ..moments.layer import by_module
from ..problem.losses.loss_fn import LossFn
from ..problem.optimizer_settings import read_optimizer
from ..problem.state.wrappers import bare_model, bare_optimizer
from ..statistics.estimate import Estimate, check_level
from .alarm import Alarm
from .averages import Averages
from .curvature import Curvature
from .normalisation import NONE
from .parts import PartNorms, Size
from .ranks import world_size
from .reading import ONE_PART, Reading
from .samples import SampleNorms, SamplePlans
from .sink import JsonLines, Sink, as_sink
from .step import IDLE, Listener, MeasuredStep
from .values import line_of, numbers_of, place_of
from .watched import Watched

AUTO, GIVEN, RANKS, MICRO_BATCHES, NORM_LAYERS, SAMPLES = SOURCES = (
    *("auto", "given", "ranks", "micro_batches", "norm_layers", "samples"),
)
ENOUGH = 30  # measurements before a sum below zero is said to be one
SURELY = 1 - 1e-6  # level of that: it is looked at after every measurement of a run
NEGATIVE = (
    "|G|² is far below zero, which independent draws do not give: B_simple is not to be used. "
    "Reasons are several backward passes of different losses in one step, class-balanced or sorted "
    "batches, mixup, losses that compare samples, one batch over and over, and epochs over a small "
    "data set whose gradient is nearly zero"
)
FAR = 5  # the alarm about the batch size: B beyond so many times B_simple


class NoiseMonitor:
    """B_simple = trΣ/|G|² while a model trains, from the gradients of its own training steps.

    Put `with monitor.step(batch_size):` around the forward and backward passes of an optimizer
    step. Every `every`-th step is measured; on the others nothing is done. `print(monitor)` says
    what was found.

    **What a step says.** Its gradient ḡ is the sum of contributions c_j of parts with b_j samples
    and the share w_j of the objective. Σ‖c_j‖² and ‖ḡ‖² together give unbiased trΣ and |G|². The
    parts come from the `source`:

    - "ranks": the gradients of several ranks before they are averaged (`group`);
    - "micro_batches": those of an accumulation;
    - "samples": single samples, by hooks in the user's own forward and backward passes. Where the
      samples are in every operation is found once, on seven samples of the first measured step; the
      sum of their gradients is compared with `.grad`. Losses of samples have to be independent;
    - "norm_layers": the same for the parameters of normalisation layers alone, a proxy: the noise
      scale of these parameters, which goes with that of the model (arXiv:2411.00999);
    - "given": squared norms that the loop has anyway, by `update`.

    **What is reported** is the ratio of two averages, over the measured steps, of trΣ and of |G|²,
    each weighted by `decay`^age; never an average of ratios. The interval is Fieller's, from the
    spread of the steps. It is about the average over these steps: where the noise scale changes
    along the run, the average is 1/(1 - decay) measurements behind.

    Args:
        model: the object that is called in training: the model, or its wrapper.
        optimizer: torch optimizer; its learning rate is written to the sink.
        every: a step is measured where `every` divides the number of steps before it.
        source: one of the above, or "auto": ranks, else micro-batches, else samples.
        group: torch.distributed process group of the ranks that average their gradients.
        sink: where the values of every measured step go: the path of a JSON-lines file, which is
            appended to; a TensorBoard SummaryWriter; or a function of a dict.
        level: coverage of the intervals.
        decay: weight of a measurement relative to the next one.
        layers: whether every module has its own averages (`layer_noise_scales`).
        max_samples: samples of a forward pass whose own gradients are taken, by "samples" and
            "norm_layers"; None for all. Others are taken at every measured step; the data have to
            be in random order. The gradient ḡ is that of all samples in any case.
        loss_fn, data: where both are given, λ is followed on 64 samples of the data, as by
            `SharpnessTracker`, in the metric of an adaptive optimizer. With `step.loss` the
            critical batch size follows.
        sharpness_every: λ is measured at every so many measurements of the noise.

    Attributes:
        steps, measured, skipped: numbers of optimizer steps; of those that were measured; of those
            that were to be measured and gave nothing.
        notes: why steps gave nothing, and what is doubtful, each reason once; it is warned of,
            except gradients that are not finite.

    Raises:
        ArgumentError: an option that is not one of those above; no trainable parameters; ranks
            without a group of several; no normalisation layers.

    Source: McCandlish et al. 2018 (arXiv:1812.06162), App. A.1; docs/monitor.md.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> monitor = NoiseMonitor(model, every=1)
        >>> for _ in range(3):
        ...     model.zero_grad()
        ...     with monitor.step(batch_size=8):
        ...         for _ in range(2):  # two micro-batches
        ...             (model(torch.randn(4, 2)).square().mean() / 2).backward()
        >>> monitor.source, monitor.measured
        ('micro_batches', 3)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        every: int = 50,
        source: str = AUTO,
        group: Any = None,
        sink: Any = None,
        level: float = 0.95,
        decay: float = 0.95,
        layers: bool = False,
        max_samples: int | None = 8,
        loss_fn: LossFn | nn.Module | None = None,
        data: Any = None,
        sharpness_every: int = 10,
    ) -> None:
        check_whole("every", every, 1)
        if max_samples is not None:
            check_whole("max_samples", max_samples, 1)
        check_whole("sharpness_every", sharpness_every, 1)
        check_level(level)
        _check_source(source, group)
        read_optimizer(optimizer)  # refuses what is none
        if (loss_fn is None) != (data is None):
            raise ArgumentError("λ is followed with `loss_fn` and `data`; give both, or neither")
        self.optimizer, self.group = optimizer, group
        self.every, self.source, self.level, self.layers = every, source, level, layers
        self.steps = self.measured = self.skipped = 0
        self.notes: list[str] = []
        own = bare_model(model)
        self._watched = Watched(model, source == NORM_LAYERS)
        if not self._watched.parameters:
            raise ArgumentError("`model` has no trainable parameters")
        self._plans = SamplePlans(max_samples)
        if not self._watched.names:
            raise ArgumentError(f"source='norm_layers' does not fit: {NONE}")
        self._layers = by_module(self._watched.names) if layers else {}
        self._averages = Averages(decay, len(self._layers) + 1)
        self._sinks: list[Sink] = [] if sink is None else [as_sink(sink)]
        self._due_now = self._is_detached = False
        self._alarm, self._critical = Alarm(), CriticalBatch()
        self._curvature: Curvature | None = None
        if loss_fn is not None:
            self._curvature = Curvature(own, loss_fn, data, sharpness_every)

    def step(
        self,
        batch_size: Size = None,
        *,
        loss_scale: Any = 1.0,
        shares: Sequence[float] | None = None,
    ) -> AbstractContextManager[Any]:
        """Around the forward and backward passes of one optimizer step.

        `with monitor.step() as step:` gives an object whose `loss` may be set, for the sink.

        Args:
            batch_size: B, the samples of this step on this rank, or a list with those of every
                micro-batch; None for the leading dimensions of the model's inputs. Single samples
                are counted by these in any case.
            loss_scale: what the loss was multiplied with before it was differentiated: a number, or
                a `torch.amp.GradScaler`.
            shares: of the micro-batches in the objective, Σ = 1; None for equal ones, as where each
                averages its samples and is divided by the number of micro-batches.
        """
        due = self._due_now or self.steps % self.every == 0
        self.steps += 1
        if not due or self._is_detached or self.source == GIVEN:
            return IDLE
        self._due_now = False
        return MeasuredStep(self, batch_size, loss_scale, shares)

    def update(
        self, small_sq_norm: Any, big_sq_norm: Any, small_batch: float, big_batch: float
    ) -> None:
        """Take squared gradient norms that the caller has: one measurement.

        Args:
            small_sq_norm: |g_b|², the mean of the squared norms at batch size b.
            big_sq_norm: |g_B|².
            small_batch, big_batch: b and B in samples, 0 < b < B.

        Raises:
            ArgumentError: batch sizes that are not in order, or a monitor with layers.
        """
        if not 0 < small_batch < big_batch < math.inf:
            raise ArgumentError(
                f"`small_batch` must be positive and below `big_batch`; got {small_batch} and "
                f"{big_batch}"
            )
        if self.layers:
            raise ArgumentError("norms of the whole model say nothing about its layers")
        share = small_batch / big_batch  # of that many equal parts
        small, big = (
            torch.as_tensor(x, dtype=torch.float64, device="cpu").reshape(1)
            for x in (small_sq_norm, big_sq_norm)
        )
        self.source = GIVEN
        self.steps += 1
        self.record(Reading(small * share, big, share, 1 / big_batch, big_batch))

    def follow(self, model: nn.Module, group: Any = None) -> None:
        """Measure the same model in another wrapper from now on, such as DistributedDataParallel.

        Args:
            model: the object that is called.
            group: of the ranks that average their gradients.

        Raises:
            ArgumentError: it has other trainable parameters.
        """
        watched = Watched(model, self._watched.of_norms)
        if list(watched.parameters) != list(self._watched.parameters):
            raise ArgumentError(
                "`model` must be the monitored model, or a wrapper of it; it has other trainable "
                "parameters"
            )
        self.group, self._watched = group, watched
        self._plans.forget()

    def listener(self) -> Listener:
        """What listens to one step."""
        if self._watched.refresh():
            self._plans.forget()
            self._plans.is_proven = False
            if self._curvature is not None:
                self._curvature.forget()
        self._plans.turn(self.measured)
        if self.source in (SAMPLES, NORM_LAYERS):
            return SampleNorms(self._watched, self._plans, self.group, self.measured)
        return PartNorms(self._watched.model, self._watched.parameters, self.group)

    def record(self, reading: Reading, loss_scale: float = 1.0, loss: Any = None) -> None:
        """Average one reading, and tell the sink; one that is not finite is skipped and counted."""
        told = self._told(loss)
        values = self._by_layer(reading.moments()) / loss_scale**2
        if not np.isfinite(values).all():
            self.skip("a gradient was not finite", silent=True)
            return
        if self.source == AUTO:
            self.source = RANKS if world_size(self.group) > 1 else MICRO_BATCHES
        self._averages.add(values, reading.samples)
        self.measured += 1
        own = self._averages
        if self.measured >= ENOUGH and own.is_surely_positive(0.0, -1.0, SURELY):
            self._note(NEGATIVE)
        lr, curvature = self._learning_rate(), self._sharpness_now()
        limit = curvature.get("stable_lr", math.nan)
        is_above = own.is_surely_positive(-1.0, self.batch_size / FAR, self.level)
        if is_above and float(self.critical_batch_size) > self.batch_size:
            is_above = False  # what was nearer to training says the contrary
        self._alarm.turn(is_above, lr, limit, lambda: (self.noise_scale, self.batch_size))
        trace, signal = values[:, -1].tolist()
        if self.source != NORM_LAYERS:  # λ and the loss are of the whole model
            self._critical.add(self.steps, told, trace, signal)
        if "momentum" in curvature:
            known = (curvature[name] for name in ("sharpness", "momentum", "metric_factor"))
            self._critical.add_sharpness(self.steps, *known)
        if self._sinks:
            now = {
                **curvature,
                "trace_cov_now": trace,
                "grad_sq_norm_now": signal,
                "batch_size_now": reading.samples,
                "loss": None if loss is None else told,
                "lr": lr,
            }
            self._tell(line_of(self, now), self._sinks)

    def _told(self, loss: Any) -> float:
        """The loss that the loop gave; nan where it is none."""
        try:
            return math.nan if loss is None else _mean(loss)
        except Exception as error:
            self._note(f"`step.loss` is no number: {said(error)}")
            return math.nan

    def _learning_rate(self) -> float | None:
        group = bare_optimizer(self.optimizer).param_groups[0] if self.optimizer else {}
        return None if group.get("lr") is None else float(group["lr"])

    def _sharpness_now(self) -> dict[str, float]:
        """λ and what goes with it, where it was measured now."""
        if self._curvature is None:
            return {}
        found = self._curvature.turn(self.optimizer)
        self._note(self._curvature.reason)
        return found

    def skip(self, reason: str, silent: bool = False) -> None:
        """Count a step that gave nothing, keep the reason, and warn once if it can be mended."""
        if self.source == AUTO and reason is ONE_PART:
            self.source, self._due_now = SAMPLES, True  # at the next step
            return
        self.skipped += 1
        self._note(reason, silent)

    def _note(self, reason: str, silent: bool = False) -> None:
        if not reason or reason in self.notes:
            return
        self.notes.append(reason)
        files = [sink for sink in self._sinks if isinstance(sink, JsonLines)]
        self._tell({**place_of(self), "note": reason}, files)  # loggers take numbers
        if silent:
            return
        with suppress(Warning):  # where warnings are errors
            warnings.warn(f"gradnoise, step {self.steps}: {reason}", stacklevel=4)

    def _tell(self, line: dict[str, Any], sinks: Sequence[Sink]) -> None:
        """Give a line to sinks; one that fails, as on a full disk, does not end the training."""
        for sink in sinks:
            try:
                sink(line)
            except Exception as error:
                self._note(f"a sink failed: {said(error)}")

    def _by_layer(self, moments: tuple[Tensor, Tensor]) -> np.ndarray:
        """Sums over the parameters of each module, and over all as the last one: (2, parts)."""
        values = torch.stack(moments).numpy()
        whole = values.sum(1, keepdims=True)
        if not self._layers:
            return whole  # type: ignore[no-any-return]
        index = {name: i for i, name in enumerate(self._watched.names)}
        own = [[index[n] for n in names if n in index] for names in self._layers.values()]
        return np.concatenate([*(values[:, [k]].sum(2) for k in own), whole], 1)

    @property
    def model(self) -> nn.Module:
        """The object that is called."""
        return self._watched.model

    @property
    def noise_scale(self) -> SimpleNoiseScale:
        """B_simple = trΣ/|G|² in samples, with its parts as `.trace_cov` and `.grad_sq_norm`.

        `.samples` counts measured steps.
        """
        return self._averages.result(self.level)

    @property
    def trace_cov(self) -> Estimate:
        """trΣ in loss²/parameter², averaged over the measured steps."""
        return self.noise_scale.trace_cov

    @property
    def grad_sq_norm(self) -> Estimate:
        """|G|² in loss²/parameter², averaged over the measured steps."""
        return self.noise_scale.grad_sq_norm

    @property
    def batch_size(self) -> float:
        """B averaged over the measured steps, of all ranks together; nan before the first."""
        return self._averages.samples if self.measured else math.nan

    @property
    def sharpness(self) -> float:
        """λ in loss/parameter² as it was measured last; nan without `loss_fn` and `data`."""
        return math.nan if self._curvature is None else self._curvature.value

    @property
    def critical_batch_size(self) -> Estimate:
        """B_crit = ε_max·trΣ/D in samples, of a run from its beginning to here; see `gn.pool`.

        Without a value before there are five losses or six (`step.loss`) and one λ (`loss_fn` and
        `data`).
        """
        return self._critical.result(self.level)

    @property
    def layer_noise_scales(self) -> dict[str, SimpleNoiseScale]:
        """B_simple of every module with parameters of its own, by name; empty without `layers`."""
        return {
            name: self._averages.result(self.level, part) for part, name in enumerate(self._layers)
        }

    def values(self) -> dict[str, float]:
        """The numbers for a logger, by the keys of docs/monitor.md; nan where there is none."""
        return numbers_of(self)

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` goes on from, as built-in values."""
        return {
            "steps": self.steps,
            "measured": self.measured,
            "skipped": self.skipped,
            "source": self.source,
            "due_now": self._due_now,
            "proven": self._plans.is_proven,
            "layers": list(self._layers),
            "averages": self._averages.state_dict(),
            "critical": self._critical.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another monitor of the same model was.

        Raises:
            ArgumentError: it had other layers.
        """
        if list(state["layers"]) != list(self._layers):
            raise ArgumentError(
                "the state is of a monitor with other layers: use the same model, source and "
                "`layers`"
            )
        self.steps, self.measured = int(state["steps"]), int(state["measured"])
        self.skipped, self.source = int(state["skipped"]), str(state["source"])
        self._due_now = bool(state["due_now"])
        self._plans.is_proven = bool(state.get("proven", False))  # which samples come next
        self._averages.load_state_dict(state["averages"])
        if "critical" in state:
            self._critical.load_state_dict(state["critical"])

    def detach(self) -> None:
        """Measure nothing from now on. What was found stays."""
        self._is_detached = True

    def __str__(self) -> str:
        counted = f"{self.measured} of {self.steps} steps measured"
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        first = f"B_simple = {self.noise_scale} samples, by {self.source}, {counted}{skipped}"
        return "\n".join([first, *self.notes])


def _mean(loss: Any) -> float:
    return float(torch.as_tensor(loss).detach().cpu().double().mean())


def _check_source(source: str, group: Any) -> None:
    if group is not None and not isinstance(group, dist.ProcessGroup):
        raise ArgumentError(
            f"`group` must be a torch.distributed process group; got {type(group).__name__}"
        )
    if source not in SOURCES:
        raise ArgumentError(f"`source` must be one of {', '.join(SOURCES)}; got {source!r}")
    if source == RANKS and world_size(group) == 1:
        raise ArgumentError(
            "source='ranks' needs the process group of several ranks as `group`, such as "
            "torch.distributed.group.WORLD"
        )
