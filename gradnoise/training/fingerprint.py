"""Are two sweeps the same: data, model and settings, and the values of loss and metrics."""

from __future__ import annotations

import functools
import hashlib
import math

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..problem.objective import Objective
from ..problem.state.guard import seed_everything
from ..tensors.trees import flatten, sample_leaves, select
from .plan import Plan, mean_over

FEW = 16  # samples whose gradient is taken
FACTORS = 1024  # places at which a schedule is read


def fingerprint(plan: Plan, model: nn.Module) -> str:
    """A digest of the data, a fresh model and the settings, not of the grid."""
    digest = hashlib.sha256()
    data = [leaf for batch in (plan.train, plan.test) if batch is not None
            for leaf in sample_leaves(batch)]  # fmt: skip
    for tensor in (*data, *model.parameters(), *model.buffers()):
        digest.update(repr((tensor.dtype, tensor.shape, tensor.requires_grad)).encode())
        digest.update(_bytes(tensor))
    modes = [module.training for module in model.modules()]
    digest.update(repr((model, modes)).encode())
    factors = [plan.factor(step, FACTORS) for step in range(FACTORS)]
    if plan.start is not None:
        digest.update(repr((plan.start.digest(), plan.max_grad_norm)).encode())
    names = plan.optimizer, plan.momentum, plan.weight_decay, plan.tolerates_spikes, factors
    digest.update(repr((names, sorted(plan.metrics))).encode())
    return digest.hexdigest()[:16]


def start_values(plan: Plan, model: nn.Module) -> dict[str, float]:
    """Values of the loss and the metrics for a fresh model of seed 0, whose weights are changed.

    Functions cannot be compared, their values can. At the start: the loss of all samples and the
    metrics. At a distance of 1 from it: loss and gradient of a few samples, because a penalty does
    not show where all weights are zero, and some losses differ in their gradient alone.

    Another machine adds in another order, so these are to be compared with a tolerance.

    Raises:
        ModelError: no parameter takes part in the loss.
    """
    objective = Objective(model, plan.loss_fn)
    samples, test = plan.on(objective.device)
    found = {"loss": plan.start_loss(0, model)}
    seed_everything(0)
    for name, metric in plan.metrics.items():
        found[f"metric {name!r}"] = mean_over(functools.partial(metric, model), test)
    with torch.no_grad():
        for parameter in objective.parameters.values():
            parameter += objective.size**-0.5
    loss = plan.bound(model)(select(samples, slice(0, FEW))).mean()
    if not _depends(loss, list(objective.parameters.values())):
        raise ModelError(
            "the loss does not depend on the model that is trained: runs train copies or fresh "
            "models, and `loss_fn` must use the model that it is given, without detach() or "
            "torch.no_grad()"
        )
    gradient = flatten(objective.differentiate(loss))
    found["loss nearby"] = _finite(float(loss.detach()))
    found["gradient nearby"] = _finite(float(gradient.norm()))
    return found


def _depends(loss: Tensor, parameters: list[Tensor]) -> bool:
    """Whether any of them takes part in the loss; its graph is kept."""
    if not loss.requires_grad:
        return False
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return any(gradient is not None for gradient in found)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _bytes(tensor: Tensor) -> bytes:
    whole = tensor.detach().cpu().contiguous()
    return whole.reshape(-1).view(torch.uint8).numpy().tobytes() if whole.numel() else b""
