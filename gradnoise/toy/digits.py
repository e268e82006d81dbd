"""A small network on the digits of scikit-learn: real data without a download."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ..errors import GradNoiseError

BATCH_SIZE = 32


class DigitsNet(nn.Sequential):
    """64 pixels, 64 hidden units, 10 classes."""


def digits_net() -> nn.Module:
    """A `DigitsNet` with new random weights."""
    return DigitsNet(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def digits(
    *,
    lr: float = 0.1,
    batch_size: int = BATCH_SIZE,
    momentum: float = 0.0,
    epochs: int = 5,
    seed: int = 0,
) -> tuple[nn.Module, nn.Module, TensorDataset, torch.optim.Optimizer]:
    """A 64-64-10 network after `epochs` of SGD on the 1797 digits, to measure it.

    Args:
        lr, batch_size, momentum, epochs: of the training.
        seed: of the initial weights and the order of the samples.

    Returns:
        (model, criterion, data, optimizer).

    Raises:
        GradNoiseError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise GradNoiseError(
            "digits needs scikit-learn: pip install 'gradnoise[digits]'"
        ) from error
    bunch = load_digits()
    images = torch.as_tensor(bunch.data, dtype=torch.float32) / 16
    labels = torch.as_tensor(bunch.target)
    source = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = digits_net()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    data = TensorDataset(images, labels)
    loader: DataLoader[Any] = DataLoader(
        data, batch_size=batch_size, shuffle=True, generator=source
    )
    for _ in range(epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            criterion(model(inputs), targets).backward()
            optimizer.step()
    optimizer.zero_grad()
    return model, criterion, data, optimizer
