"""The problems: small enough to tune the learning rate of every batch size by training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from .data import (
    WORDS,
    Data,
    clusters,
    digit_images,
    digits,
    friedman,
    python_source,
    separable,
    table,
)
from .models import Recurrent, Transformer, cnn, mlp

BATCH_SIZES = (4, 16, 64, 256, 1024)
Params = Iterable[nn.Parameter]


@dataclass(frozen=True)
class Problem:
    """A model, its loss and data, and how it is trained.

    Args:
        name: of the file of results.
        network: makes the model from the global random state.
        loss_fn: (model, batch) to one loss per sample, shape (n,).
        make_data: the training set; its size is a multiple of every batch size.
        make_optimizer: (parameters, learning rate) to an optimizer.
        budget: samples of a run.
        reference: batch size and learning rate that a practitioner might run.
        slope: power of B that the best rate follows at small B, to begin the search with.
        judged: how many samples the recorded loss is the mean of.
        stretch: batches above 64 train longer, up to so many budgets: they need more samples.
    """

    name: str
    network: Callable[[], nn.Module]
    loss_fn: Callable[[nn.Module, Data], Tensor]
    make_data: Callable[[], Data]
    make_optimizer: Callable[[Params, float], Optimizer]
    budget: int
    reference: tuple[int, float]
    slope: float = 1.0
    judged: int = 2048
    stretch: int = 4
    batch_sizes: tuple[int, ...] = BATCH_SIZES

    def make_model(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.network()


def classification(model: nn.Module, batch: Data) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def regression(model: nn.Module, batch: Data) -> Tensor:
    return (model(batch[0]).squeeze(1) - batch[1]).square()


def reconstruction(model: nn.Module, batch: Data) -> Tensor:
    """Squared error of an image, summed over its pixels."""
    return (model(batch[0]) - batch[0]).square().sum(1)


def language(model: nn.Module, batch: Data) -> Tensor:
    logits = model(batch[0]).transpose(1, 2)
    return F.cross_entropy(logits, batch[1], reduction="none").mean(1)


def sgd(params: Params, lr: float) -> Optimizer:
    return SGD(params, lr=lr)


def momentum(params: Params, lr: float) -> Optimizer:
    return SGD(params, lr=lr, momentum=0.9)


def adam(params: Params, lr: float) -> Optimizer:
    return Adam(params, lr=lr, fused=True)


def adamw(params: Params, lr: float) -> Optimizer:
    return AdamW(params, lr=lr, weight_decay=0.1, fused=True)


text = partial(python_source, 16, 16384)
PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem("digits_mlp", partial(mlp, 64, 64, 10), classification, digits,
                sgd, 8 * 8192, (32, 0.1)),
        Problem("wrong_labels_mlp", partial(mlp, 32, 64, 8), classification,
                partial(clusters, 0.1), sgd, 12 * 8192, (32, 0.1)),
        Problem("table_momentum", partial(mlp, 34, 64, 7), classification, partial(table, 0.05),
                momentum, 10 * 8192, (64, 0.02)),
        Problem("noisy_regression", partial(mlp, 10, 64, 1, activation=nn.Tanh), regression,
                friedman, sgd, 12 * 8192, (32, 0.05)),
        Problem("autoencoder", partial(mlp, 64, 32, 8, 32, 64), reconstruction, digit_images,
                adam, 10 * 8192, (64, 2e-3), slope=0.5),
        Problem("transformer", partial(Transformer, WORDS, 16, 32, 4, 1), language, text,
                adamw, 24576, (64, 3e-3), slope=0.5, judged=512, stretch=2),
        Problem("separable_mlp", partial(mlp, 30, 32, 2), classification, separable,
                sgd, 8 * 8192, (32, 0.1)),
        Problem("groupnorm_cnn", partial(cnn, norm=True), classification, digits,
                momentum, 5 * 8192, (64, 0.02), stretch=2),
        Problem("gru", partial(Recurrent, WORDS, 24, 48), language, text,
                adamw, 24576, (64, 5e-3), slope=0.5, judged=512, stretch=2),
        Problem("wrong_digits_cnn", partial(cnn, norm=False), classification,
                partial(digits, 0.2), sgd, 6 * 8192, (32, 0.1), stretch=2),
    )
}  # fmt: skip
MOMENTUM = (  # the reference rates are near the best ones here
    Problem("digits_momentum", partial(mlp, 64, 64, 10), classification, digits,
            momentum, 8 * 8192, (64, 0.04)),
    Problem("clusters_momentum", partial(mlp, 32, 64, 8), classification, partial(clusters, 0.1),
            momentum, 8 * 8192, (64, 0.04)),
)  # fmt: skip
UNSEEN = (  # the choices of gn.pool from a file had no part of these, nor of their kinds of runs
    Problem("unseen_softmax", partial(nn.Linear, 64, 10), classification, digits,
            sgd, 8 * 8192, (256, 0.5)),
    Problem("unseen_wrong_digits", partial(mlp, 64, 32, 10, activation=nn.Tanh), classification,
            partial(digits, 0.3), sgd, 8 * 8192, (32, 0.3)),
    Problem("unseen_clusters", partial(nn.Linear, 32, 8), classification,
            partial(clusters, 0.2), sgd, 8 * 8192, (32, 0.05)),
    Problem("unseen_adam", partial(mlp, 10, 64, 1), regression, friedman,
            adam, 8 * 8192, (16, 2e-3), slope=0.5),
)  # fmt: skip
ALL = PROBLEMS | {problem.name: problem for problem in (*MOMENTUM, *UNSEEN)}
