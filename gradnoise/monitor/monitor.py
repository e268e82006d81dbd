"""`gn.NoiseMonitor`: the noise scale of a run, from the gradients that training computes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from ..errors import ArgumentError, check_whole
from ..estimators.from_arrays.result import SimpleNoiseScale
from ..moments.layer import by_module
from ..problem.state.wrappers import bare_model
from ..statistics.estimate import Estimate, check_level
from .averages import Averages
from .parts import PartNorms
from .reading import Reading

SOURCES = ("auto", "given", "ranks", "micro_batches")
GIVEN = "given"


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
    - "given": squared norms that the loop has anyway, by `update`.

    **What is reported** is the ratio of two averages, over the measured steps, of trΣ and of |G|²,
    each weighted by `decay`^age; never an average of ratios. The interval is Fieller's, from the
    spread of the steps. It is about the average over these steps: where the noise scale changes
    along the run, the average is (1 + decay)/(1 - decay)/2 measurements old.

    Args:
        model: the model, or a wrapper (DistributedDataParallel): the object that is called.
        optimizer: torch optimizer; its learning rate is written to the sink.
        every: a step is measured where `every` divides the number of steps before it.
        source: one of the above, or "auto": ranks, else micro-batches.
        group: torch.distributed process group of the ranks that average their gradients.
        level: coverage of the intervals.
        decay: weight of a measurement relative to the next one.
        layers: whether every module has its own averages (`layer_noise_scales`).

    Attributes:
        steps, measured, skipped: numbers of optimizer steps; of those that were measured; of those
            that were to be measured and gave nothing.
        notes: what stopped a measurement, each reason once.

    Raises:
        ArgumentError: an option that is not one of those above.

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
        source: str = "auto",
        group: Any = None,
        level: float = 0.95,
        decay: float = 0.95,
        layers: bool = False,
    ) -> None:
        check_whole("every", every, 1)
        check_level(level)
        if source not in SOURCES:
            raise ArgumentError(f"`source` must be one of {', '.join(SOURCES)}; got {source!r}")
        self.model, self.optimizer, self.group = model, optimizer, group
        self.every, self.source, self.level, self.layers = every, source, level, layers
        self.steps = self.measured = self.skipped = 0
        self.notes: list[str] = []
        self._parameters = {
            n: p for n, p in bare_model(model).named_parameters() if p.requires_grad
        }
        if not self._parameters:
            raise ArgumentError("`model` has no trainable parameters")
        self._groups = by_module(self._parameters) if layers else {}
        self._averages = Averages(decay, len(self._groups) + 1)
        self._detached = False

    def step(
        self,
        batch_size: float | None = None,
        *,
        loss_scale: Any = 1.0,
        shares: Sequence[float] | None = None,
    ) -> AbstractContextManager[Any]:
        """Around the forward and backward passes of one optimizer step.

        Args:
            batch_size: B, the samples of this step on this rank; None for the sum of the leading
                dimensions of the model's inputs.
            loss_scale: what the loss was multiplied with before it was differentiated: a number, or
                a `torch.amp.GradScaler`.
            shares: of the micro-batches in the objective, Σ = 1; None for equal ones, as where each
                averages its samples and is divided by the number of micro-batches.
        """
        due = self.steps % self.every == 0
        self.steps += 1
        if not due or self._detached or self.source == GIVEN:
            return IDLE
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
        share = small_batch / big_batch  # that many equal parts
        parts, total = (
            torch.as_tensor(x, dtype=torch.float64).reshape(1).cpu()
            for x in (small_sq_norm, big_sq_norm)
        )
        self.source = GIVEN
        self.record(Reading(parts * share, total, share, 1 / big_batch, big_batch))

    def listeners(self) -> dict[str, PartNorms]:
        """What listens to a step, by the name of the source, the cheapest first."""
        world = 1 if self.group is None else dist.get_world_size(self.group)
        parts = "ranks" if world > 1 else "micro_batches"
        if self.source not in ("auto", parts):
            raise ArgumentError(
                f"source {self.source!r} needs a `group` of several ranks; there is one process"
            )
        return {parts: PartNorms(self.model, self._parameters, self.group)}

    def record(self, reading: Reading, loss_scale: float = 1.0, loss: Any = None) -> None:
        """Average one reading; one that is not finite is skipped and counted."""
        trace, signal = (moment / loss_scale**2 for moment in reading.moments())
        if not bool((trace + signal).isfinite().all()):
            self.skip("a gradient was not finite")
            return
        columns = [self._columns(values) for values in (trace, signal)]
        self._averages.add(*columns, reading.samples)
        self.measured += 1

    def skip(self, reason: str) -> None:
        """Count a step that gave nothing, and keep the reason."""
        self.skipped += 1
        if reason not in self.notes:
            self.notes.append(reason)

    def _columns(self, values: Tensor) -> Tensor:
        """Sums over the parameters of each module, and of all as the last one."""
        index = {name: i for i, name in enumerate(self._parameters)}
        own = [values[[index[n] for n in names]].sum() for names in self._groups.values()]
        return torch.stack([*own, values.sum()])

    @property
    def noise_scale(self) -> SimpleNoiseScale:
        """B_simple = trΣ/|G|² in samples, with its parts as `.trace_cov` and `.grad_sq_norm`."""
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
    def layer_noise_scales(self) -> dict[str, SimpleNoiseScale]:
        """B_simple of every module with parameters of its own, by name; empty without `layers`."""
        return {
            name: self._averages.result(self.level, part) for part, name in enumerate(self._groups)
        }

    def detach(self) -> None:
        """Measure nothing from now on. What was found stays."""
        self._detached = True

    def __str__(self) -> str:
        scale = self.noise_scale
        counted = f"{self.measured} of {self.steps} steps measured, {self.skipped} skipped"
        lines = [f"B_simple = {scale} samples ({self.source}; {counted})", *self.notes]
        return "\n".join(lines)


class MeasuredStep:
    """The context of a step that is measured.

    Attributes:
        loss: of the step, for the sink, where the loop sets it: a number, or a tensor.
        shares: as of `NoiseMonitor.step`, where the loop knows them only later.
    """

    def __init__(
        self,
        monitor: NoiseMonitor,
        batch_size: float | None,
        loss_scale: Any,
        shares: Sequence[float] | None,
    ) -> None:
        self.batch_size, self.shares, self.loss = batch_size, shares, None
        self._monitor, self._loss_scale = monitor, loss_scale

    def __enter__(self) -> MeasuredStep:
        self._listeners = self._monitor.listeners()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._take()
        finally:
            for listener in self._listeners.values():
                listener.remove()

    def _take(self) -> None:
        scale = getattr(self._loss_scale, "get_scale", lambda: self._loss_scale)()
        for source, listener in self._listeners.items():
            reading = listener.reading(self.batch_size, self.shares)
            if reading is not None:
                self._monitor.source = source
                self._monitor.record(reading, float(scale), self.loss)
                return
        self._monitor.skip("; ".join(listener.reason for listener in self._listeners.values()))


class _Idle:
    """The context of a step that is not measured; what is set on it is forgotten."""

    def __enter__(self) -> _Idle:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __setattr__(self, name: str, value: Any) -> None:
        pass


IDLE = _Idle()
