"""The digits and the network on them: the same for the same seed, and trained."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader

from gradnoise import GradNoiseError
from gradnoise.toy.digits import digits, digits_net


def test_data_model_and_optimizer_are_what_is_said() -> None:
    model, criterion, data, optimizer = digits(lr=0.3, momentum=0.5, epochs=0)
    images, labels = data.tensors
    assert (images.shape, images.dtype, float(images.max())) == ((1797, 64), torch.float32, 1.0)
    assert sorted(set(labels.tolist())) == list(range(10))
    assert [tuple(p.shape) for p in model.parameters()] == [(64, 64), (64,), (10, 64), (10,)]
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]) == (0.3, 0.5)
    assert criterion(model(images), labels).ndim == 0


def test_training_lowers_the_loss_and_leaves_no_gradients() -> None:
    losses = []
    for epochs in (0, 2):
        model, criterion, data, _ = digits(epochs=epochs)
        images, labels = data.tensors
        losses.append(float(criterion(model(images), labels).detach()))
        assert all(parameter.grad is None for parameter in model.parameters())
    assert losses[1] < 0.5 * losses[0]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_steps_are_those_of_torchs_sgd(momentum: float) -> None:
    model, criterion, data, optimizer = digits(lr=0.2, momentum=momentum, epochs=0)
    loader = DataLoader(
        data, batch_size=100, shuffle=True, generator=torch.Generator().manual_seed(0)
    )
    for _ in range(2):
        for inputs, targets in loader:
            optimizer.zero_grad()
            criterion(model(inputs), targets).backward()
            optimizer.step()
    ours, _, _, after = digits(lr=0.2, momentum=momentum, batch_size=100, epochs=2)
    for parameter, own in zip(model.parameters(), ours.parameters(), strict=True):
        assert torch.equal(parameter, own)
        buffers = [
            o.state[p].get("momentum_buffer") for o, p in ((optimizer, parameter), (after, own))
        ]
        assert buffers == [None, None] if momentum == 0 else torch.equal(*buffers)


def test_training_needs_no_compiler() -> None:
    code = (
        "import sys; from gradnoise.toy.digits import trained_digits; trained_digits(epochs=1); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_seed_alone_decides() -> None:
    before = torch.get_rng_state()
    first, same, other = (digits(epochs=1, seed=seed)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])
    start, another = (digits(epochs=0, seed=seed)[0].state_dict() for seed in (1, 2))
    assert not torch.equal(start["0.weight"], another["0.weight"])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_new_network_has_new_weights() -> None:
    assert not torch.equal(digits_net()[0].weight, digits_net()[0].weight)


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(GradNoiseError, match=r"scikit-learn: pip install 'gradnoise\[digits\]'"):
        digits()
