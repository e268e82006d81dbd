"""Criteria without `reduction`: as they are, or on each sample alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional as F

import gradnoise as gn
from gradnoise import LossError
from gradnoise.problem.losses.alone import each_alone

N, T, C = 4, 5, 3
OUTPUTS = torch.randn(N, C, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, 2, 1, 1])
TOKENS = torch.randn(N, T, C, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TAGS = torch.arange(N * T).reshape(N, T) % C


class Smoothed(nn.Module):
    """As timm has it: no `reduction`, the mean over the batch."""

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        scores = F.log_softmax(outputs, dim=-1)
        own = -scores.gather(1, target.unsqueeze(1)).squeeze(1)
        return (0.9 * own - 0.1 * scores.mean(-1)).mean()


class Soft(nn.Module):
    """As timm has it, for mixed-up targets."""

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        return torch.sum(-target * F.log_softmax(outputs, dim=-1), dim=-1).mean()


class Dice(nn.Module):
    """A quotient of sums over the batch."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        likely = outputs.sigmoid()
        return 1 - 2 * (likely * targets).sum() / (likely + targets).sum()


REDUCED: dict[str, Any] = {
    "label smoothing": (
        Smoothed(),
        LABELS,
        F.cross_entropy(OUTPUTS, LABELS, label_smoothing=0.1, reduction="none"),
    ),
    "soft labels": (
        Soft(),
        OUTPUTS.flip(0).softmax(1),
        F.cross_entropy(OUTPUTS, OUTPUTS.flip(0).softmax(1), reduction="none"),
    ),
    "a sum": (
        lambda outputs, labels: F.cross_entropy(outputs, labels, reduction="sum"),
        LABELS,
        F.cross_entropy(OUTPUTS, LABELS, reduction="none"),
    ),
    "a number in a vector": (
        lambda outputs, labels: F.cross_entropy(outputs, labels).reshape(1),
        LABELS,
        F.cross_entropy(OUTPUTS, LABELS, reduction="none"),
    ),
    "targets in a mapping": (
        lambda outputs, targets: F.cross_entropy(outputs, targets["class"]),
        {"class": LABELS},
        F.cross_entropy(OUTPUTS, LABELS, reduction="none"),
    ),
}


@pytest.mark.parametrize("kind", REDUCED)
def test_a_criterion_of_the_batch_is_called_on_each_sample(kind: str) -> None:
    criterion, targets, expected = REDUCED[kind]
    losses = each_alone(criterion, OUTPUTS, targets)
    torch.testing.assert_close(losses, expected, rtol=1e-13, atol=0)


def flat_tokens(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.reshape(-1, C), targets.reshape(-1), reduction="none")


def test_flat_losses_of_tokens_are_averaged_within_their_sequence() -> None:
    losses = each_alone(flat_tokens, TOKENS, TAGS)
    expected = F.cross_entropy(TOKENS.mT, TAGS, reduction="none").mean(1)
    torch.testing.assert_close(losses, expected, rtol=1e-13, atol=0)


def test_losses_that_are_not_reduced_are_taken_as_they_are() -> None:
    losses = each_alone(lambda outputs, _: outputs.square(), OUTPUTS, None)
    torch.testing.assert_close(losses, OUTPUTS.square().mean(1), rtol=1e-13, atol=0)
    one = each_alone(lambda outputs, _: outputs.square().mean(1), OUTPUTS[:1], None)
    assert one.shape == (1,)


def test_gradients_pass_and_a_loss_of_one_sample_is_its_own() -> None:
    outputs = OUTPUTS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(each_alone(Smoothed(), outputs, LABELS)[1], outputs)
    assert gradient[1].abs().sum() > 0
    assert gradient[[0, 2, 3]].abs().sum() == 0


def test_under_a_transform_nothing_is_compared() -> None:
    stacked = torch.stack([OUTPUTS, 2 * OUTPUTS])
    losses = vmap(lambda outputs: each_alone(Smoothed(), outputs, LABELS))(stacked)
    torch.testing.assert_close(losses[1], each_alone(Smoothed(), 2 * OUTPUTS, LABELS))


def test_a_criterion_that_couples_samples_is_an_error_that_names_a_number_per_batch() -> None:
    criterion, targets = Dice(), (OUTPUTS > 0).double()
    with pytest.raises(
        LossError,
        match=r"Dice of a batch, 0\.\d+, is neither the mean \(0\.\d+\).*lambda mod",
    ):
        each_alone(criterion, OUTPUTS, targets)
    loss_fn = lambda model, batch: criterion(model(batch[0]), batch[1])  # noqa: E731
    assert loss_fn(nn.Identity(), (OUTPUTS, targets)).shape == ()


def test_a_broadcast_inside_the_criterion_is_an_error_whose_cure_works() -> None:
    def squares(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean()

    column, row = OUTPUTS[:, :1], OUTPUTS[:, 1]
    with pytest.raises(LossError, match=r"neither the mean.*meet outputs of shape \(n, 1\)"):
        each_alone(squares, column, row)
    assert each_alone(squares, column, row[:, None]).shape == (N,)
    with pytest.raises(LossError, match=r"broadcast to \(4, 4\)"):
        each_alone(lambda outputs, targets: (outputs - targets).square(), column, row)


def test_flat_outputs_and_one_number_cannot_be_divided() -> None:
    def reduced(outputs: Tensor, targets: Tensor) -> Tensor:
        return flat_tokens(outputs, targets).mean()

    flat = TOKENS.reshape(-1, C)
    message = r"reduced reduces.*\(20, 3\).*\(4, 5\).*number of samples\. Let it return its losses"
    with pytest.raises(LossError, match=message):
        each_alone(reduced, flat, TAGS)
    assert each_alone(flat_tokens, flat, TAGS).shape == (N,)


def test_what_a_criterion_returns_has_to_be_a_tensor() -> None:
    with pytest.raises(LossError, match=r"returned tuple, where a criterion returns a tensor"):
        each_alone(lambda outputs, _: (outputs.mean(),), OUTPUTS, None)
    with pytest.raises(LossError, match="batch them with DataLoader"):
        each_alone(lambda outputs, _: outputs.square(), OUTPUTS[0, 0], None)


def test_engines_and_second_derivatives_take_such_losses() -> None:
    model = nn.Linear(C, C).double()
    own, plain = gn.supervised(Smoothed()), nn.CrossEntropyLoss(label_smoothing=0.1)
    data = (OUTPUTS, LABELS)
    norms = [gn.per_sample_sq_norms(model, loss_fn, data) for loss_fn in (own, plain)]
    torch.testing.assert_close(*norms, rtol=1e-12, atol=0)
    assert gn.explain_engine(model, own, data).engine == "hooks"
    sharp = [gn.sharpness(model, loss_fn, data).values for loss_fn in (own, plain)]
    torch.testing.assert_close(*sharp, rtol=1e-9, atol=0)
    functional = gn.per_sample_sq_norms(model, own, data, engine="functional")
    torch.testing.assert_close(functional, norms[0], rtol=1e-12, atol=0)
