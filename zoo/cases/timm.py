"""timm: image classifiers in train mode, with batch normalisation, dropout and stochastic depth."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..case import Case, images

CLASSES = 5
DROP = {"drop_rate": 0.1, "drop_path_rate": 0.1}
COUPLED = {"unit": "group"}
SMALL_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def _case(name: str, kwargs: dict[str, Any], **more: Any) -> Case:
    def build() -> nn.Module:
        model: nn.Module = timm.create_model(
            name, pretrained=False, num_classes=CLASSES, **kwargs
        )
        return model.double().train()

    shown = name + (" with dropout and stochastic depth" if more.get("random") else "")
    data = more.pop("data", images)
    return Case(shown, build, nn.CrossEntropyLoss(), cross_entropy, data, **more)


def soft(source: torch.Generator) -> Any:
    """Images and mixtures of two classes, as mixup makes them."""
    loaded = images(source)
    x, y = loaded.dataset.tensors
    one = F.one_hot(y, CLASSES).double()
    return (x, 0.7 * one + 0.3 * one.flip(0))


NARROW = {"layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8]}

CASES = [
    _case("resnet18", {**NARROW, "stem_width": 4}, **COUPLED),
    _case("resnext50_32x4d", {**NARROW, "cardinality": 2, "base_width": 16}, **COUPLED),
    _case("seresnet18", {**NARROW, **DROP}, **COUPLED, random=True),
    _case("test_efficientnet", DROP, **COUPLED, random=True),
    _case("test_byobnet", {}, **COUPLED),
    _case("densenet121", {"growth_rate": 4, "block_config": (1, 1, 1), "num_init_features": 8}, **COUPLED),
    _case("vit_tiny_patch16_224", {**SMALL_VIT, "drop_path_rate": 0.1, "proj_drop_rate": 0.1}, random=True),
    _case("deit_tiny_distilled_patch16_224", SMALL_VIT, data=soft),
    _case("swin_tiny_patch4_window7_224", {"img_size": 32, "window_size": 4, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), **DROP}, random=True),
    _case("convnext_atto", {"depths": (1, 1), "dims": (8, 16), "drop_path_rate": 0.2}, random=True),
    _case("mixer_s32_224", {"img_size": 32, "patch_size": 8, "embed_dim": 16, "num_blocks": 2, "drop_path_rate": 0.1}, random=True),
    _case("convmixer_768_32", {"dim": 8, "depth": 2, "patch_size": 4, "kernel_size": 3}, **COUPLED),
    _case("levit_128s", {"img_size": 64, "embed_dim": (16, 24, 32), "num_heads": (2, 2, 2), "depth": (1, 1, 1), "key_dim": 8}, **COUPLED, data=lambda s: images(s, 64)),
    _case("pvt_v2_b0", {"depths": (1, 1, 1, 1), "embed_dims": (8, 8, 16, 16), "drop_path_rate": 0.1}, random=True),
    _case("xcit_nano_12_p16_224", {"img_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2}, **COUPLED),
    _case("test_nfnet", {}),
    _case("cait_xxs24_224", {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2, "drop_path_rate": 0.1}, random=True),
    _case("eva02_tiny_patch14_224", {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2, "drop_path_rate": 0.1}, random=True),
    _case("mobilenetv3_small_050", {"channel_multiplier": 0.1}, **COUPLED),
    _case("ghostnet_050", {"width": 0.1}, **COUPLED),
]
