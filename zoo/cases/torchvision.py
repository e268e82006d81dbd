"""torchvision: classification, segmentation, detection and video, in train mode."""

from __future__ import annotations

from typing import Any

import torch
import torchvision as tv
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from ..case import Case, images, loader
from .timm import cross_entropy

CE = nn.CrossEntropyLoss()
COUPLED = {"unit": "group"}
FEW = 16


def masks(source: torch.Generator) -> Any:
    """Images and classes of their pixels, some of which are to be ignored."""
    x = torch.randn(FEW, 3, 32, 32, generator=source, dtype=torch.float64)
    y = torch.randint(3, (FEW, 32, 32), generator=source)
    return loader(x, y)


def clips(source: torch.Generator) -> Any:
    x = torch.randn(FEW, 3, 4, 16, 16, generator=source, dtype=torch.float64)
    return loader(x, torch.randint(5, (FEW,), generator=source))


def pixels(model: nn.Module, batch: Any) -> Tensor:
    """Losses of pixels, averaged within an image."""
    return F.cross_entropy(model(batch[0])["out"], batch[1], reduction="none").mean((1, 2))


def with_aux(model: nn.Module, batch: Any) -> Tensor:
    """The loss of torchvision's own training script."""
    outputs = model(batch[0])
    losses = {k: F.cross_entropy(v, batch[1]) for k, v in outputs.items()}
    return losses["out"] + 0.5 * losses["aux"]


def boxes(source: torch.Generator) -> Any:
    """Images with two boxes each, as tensors that share the leading dimension."""
    count, size = 12, 64
    x = torch.rand(count, 3, size, size, generator=source, dtype=torch.float64)
    corner = torch.rand(count, 2, 2, generator=source, dtype=torch.float64) * 24
    extent = 16 + torch.rand(count, 2, 2, generator=source, dtype=torch.float64) * 20
    found = torch.cat([corner, corner + extent], dim=2)
    labels = torch.randint(1, 3, (count, 2), generator=source)
    return [(x[i : i + 4], found[i : i + 4], labels[i : i + 4]) for i in range(0, count, 4)]


def detection(model: nn.Module, batch: Any) -> Tensor:
    """What torchvision's own training script minimises: the sum of the model's losses."""
    x, found, labels = batch
    targets = [{"boxes": b, "labels": c} for b, c in zip(found, labels, strict=True)]
    return sum(model(list(x), targets).values())  # type: ignore[return-value]


class Backbone(nn.Sequential):
    """A few convolutions in place of a large network."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3, 2, 1), nn.SiLU(), nn.Conv2d(8, 8, 3, 4, 1), nn.SiLU())
        self.out_channels = 8


ANCHORS = AnchorGenerator(sizes=((16, 32),), aspect_ratios=((1.0,),))
DETECTED = {"min_size": 64, "max_size": 64}


def faster_rcnn() -> nn.Module:
    pool = tv.ops.MultiScaleRoIAlign(["0"], output_size=3, sampling_ratio=2)
    head = tv.models.detection.faster_rcnn.TwoMLPHead(8 * 9, 16)
    predictor = tv.models.detection.faster_rcnn.FastRCNNPredictor(16, 3)
    return FasterRCNN(
        Backbone(), None, **DETECTED, rpn_anchor_generator=ANCHORS, box_roi_pool=pool,
        box_head=head, box_predictor=predictor, rpn_pre_nms_top_n_train=50,
        rpn_post_nms_top_n_train=20, box_batch_size_per_image=16,
    ).double().train()  # fmt: skip


def retina() -> nn.Module:
    return RetinaNet(Backbone(), 3, **DETECTED, anchor_generator=ANCHORS).double().train()


def _plain(name: str, build: Any, **more: Any) -> Case:
    data = more.pop("data", images)
    return Case(name, lambda: build().double().train(), CE, cross_entropy, data, **more)


def _resnet() -> nn.Module:
    return tv.models.ResNet(tv.models.resnet.BasicBlock, [1, 1, 1, 1], 5, width_per_group=64)


def _segmented(kind: str) -> nn.Module:
    """FCN or DeepLab over a small feature extractor, with its auxiliary head."""
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3
    from torchvision.models.segmentation.fcn import FCN, FCNHead

    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1)
    )
    features = tv.models._utils.IntermediateLayerGetter(net, {"2": "aux", "3": "out"})
    if kind == "fcn":
        return FCN(features, FCNHead(16, 3), FCNHead(8, 3)).double().train()
    head = DeepLabHead(16, 3, atrous_rates=(1, 2))
    return DeepLabV3(features, head, FCNHead(8, 3)).double().train()


CASES = [
    _plain("MNASNet", lambda: tv.models.MNASNet(0.1, 5), random=True, **COUPLED),
    _plain(
        "MobileNetV2",
        lambda: tv.models.MobileNetV2(
            5, 0.1, [[1, 8, 1, 1], [2, 8, 1, 2], [2, 16, 1, 2]], round_nearest=8
        ),
        random=True,
        **COUPLED,
    ),
    _plain(
        "DenseNet",
        lambda: tv.models.DenseNet(4, (1, 1, 1), 8, drop_rate=0.1, num_classes=5),
        random=True,
        **COUPLED,
    ),
    _plain(
        "ShuffleNetV2", lambda: tv.models.ShuffleNetV2([1, 1, 1], [8, 16, 16, 16, 32], 5), **COUPLED
    ),
    _plain(
        "VisionTransformer",
        lambda: tv.models.VisionTransformer(32, 8, 1, 2, 16, 32, 0.1, 0.1, 5),
        random=True,
    ),
    _plain(
        "SwinTransformer",
        lambda: tv.models.SwinTransformer([4, 4], 8, [1, 1], [1, 2], [4, 4], num_classes=5),
        random=True,
    ),
    _plain("AlexNet-like SqueezeNet", lambda: tv.models.SqueezeNet("1_1", 5), random=True),
    Case(
        "FCN and its auxiliary head",
        lambda: _segmented("fcn"),
        with_aux,
        with_aux,
        masks,
        random=True,
        **COUPLED,
    ),
    Case(
        "DeepLabV3, criterion",
        lambda: _segmented("deeplab"),
        pixels,
        pixels,
        masks,
        random=True,
        **COUPLED,
    ),
    Case("RetinaNet", retina, detection, detection, boxes, **COUPLED),
    Case(
        "Faster R-CNN",
        faster_rcnn,
        detection,
        detection,
        boxes,
        random=True,
        twice=False,  # roi_align
        **COUPLED,
    ),
    _plain(
        "R(2+1)D",
        lambda: tv.models.video.VideoResNet(
            tv.models.video.resnet.BasicBlock,
            [tv.models.video.resnet.Conv2Plus1D] * 4,
            [1, 1, 1, 1],
            tv.models.video.resnet.R2Plus1dStem,
            5,
        ),
        data=clips,
        **COUPLED,
    ),
    _plain(
        "Swin3D",
        lambda: tv.models.video.SwinTransformer3d(
            [2, 4, 4], 8, [1, 1], [1, 2], [2, 2, 2], num_classes=5
        ),
        data=clips,
        random=True,
    ),
]
