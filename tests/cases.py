"""A table of small problems, float64, each a model, its loss and one batch."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn

SAMPLES = 6
HOOKS_ONLY = ("hooks", "loop")  # torch.func cannot vectorise it
TRACED = ("functional", "loop")  # its operations are not seen one by one


@dataclass(frozen=True)
class Case:
    """One way in which a person's model differs from the textbook."""

    name: str
    model: Callable[[], nn.Module]
    loss_fn: Any
    batch: Callable[[], Any]
    engines: tuple[str, ...] = ("hooks", "functional", "loop")

    def build(self) -> tuple[nn.Module, Any, Any]:
        """A fresh model, the loss, and the batch, the same at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            model = self.model().double()
            torch.manual_seed(5)
            return model, self.loss_fn, self.batch()


def features(size: int = 4) -> Tensor:
    return torch.randn(SAMPLES, size, dtype=torch.float64)


def labelled(classes: int = 3) -> tuple[Tensor, Tensor]:
    return features(), torch.randint(classes, (SAMPLES,))


def images() -> tuple[Tensor, Tensor]:
    return torch.randn(SAMPLES, 2, 4, 4, dtype=torch.float64), torch.randint(3, (SAMPLES,))


def tokens() -> tuple[Tensor, Tensor]:
    return torch.randint(5, (SAMPLES, 4)), torch.randint(3, (SAMPLES,))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)
    )


class EmbeddingLSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.lstm = nn.LSTM(3, 3, batch_first=True)
        self.head = nn.Linear(3, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(ids))[0][:, -1])


class TiedAutoencoder(nn.Module):
    """One weight used by two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(4, 4, bias=False), nn.Linear(4, 4)
        self.decode.weight = self.encode.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(torch.tanh(self.encode(x)))


class CalledTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.tanh(self.layer(x)))


class RootParameter(nn.Module):
    """Parameters that belong to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.layers = nn.Parameter(torch.tensor(1.5)), nn.ParameterList()
        self.layers.append(nn.Parameter(torch.randn(4, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * (x @ self.layers[0])


class Attention(nn.Module):
    """Fused attention, which has no second derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Linear(2, 6), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.mix(x.reshape(len(x), 1, 2, 2)).chunk(3, dim=-1)
        return self.head(F.scaled_dot_product_attention(q, k, v, is_causal=True).mean((1, 2)))


class SeparateAttention(nn.Module):
    """Keys with a bias, whose gradient is zero: softmax does not see a shift."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(2, 2) for _ in range(3))
        self.head = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(len(x), 2, 2)
        weights = (self.query(x) @ self.key(x).transpose(1, 2)).softmax(-1)
        return self.head((weights @ self.value(x)).mean(1))


class Collects(nn.Module):
    """Keeps what it computed in a list, as auxiliary losses are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.kept = nn.Linear(4, 3), []

    def forward(self, x: Tensor) -> Tensor:
        self.kept.append(self.inner(x))
        return self.kept[-1]


class Branching(nn.Module):
    """Python control flow on the data, which vmap cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.up(row) if row.sum() > 0 else self.down(row) for row in x])


def frozen_mlp() -> nn.Module:
    model = mlp()
    model[0].weight.requires_grad_(False)
    return model


def dict_loss(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch["x"]["features"]), batch["y"], reduction="none")


def dict_batch() -> dict[str, Any]:
    x, y = labelled()
    return {"x": {"features": x}, "y": y, "name": "train", "step": torch.tensor(3)}


def sequence_loss(model: nn.Module, batch: Any) -> Tensor:
    return model(batch).square().mean(-1)


CORE = (
    Case("MLP with cross-entropy", mlp, nn.CrossEntropyLoss(), labelled),
    Case("MLP with mean squared error", mlp, nn.MSELoss(), lambda: (features(), features(3))),
    Case("CNN", cnn, nn.CrossEntropyLoss(), images),
    Case("embedding and LSTM", EmbeddingLSTM, nn.CrossEntropyLoss(), tokens, HOOKS_ONLY),
)

CASES = (
    *CORE,
    Case(
        "summed squared error", mlp, nn.MSELoss(reduction="sum"), lambda: (features(), features(3))
    ),
    Case("tied weights", TiedAutoencoder, nn.MSELoss(), lambda: (features(), features())),
    Case("a module called twice", CalledTwice, nn.MSELoss(), lambda: (features(), features())),
    Case("parameters on the root", RootParameter, nn.CrossEntropyLoss(), labelled),
    Case("frozen parts", frozen_mlp, nn.CrossEntropyLoss(), labelled),
    Case("nested dict batch", mlp, dict_loss, dict_batch),
    Case("UserDict batch", mlp, dict_loss, lambda: UserDict(dict_batch())),
    Case("batch of one tensor", mlp, sequence_loss, features),
    Case("fused attention", Attention, nn.CrossEntropyLoss(), labelled),
    Case("attention with a key bias", SeparateAttention, nn.CrossEntropyLoss(), labelled),
    Case("outputs kept in a list", Collects, nn.CrossEntropyLoss(), labelled),
    Case("scripted", lambda: torch.jit.script(mlp()), nn.CrossEntropyLoss(), labelled, TRACED),
    Case(
        "batch norm in eval mode",
        lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).eval(),
        nn.CrossEntropyLoss(),
        labelled,
    ),
    Case(
        "layer norm and unused parameters",
        lambda: nn.ModuleDict({"used": nn.LayerNorm(4), "unused": nn.Linear(2, 2)}),
        lambda model, x: model["used"](x).pow(3).sum(-1),
        features,
    ),
    Case(
        "sparse embedding",
        lambda: nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Flatten(), nn.Linear(12, 3)),
        nn.CrossEntropyLoss(),
        tokens,
        engines=HOOKS_ONLY,
    ),
    Case("control flow on the data", Branching, nn.CrossEntropyLoss(), labelled, ("loop",)),
)


def named(case: Case) -> str:
    """For the ids of parametrized tests."""
    return case.name.replace(" ", "-")


def network() -> tuple[nn.Module, nn.Module, tuple[Tensor, Tensor]]:
    """Large enough that no space of 20 directions holds its Hessian."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 10)).double()
    return model, nn.CrossEntropyLoss(), (torch.randn(200, 20).double(), torch.randint(10, (200,)))


__all__ = ["CASES", "CORE", "SAMPLES", "Case", "gn", "named"]
