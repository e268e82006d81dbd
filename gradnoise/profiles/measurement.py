"""`gn.measure`: a model opened once, measured in several ways that share their passes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn

from ..estimators.covariance.covariance import find_covariance
from ..estimators.curvature.sharpness import find_sharpness
from ..estimators.diagnostics.diagnostics import find_diagnostics
from ..estimators.noise.noise_scale import ACCURACY, PROBES, find_noise_scale
from ..linalg.operator import MEMORY_BUDGET
from ..measurement.opened import Kept, Opened
from ..problem.losses.loss_fn import LossFn
from ..problem.options import Options
from ..problem.samples import MICRO_BATCH
from ..tensors.fingerprint import fingerprint
from .cost import Meter
from .curvature import Effort
from .profile import Profile, find_profile


class Measurement(Opened):
    """One model on fixed samples; what `gn.measure` returns.

    Every method returns what the function of the same name returns (formulas, units and sources are
    there), to the last digit, with the options that `gn.measure` was called with: `moments` (as
    `gn.gradient_moments`), `noise_scale`, `sharpness`, `covariance`, `diagnostics`, `profile`. The
    samples are drawn once, the engine is chosen once, the moments are measured once, and graphs for
    Hessian products stay in memory.

    When the values of parameters or buffers have changed, or in metric="optimizer" the state of the
    optimizer, everything except the choice of samples and their weights is computed again. Other
    parameters, or another mode (train, eval), raise ModelError.

    Example:
        >>> data = (torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.ones(2, 1))
        >>> model = nn.Linear(2, 1, bias=False)
        >>> m = measure(model, nn.MSELoss(), data)
        >>> before = m.moments()
        >>> _ = nn.init.zeros_(model.weight)
        >>> m.moments() is before, float(m.moments().loss)  # at w = 0 every loss is 1
        (False, 1.0)
    """

    _point: tuple[Hashable, int] = None, -1  # where the model stood, and in which guard

    noise_scale = find_noise_scale
    sharpness = find_sharpness
    covariance = find_covariance
    diagnostics = find_diagnostics

    def profile(
        self,
        *,
        batch_size: int | None = None,
        probes: int = PROBES,
        accuracy: float = ACCURACY,
        tol: float | None = None,
        memory_budget: int = MEMORY_BUDGET,
        spectra: bool = False,
        progress: bool = False,
    ) -> Profile:
        """All measurements of a report; see `gn.profile`. Its samples are those of `gn.measure`."""
        effort = Effort(probes, accuracy, tol, memory_budget, spectra)
        meter = Meter(self._problem.objective.work)
        return find_profile(self, effort, meter, batch_size=batch_size, progress=progress)

    def keep(self, key: Hashable, compute: Callable[[], Kept]) -> Kept:
        """The result of `compute`, computed once while nothing that it depends on changes."""
        (point, entered), plain = self._point, self._problem.objective.plain  # has the guard
        if not (plain.is_guarded and plain.entered == entered):  # compared once per guard
            now = self._now()
            if any(plain.ranks.gathered(now != point, "whether the model has changed")):
                self._kept = {}
            self._point = now, plain.entered
        return super().keep(key, compute)

    def _now(self) -> Hashable:
        """What changes with the values that results depend on."""
        optimizer, own = self.options.optimizer, self._problem.objective.fingerprint()
        if optimizer is None or not self.options.own_metric:
            return own
        return own, _fingerprint(optimizer)


def _fingerprint(optimizer: torch.optim.Optimizer) -> Hashable:
    """What changes with the state or the settings of an optimizer."""
    state = [value for own in optimizer.state.values() for value in own.values()]
    settings = [v for group in optimizer.param_groups for k, v in group.items() if k != "params"]
    return tuple(fingerprint(v) if isinstance(v, Tensor) else repr(v) for v in state + settings)


def measure(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    metric: str = "auto",
    engine: str = "auto",
    population: str | int = "dataset",
    max_samples: int | None = 4096,
    level: float = 0.95,
    seed: int = 0,
    micro_batch: int = MICRO_BATCH,
    unit: str = "auto",
    group_size: int | None = None,
    process_group: Any = None,
) -> Measurement:
    """Open a model once for several measurements that share their passes over the samples.

    Args:
        model, loss_fn, data, optimizer, metric, engine, population, max_samples, level, seed,
            micro_batch, unit, group_size, process_group: as for `gn.gradient_moments`.

    Returns:
        Measurement.

    Raises:
        GradNoiseError: see `gn.gradient_moments`.

    Example:
        >>> data = (torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.ones(2, 1))
        >>> m = measure(nn.Linear(2, 1, bias=False), nn.MSELoss(), data)
        >>> m.sharpness().values  # H = 2 XᵀX/n = diag(1, 4)
        tensor([4.0...], dtype=torch.float64)
        >>> m.moments() is m.moments()  # measured once
        True
    """
    options = Options(
        optimizer=optimizer, metric=metric, engine=engine, population=population,
        max_samples=max_samples, level=level, seed=seed, micro_batch=micro_batch,
        unit=unit, group_size=group_size, process_group=process_group,
    )  # fmt: skip
    return Measurement.open(model, loss_fn, data, options)
