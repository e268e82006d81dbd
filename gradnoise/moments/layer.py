"""Moments of parts of a model: its modules, or the parameter groups of an optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..statistics.estimate import Estimate

UNGROUPED = "no group"  # parameters that an optimizer does not hold


@dataclass(frozen=True)
class Layer:
    """The parameters that one module holds itself, or one parameter group.

    Sums over the layers of |G|², trΣ and of each share are those of the whole model; B_simple of
    the whole is the ratio of the sums, not a mean over the layers.

    Args:
        name: of the module, "" for the root; or of the group.
        size: number of trainable parameters.
        grad_sq_norm, trace_cov: |G|² and trΣ restricted to the layer.
        simple_noise_scale: their ratio trΣ/|G|².
        noise_share: the layer's part of the whole model's trΣ.
        sharpness_share: ‖v_l‖² = v_lᵀ(Hv)_l/λ, the layer's part of the sharpest direction v and of
            the curvature λ along it; None where curvature was not measured.
        curvature_share: ḡ_lᵀ(Hḡ)_l of ḡᵀHḡ, the layer's part of GᵀHG.
        curvature_noise_share: tr((HΣ)_ll), its part of tr(HΣ).
        limits_lr: whether it holds more of the sharpest direction than any other layer: a learning
            rate beyond 2/λ is unstable there. False where split halves of the samples disagree.
        parameters: their names.

    The last two shares include the curvature between the layer and all others, so they can be
    negative.
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
