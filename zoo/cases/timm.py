"""timm: image classifiers in train mode, with batch normalisation, dropout and stochastic depth."""

from __future__ import annotations

import functools
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
    kind = more.pop("kind", functools.partial(timm.create_model, name))

    def build() -> nn.Module:
        model: nn.Module = kind(num_classes=CLASSES, **kwargs)
        return model.double().train()

    shown = name + (" with dropout and stochastic depth" if more.get("random") else "")
    data = more.pop("data", images)
    return Case(shown, build, nn.CrossEntropyLoss(), cross_entropy, data, **more)


def mobilenet(**kwargs: Any) -> nn.Module:
    """MobileNetV3 with a tenth of the channels."""
    make = timm.models.mobilenetv3._gen_mobilenet_v3
    return make("mobilenetv3_small_050", 0.1, **kwargs)  # type: ignore[no-any-return]


def repvgg(**kwargs: Any) -> nn.Module:
    """RepVGG with few channels: three branches, each with batch normalisation."""
    blocks = timm.models.byobnet.ByoBlockCfg
    config = timm.models.byobnet.ByoModelCfg(
        blocks=tuple(blocks(type="rep", d=1, c=c, s=2) for c in (4, 8)),
        stem_type="rep",
        stem_chs=4,
    )
    return timm.models.byobnet.ByobNet(config, **kwargs)  # type: ignore[no-any-return]


def soft(source: torch.Generator) -> Any:
    """Images and mixtures of two classes, as mixup makes them."""
    loaded = images(source)
    x, y = loaded.dataset.tensors
    one = F.one_hot(y, CLASSES).double()
    return (x, 0.7 * one + 0.3 * one.flip(0))


TINY_VIT = {"img_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2}
DENSE = {"growth_rate": 4, "block_config": (1, 1, 1)}
SWIN = {"img_size": 32, "window_size": 4, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2)}
MIXER = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "num_blocks": 2, "drop_path_rate": 0.1}
CONVMIXER = {"dim": 8, "depth": 2, "patch_size": 4, "kernel_size": 3}
LEVIT = {
    "img_size": 64,
    "embed_dim": (16, 24, 32),
    "num_heads": (2, 2, 2),
    "depth": (1, 1, 1),
    "key_dim": 8,
}
PVT = {
    "depths": (1, 1, 1, 1),
    "embed_dims": (8, 8, 16, 16),
    "num_heads": (1, 2, 2, 2),
    "drop_path_rate": 0.1,
}
CONVNEXT = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16), "drop_path_rate": 0.2}
EVA = {**SMALL_VIT, "embed_dim": 24}
NARROW = {"layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8]}

CASES = [
    _case("resnet18", {**NARROW, "stem_width": 4}, **COUPLED),
    _case("resnext50_32x4d", {**NARROW, "cardinality": 2, "base_width": 16}, **COUPLED),
    _case("seresnet18", {**NARROW, **DROP}, **COUPLED, random=True),
    _case("test_efficientnet", DROP, **COUPLED, random=True),
    _case("test_byobnet", {}, **COUPLED),
    _case("densenet121", DENSE, **COUPLED),
    _case("vit_tiny_patch16_224", {**SMALL_VIT, "proj_drop_rate": 0.1, **DROP}, random=True),
    _case("deit_tiny_distilled_patch16_224", SMALL_VIT, data=soft),
    _case("swin_tiny_patch4_window7_224", {**SWIN, **DROP}, random=True),
    _case("convnext_atto", CONVNEXT, random=True),
    _case("mixer_s32_224", MIXER, random=True, kind=timm.models.mlp_mixer.MlpMixer),
    _case("convmixer_768_32", CONVMIXER, **COUPLED, kind=timm.models.convmixer.ConvMixer),
    _case("levit_128s", LEVIT, **COUPLED, data=lambda source: images(source, 64)),
    _case("pvt_v2_b0", PVT, random=True),
    _case("xcit_nano_12_p16_224", TINY_VIT, **COUPLED),
    _case("test_nfnet", {}),
    _case("cait_xxs24_224", {**SMALL_VIT, "drop_path_rate": 0.1}, random=True),
    _case("eva02_tiny_patch14_224", {**EVA, "drop_path_rate": 0.1}, random=True),
    _case("mobilenetv3_small_050", {}, **COUPLED, kind=mobilenet, twice=False),
    _case("repvgg_a0", {}, **COUPLED, kind=repvgg),
]
