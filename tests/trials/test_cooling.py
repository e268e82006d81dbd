"""A few steps on copies, with a learning rate that falls to zero."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gradnoise as gn
from tests.small_runs import DATA, dropping, normalised, small
from tests.starts import Own

OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "rates of their own": lambda p: torch.optim.SGD(
        [{"params": part, "lr": 0.1 / (k + 1)} for k, part in enumerate(p)]
    ),
}


def started(make: Any, model: nn.Module | None = None) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model and an optimizer after three steps."""
    torch.manual_seed(0)
    model = model or small()
    optimizer = make(list(model.parameters()))
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(DATA[0]), DATA[1]).backward()
        optimizer.step()
    return model, optimizer


def bits(model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
    """All that a training could change."""
    tensors = [*model.state_dict().values(), *(p.grad for p in model.parameters())]
    states = [v for own in optimizer.state.values() for v in own.values()]
    return copy.deepcopy(
        [t.tolist() if isinstance(t, Tensor) else t for t in tensors + states]
        + [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
        + [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()]
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_full_batches_follow_the_optimizer_with_a_falling_rate(name: str) -> None:
    model, optimizer = started(OPTIMIZERS[name])
    found = gn.cooled(model, nn.CrossEntropyLoss(), DATA, optimizer, batch_size=32, steps=5)
    rates = [group["lr"] for group in optimizer.param_groups]
    for step in range(5):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - step / 5)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(DATA[0]), DATA[1]).backward()
        optimizer.step()
    for own, expected in zip(found.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("model", [small, normalised, dropping])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nothing_of_the_users_is_changed(name: str, model: Any) -> None:
    model, optimizer = started(OPTIMIZERS[name], model())
    loader = DataLoader(TensorDataset(*DATA), batch_size=8, shuffle=True)
    before = bits(model, optimizer)
    found = gn.cooled(model, nn.CrossEntropyLoss(), loader, optimizer)
    assert bits(model, optimizer) == before
    assert found is not model
    assert any((a != b).any() for a, b in zip(found.parameters(), model.parameters(), strict=True))
    assert all(p.grad is None for p in found.parameters())


def test_a_seed_gives_the_order_of_samples_and_dropout() -> None:
    model, optimizer = started(OPTIMIZERS["sgd"], dropping())
    ends = []
    for seed in (0, 0, 1):
        torch.rand(1)  # the random state of the caller does not matter
        ends.append(
            gn.cooled(model, nn.CrossEntropyLoss(), DATA, optimizer, batch_size=4, seed=seed)
        )
    weights = [nn.utils.parameters_to_vector(end.parameters()) for end in ends]
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2])


def test_a_seed_gives_the_dropout_too() -> None:
    model, optimizer = started(OPTIMIZERS["sgd"], dropping())
    alike = (torch.ones(4, 5).double(), torch.ones(4).long())  # in every order the same
    ends = [
        gn.cooled(model, nn.CrossEntropyLoss(), alike, optimizer, batch_size=4, seed=seed)
        for seed in (0, 1)
    ]
    weights = [nn.utils.parameters_to_vector(end.parameters()) for end in ends]
    assert not torch.allclose(*weights)


def test_the_swing_along_a_sharp_direction_dies_out() -> None:
    toy = gn.toy.NoisyQuadratic(torch.diag(torch.tensor([100.0, 0.01])), torch.ones(2))
    model, data = toy.model(), toy.sample(64, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0195)  # 2/λ = 0.02
    found = gn.cooled(model, toy.loss_fn, data, optimizer, batch_size=64)
    share = gn.swing(model, toy.loss_fn, data, found).share
    assert float(share) > 0.999


def other_model(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(OTHER(batch[0]), batch[1], reduction="none")


OTHER = small()


def test_a_loss_of_another_model_is_refused() -> None:
    model, optimizer = started(OPTIMIZERS["sgd"])
    with pytest.raises(gn.ModelError, match="`loss_fn` uses another model than the one that it"):
        gn.cooled(model, other_model, DATA, optimizer, batch_size=8)


def test_a_model_that_cannot_be_copied_is_refused() -> None:
    model, optimizer = started(OPTIMIZERS["sgd"])
    model.last = next(model.parameters()) * 2  # a tensor with a graph
    with pytest.raises(gn.ModelError, match="`model` cannot be copied"):
        gn.cooled(model, nn.CrossEntropyLoss(), DATA, optimizer, batch_size=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "`steps` must be a whole number from 1"),
        ({"seed": -1}, "`seed` must be a whole number from 0"),
        ({"batch_size": None}, "`batch_size` is needed, .* `data` is not a DataLoader"),
        ({"batch_size": 0}, "`batch_size` must be a whole number from 1"),
        ({"batch_size": 33}, "`batch_size` = 33 is more than the 32 samples"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    model, optimizer = started(OPTIMIZERS["sgd"])
    with pytest.raises(gn.ArgumentError, match=message):
        gn.cooled(model, nn.CrossEntropyLoss(), DATA, optimizer, **{"batch_size": 8, **options})


def test_an_optimizer_of_another_model_is_refused() -> None:
    _, optimizer = started(OPTIMIZERS["sgd"])
    with pytest.raises(gn.ArgumentError, match="holds parameters that are not of `model`"):
        gn.cooled(small(), nn.CrossEntropyLoss(), DATA, optimizer, batch_size=8)
    with pytest.raises(gn.ArgumentError, match=r"must be a torch\.optim\.Optimizer; got float"):
        gn.cooled(small(), nn.CrossEntropyLoss(), DATA, 0.1, batch_size=8)  # type: ignore[arg-type]


def test_an_optimizer_of_the_users_own_is_copied_with_its_attributes() -> None:
    model, optimizer = started(lambda p: Own(p, 0.05))
    assert len(optimizer.taken) == 3
    found = gn.cooled(model, nn.CrossEntropyLoss(), DATA, optimizer, batch_size=8, steps=2)
    assert len(optimizer.taken) == 3
    assert any((a != b).any() for a, b in zip(found.parameters(), model.parameters(), strict=True))


def test_what_cannot_be_trained_on_copies_is_refused() -> None:
    model = small()
    lbfgs = torch.optim.LBFGS(model.parameters())
    with pytest.raises(gn.ArgumentError, match=r"LBFGS\.step needs a closure"):
        gn.cooled(model, nn.CrossEntropyLoss(), DATA, lbfgs, batch_size=8)
    model, optimizer = started(OPTIMIZERS["sgd"])
    model.kept = model(DATA[0])
    with pytest.raises(gn.ModelError, match="`model` cannot be copied"):
        gn.cooled(model, nn.CrossEntropyLoss(), DATA, optimizer, batch_size=8)
