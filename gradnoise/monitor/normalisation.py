"""Which parameters are those of normalisation layers."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

NONE = "the model has no trainable layer, group or RMS normalisations"
KINDS = ("LayerNorm", "RMSNorm", "GroupNorm", "InstanceNorm")  # of torch and of other packages


def norm_parameters(model: nn.Module, parameters: Collection[str]) -> list[str]:
    """Names of the trainable parameters of layer, group and root-mean-square normalisations.

    They are known by the names of their classes, such as LlamaRMSNorm. Batch normalisation is not
    among them: its samples depend on each other.
    """
    found = [
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if any(kind in type(module).__name__ for kind in KINDS)
        for name, _ in module.named_parameters(recurse=False)
    ]
    return [name for name in found if name in parameters]
