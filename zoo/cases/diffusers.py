"""diffusers: denoising networks with random times and noise, autoencoders that draw."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..case import Case, loader

FEW, SIZE = 12, 16


def pictures(source: torch.Generator) -> Any:
    return loader(torch.randn(FEW, 3, SIZE, SIZE, generator=source, dtype=torch.float64))


def with_text(source: torch.Generator) -> Any:
    x = torch.randn(FEW, 4, 8, 8, generator=source, dtype=torch.float64)
    return loader(x, torch.randn(FEW, 3, 8, generator=source, dtype=torch.float64))


SCHEDULE = diffusers.DDPMScheduler(num_train_timesteps=50)


def noise_of(model: nn.Module, batch: Any) -> Tensor:
    """The noise that was added to images, at a random time, is to be found again."""
    x, *rest = batch
    noise = torch.randn_like(x)
    times = torch.randint(0, 50, (len(x),))
    noisy = SCHEDULE.add_noise(x, noise, times)
    found = model(noisy, times, *rest).sample
    return F.mse_loss(found, noise, reduction="none").flatten(1).mean(1)


def evidence(model: Any, batch: Any) -> Tensor:
    """The bound of a variational autoencoder, with a sample that is drawn."""
    (x,) = batch
    posterior = model.encode(x).latent_dist
    decoded = model.decode(posterior.sample()).sample
    return F.mse_loss(decoded, x, reduction="none").flatten(1).sum(1) + posterior.kl()


def unet() -> nn.Module:
    return diffusers.UNet2DModel(
        SIZE, 3, 3, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), attention_head_dim=4,
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), dropout=0.1,
    ).double().train()  # fmt: skip


def conditional() -> nn.Module:
    return diffusers.UNet2DConditionModel(
        8, 4, 4, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), attention_head_dim=4,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=8,
    ).double().train()  # fmt: skip


def dit() -> nn.Module:
    return diffusers.DiTTransformer2DModel(
        2, 8, 4, 4, num_layers=1, sample_size=8, patch_size=2, num_embeds_ada_norm=50,
        norm_num_groups=4,
    ).double().train()  # fmt: skip


def labelled(source: torch.Generator) -> Any:
    x = torch.randn(FEW, 4, 8, 8, generator=source, dtype=torch.float64)
    return loader(x, torch.randint(50, (FEW,), generator=source))


def noise_of_class(model: nn.Module, batch: Any) -> Tensor:
    x, labels = batch
    noise, times = torch.randn_like(x), torch.randint(0, 50, (len(x),))
    found = model(SCHEDULE.add_noise(x, noise, times), times, class_labels=labels).sample
    return F.mse_loss(found, noise, reduction="none").flatten(1).mean(1)


def vae() -> nn.Module:
    return diffusers.AutoencoderKL(
        3, 3, ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2, (4, 8), latent_channels=2,
        norm_num_groups=2, sample_size=SIZE,
    ).double().train()  # fmt: skip


CASES = [
    Case("UNet2D, DDPM", unet, noise_of, noise_of, pictures, random=True, rtol=1e-6),
    Case(
        "UNet2D with cross-attention",
        conditional,
        noise_of,
        noise_of,
        with_text,
        random=True,
        rtol=1e-6,
    ),
    Case("DiT, classes", dit, noise_of_class, noise_of_class, labelled, random=True, rtol=1e-6),
    Case("AutoencoderKL", vae, evidence, evidence, pictures, random=True),
]
