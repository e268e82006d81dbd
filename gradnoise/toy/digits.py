"""A small network on the digits of scikit-learn: real data without a download."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ..errors import GradNoiseError

BATCH_SIZE, LR = 32, 0.1


class DigitsNet(nn.Sequential):
    """64 pixels, 64 hidden units, 10 classes."""


def digits_net() -> nn.Module:
    """A `DigitsNet` with new random weights."""
    return DigitsNet(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def trained_digits(
    *,
    lr: float = LR,
    batch_size: int = BATCH_SIZE,
    momentum: float = 0.0,
    epochs: int = 5,
    seed: int = 0,
) -> tuple[nn.Module, nn.Module, TensorDataset, list[Tensor]]:
    """A 64-64-10 network after `epochs` of SGD on the 1797 digits, to measure it.

    The steps are those of `torch.optim.SGD`, without its import of torch's compiler, which takes
    more than a second.

    Args:
        lr, batch_size, momentum, epochs: of the training.
        seed: of the initial weights and the order of the samples.

    Returns:
        (model, criterion, data, momentum buffers of the parameters).

    Raises:
        GradNoiseError: scikit-learn is not installed.
    """
    data = _data()
    source = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = digits_net()
    criterion = nn.CrossEntropyLoss()
    loader: DataLoader[Any] = DataLoader(
        data, batch_size=batch_size, shuffle=True, generator=source
    )
    parameters = list(model.parameters())
    buffers = [torch.zeros_like(p) for p in parameters]
    for _ in range(epochs):
        for inputs, targets in loader:
            gradients = torch.autograd.grad(criterion(model(inputs), targets), parameters)
            with torch.no_grad():
                for parameter, buffer, gradient in zip(parameters, buffers, gradients, strict=True):
                    buffer.mul_(momentum).add_(gradient)
                    parameter.add_(buffer, alpha=-lr)
    return model, criterion, data, buffers


def digits(
    *, lr: float = LR, momentum: float = 0.0, **training: Any
) -> tuple[nn.Module, nn.Module, TensorDataset, torch.optim.Optimizer]:
    """`trained_digits` with a torch optimizer that goes on from there, in place of its buffers."""
    model, criterion, data, buffers = trained_digits(lr=lr, momentum=momentum, **training)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    if momentum:
        for parameter, buffer in zip(model.parameters(), buffers, strict=True):
            optimizer.state[parameter]["momentum_buffer"] = buffer
    return model, criterion, data, optimizer


def _data() -> TensorDataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise GradNoiseError(
            "digits needs scikit-learn: pip install 'gradnoise[digits]'"
        ) from error
    bunch = load_digits()
    images = torch.as_tensor(bunch.data, dtype=torch.float32) / 16
    return TensorDataset(images, torch.as_tensor(bunch.target))
