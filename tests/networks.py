"""A small network with its data, for profiles of any number of samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def network(count: int) -> tuple[nn.Module, nn.Module, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 5))
    inputs = torch.randn(count, 20)
    return model, nn.CrossEntropyLoss(), (inputs, inputs[:, :5].argmax(1))
