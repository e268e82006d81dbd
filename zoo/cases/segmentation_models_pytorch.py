"""segmentation_models_pytorch: segmentation with batch normalisation and losses over a batch."""

from __future__ import annotations

from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..case import Case, loader

FEW, SIZE = 16, 32
COUPLED = {"unit": "group"}


def masks(source: torch.Generator) -> Any:
    x = torch.randn(FEW, 3, SIZE, SIZE, generator=source, dtype=torch.float64)
    return loader(x, torch.randint(3, (FEW, SIZE, SIZE), generator=source))


def pixels(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none").mean((1, 2))


DICE = smp.losses.DiceLoss("multiclass")


def dice(model: nn.Module, batch: Any) -> Tensor:
    """Of all pixels of a batch together: one number."""
    return DICE(model(batch[0]), batch[1])  # type: ignore[no-any-return]


def _narrow(model: Any) -> nn.Module:
    return model.double().train()  # type: ignore[no-any-return]


ENCODER = {"encoder_name": "timm-mobilenetv3_small_minimal_100", "encoder_weights": None}
CE = nn.CrossEntropyLoss()

CASES = [
    Case(
        "U-Net, cross-entropy",
        lambda: _narrow(
            smp.Unet(**ENCODER, encoder_depth=3, decoder_channels=(8, 8, 8), classes=3)
        ),
        CE,
        pixels,
        masks,
        **COUPLED,
    ),
    Case(
        "U-Net, Dice",
        lambda: _narrow(
            smp.Unet(**ENCODER, encoder_depth=3, decoder_channels=(8, 8, 8), classes=3)
        ),
        dice,
        dice,
        masks,
        **COUPLED,
    ),
    Case(
        "FPN with dropout",
        lambda: _narrow(
            smp.FPN(
                **ENCODER, decoder_pyramid_channels=8, decoder_segmentation_channels=32, classes=3
            )
        ),
        CE,
        pixels,
        masks,
        random=True,
        **COUPLED,
    ),
]
