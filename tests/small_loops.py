"""A training loop with accelerate's Accelerator, as its documentation has it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from accelerate import Accelerator
from torch.nn.functional import cross_entropy

from tests.small_modules import loader, network


class Loop:
    """Three epochs with 14 samples in batches of 4, clipped at 0.1; keeps what was differentiated.

    Args:
        parts: the accumulation.
        dtype: of the network.
        options: of the Accelerator.
    """

    def __init__(
        self, parts: int = 1, dtype: Any = torch.float64, dropout: float = 0.0, **options: Any
    ) -> None:
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=parts, **options)
        self.bare, self.dtype = network(dropout).to(dtype), dtype
        optimizer = torch.optim.SGD(self.bare.parameters(), lr=0.5, momentum=0.9)
        self.model, self.optimizer, self.data = self.accelerator.prepare(
            self.bare, optimizer, loader()
        )
        self.passes: list[list[Any]] = [[]]  # by step

    def train(self, epochs: int = 3) -> None:
        for _ in range(epochs):
            for inputs, labels in self.data:
                with self.accelerator.accumulate(self.model):
                    self.micro_batch(inputs.to(self.dtype), labels)

    def micro_batch(self, inputs: Any, labels: Any) -> None:
        self.passes[-1].append((copy.deepcopy(self.bare.state_dict()), inputs, labels))
        self.accelerator.backward(cross_entropy(self.model(inputs), labels))
        if self.accelerator.sync_gradients:
            self.accelerator.clip_grad_norm_(self.model.parameters(), 0.1)
            self.passes.append([])
        self.optimizer.step()
        self.optimizer.zero_grad()
