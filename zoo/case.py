"""What one entry of the zoo is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

COUNT, BATCH = 16, 4  # samples, and those of a batch of training

Losses = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Case:
    """A model as it is trained, and how its loss is written out.

    Args:
        name: what the table calls it.
        build: the model, in the mode and with the settings in which it trains.
        loss_fn: what gradnoise is given.
        own: the same loss written out: of a model and a batch, one number for each sample, shape
            (n,), or one for the batch.
        data: of a source of random numbers, what gradnoise is given.
        unit: what is drawn at random in training: "sample" or "group".
        random: whether the loss draws random numbers.
        options: of the measuring calls.
        twice: False where torch lacks the second derivative of an operation: λ and its direction
            are held to differences of gradients.
        rtol: of gradients; float64 unless a part of the model computes in float32.
        package: of the model; filled in by the table.
    """

    name: str
    build: Callable[[], nn.Module]
    loss_fn: Any
    own: Losses
    data: Callable[[torch.Generator], Any]
    unit: str = "sample"
    random: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    twice: bool = True
    rtol: float = 1e-9
    package: str = ""


class Rows(Dataset[Any]):
    """Samples that are dicts, as data sets of tokens give them."""

    def __init__(self, **columns: Tensor) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: column[index] for name, column in self._columns.items()}


def loader(*tensors: Tensor, **columns: Tensor) -> DataLoader[Any]:
    """The samples as training reads them, in batches of tuples or of dicts."""
    own: Dataset[Any] = TensorDataset(*tensors) if tensors else Rows(**columns)
    return DataLoader(own, batch_size=BATCH, shuffle=True)


def images(source: torch.Generator, size: int = 32, channels: int = 3, classes: int = 5) -> Any:
    """A loader of images and their classes."""
    x = torch.randn(COUNT, channels, size, size, generator=source, dtype=torch.float64)
    return loader(x, torch.randint(classes, (COUNT,), generator=source))
