"""Moments of parts of a model: its modules, or the parameter groups of an optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..statistics.estimate import Estimate

UNGROUPED = "no group"  # parameters that an optimizer does not hold


@dataclass(frozen=True)
class Layer:
    """The parameters of one module, without its children's; or one parameter group.

    |G|², trΣ and every share add up over the layers to those of the whole model. B_simple does not:
    that of the whole is the ratio of the sums, ΣtrΣ_l/Σ|G_l|². A subscript l means the entries of
    the layer's parameters. Shares have no unit and sum to 1.

    Args:
        name: of the module, "" for the root; or of the group.
        size: number of trainable parameters.
        grad_sq_norm, trace_cov: |G_l|² and trΣ_ll, in loss²/parameter².
        simple_noise_scale: trΣ_ll/|G_l|², in samples.
        noise_share: trΣ_ll/trΣ.
        sharpness_share: ‖v_l‖² = v_lᵀ(Hv)_l/λ of the sharpest direction v, the top eigenvector of
            H; None where curvature was not measured.
        curvature_share: G_lᵀ(HG)_l/GᵀHG.
        curvature_noise_share: tr((HΣ)_ll)/tr(HΣ).
        limits_lr: whether its share of the sharpest direction is the largest: the instability
            beyond 2/λ is along that direction. False for every layer where the two halves of the
            samples disagree about it.
        parameters: names of the parameters.

    The last two shares include the curvature between the layer and all others, so they can be
    negative: noise in one layer can lower the loss through another one.

    Example:
        >>> import torch, gradnoise as gn
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        >>> data = torch.randn(32, 3), torch.randn(32, 1)
        >>> layers = gn.profile(model, nn.MSELoss(), data).layers
        >>> list(layers), round(sum(layer.noise_share for layer in layers.values()), 6)
        (['0', '2'], 1.0)
    """

    name: str
    size: int
    grad_sq_norm: Estimate
    trace_cov: Estimate
    simple_noise_scale: Estimate
    noise_share: float
    sharpness_share: Estimate | None = None
    curvature_share: Estimate | None = None
    curvature_noise_share: Estimate | None = None
    limits_lr: bool = False
    parameters: tuple[str, ...] = ()


def by_module(names: Iterable[str]) -> dict[str, list[str]]:
    """Names of parameters by the module that holds them."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition(".")[0], []).append(name)
    return groups


def by_group(
    parameters: Mapping[str, object], groups: Iterable[Iterable[object]]
) -> dict[str, list[str]]:
    """Names of parameters by "group 0", "group 1", ...; those of no group are "no group".

    Args:
        parameters: by name, those that are measured.
        groups: the same objects, group by group; other objects among them are ignored.
    """
    names = {id(parameter): name for name, parameter in parameters.items()}
    found = {
        f"group {i}": [names.pop(id(p)) for p in group if id(p) in names]
        for i, group in enumerate(groups)
    }
    return {**found, UNGROUPED: list(names.values())}
