"""Spectral norm in train mode: each forward pass takes a step of the power iteration for σ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.utils.spectral_norm import SpectralNorm

PARAMETRIZATION = "_SpectralNorm"  # of torch.nn.utils.parametrizations, as a module of its own


@contextmanager
def held_still(modules: Iterable[nn.Module]) -> Iterator[None]:
    """σ keeps its vectors: otherwise the loss is another one in every forward pass.

    Only these layers are in eval mode meanwhile, which changes nothing else in them.
    """
    found = [module for module in modules if module.training and _iterates(module)]
    for module in found:
        module.training = False
    try:
        yield
    finally:
        for module in found:
            module.training = True


def _iterates(module: nn.Module) -> bool:
    hooks = module._forward_pre_hooks.values()  # where the older spectral norm is
    return type(module).__name__ == PARAMETRIZATION or any(
        isinstance(hook, SpectralNorm) for hook in hooks
    )
