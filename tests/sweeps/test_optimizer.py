"""The arguments of a sweep that trains as a torch optimizer does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.sweeps.optimizer import optimizer_arguments
from tests.small_runs import DATA, small


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1), ("sgd", 0.0, 0.0)),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), ("sgd", 0.9, 0.0)),
        (
            lambda p: torch.optim.SGD(p, momentum=0.9, nesterov=True, weight_decay=0.1),
            ("nesterov", 0.9, 0.1),
        ),
        (lambda p: torch.optim.Adam(p, weight_decay=0.1, foreach=False), ("adam", 0.9, 0.1)),
        (lambda p: torch.optim.AdamW(p, weight_decay=0.0), ("adam", 0.9, 0.0)),
        (lambda p: torch.optim.SGD([{"params": [q]} for q in p], lr=0.1), ("sgd", 0.0, 0.0)),
    ],
)
def test_the_arguments_train_as_the_optimizer_does(
    make: Any, expected: tuple[str, float, float]
) -> None:
    model = small()
    optimizer = make(list(model.parameters()))
    found = optimizer_arguments(optimizer)
    assert (found["optimizer"], found["momentum"], found["weight_decay"]) == expected
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    torch.manual_seed(0)
    own, loss_fn = small(), nn.CrossEntropyLoss()
    model.load_state_dict(own.state_dict())
    for _ in range(4):
        optimizer.zero_grad()
        loss_fn(model(DATA[0]), DATA[1]).backward()
        optimizer.step()
    swept = gn.sweep(
        lambda: copy.deepcopy(own), loss_fn, DATA, batch_sizes=[32], lrs=[0.1], steps=4, **found
    )
    after = float(loss_fn(model(DATA[0]), DATA[1]).detach())
    assert swept.records[0].train_loss == pytest.approx(after, rel=1e-6)


def test_none_is_plain_sgd() -> None:
    assert optimizer_arguments(None) == {}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (torch.optim.RMSprop, r"trains with torch's SGD or Adam; the optimizer is RMSprop\."),
        (torch.optim.AdamW, r"cannot train with AdamW and decoupled weight decay"),
        (lambda p: torch.optim.Adam(p, eps=1e-3), r"Adam and eps = 0\.001:"),
        (lambda p: torch.optim.Adam(p, betas=(0.9, 0.99)), r"betas = \(0\.9, 0\.99\)"),
        (lambda p: torch.optim.Adam(p, amsgrad=True), "amsgrad = True"),
        (lambda p: torch.optim.SGD(p, maximize=True), "maximize = True"),
        (
            lambda p: torch.optim.SGD([{"params": p[:1]}, {"params": p[1:], "lr": 0.7}]),
            "several learning rates",
        ),
        (
            lambda p: torch.optim.SGD([{"params": p[:1]}, {"params": p[1:], "momentum": 0.7}]),
            r"momentum = 0\.7",
        ),
    ],
)
def test_what_a_sweep_does_not_have_is_refused(make: Any, said: str) -> None:
    with pytest.raises(gn.ArgumentError, match=said):
        optimizer_arguments(make(list(small().parameters())))
