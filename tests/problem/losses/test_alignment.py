"""Outputs and targets of the shapes that people have."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradnoise import LossError, model_loss, supervised
from gradnoise.problem.losses.alignment import aligned, compares_classes

N, T, C = 4, 5, 3
TOKENS = torch.randn(N, T, C, generator=torch.Generator().manual_seed(0))
TAGS = torch.arange(N * T).reshape(N, T) % C
MAPS = torch.randn(N, C, 2, 6, generator=torch.Generator().manual_seed(1))
PIXELS = torch.arange(N * 12).reshape(N, 2, 6) % C
CE = nn.CrossEntropyLoss()

CLASSES: dict[str, tuple[Tensor, Tensor, Tensor, Tensor]] = {
    "one label": (TOKENS[:, 0], TAGS[:, 0], TOKENS[:, 0], TAGS[:, 0]),
    "a column of labels": (TOKENS[:, 0], TAGS[:, :1], TOKENS[:, 0], TAGS[:, 0]),
    "tokens as torch has them": (TOKENS.mT, TAGS, TOKENS.mT, TAGS),
    "tokens with classes last": (TOKENS, TAGS, TOKENS.mT, TAGS),
    "flat tokens": (TOKENS.reshape(-1, C), TAGS, TOKENS.mT, TAGS),
    "one token each": (TOKENS[:, :1], TAGS[:, :1], TOKENS[:, 0], TAGS[:, 0]),
    "pixels": (MAPS, PIXELS, MAPS, PIXELS),
    "pixels with a channel": (MAPS, PIXELS[:, None], MAPS, PIXELS),
    "pixels with classes last": (MAPS.movedim(1, -1), PIXELS, MAPS, PIXELS),
    "flat pixels": (MAPS.movedim(1, -1).reshape(-1, C), PIXELS, MAPS, PIXELS),
    "a single sample": (TOKENS[0, 0], TAGS[0, 0], TOKENS[0, 0], TAGS[0, 0]),
}


@pytest.mark.parametrize("form", CLASSES)
@pytest.mark.parametrize("criterion", [CE, nn.NLLLoss(), F.cross_entropy])
def test_class_indices_meet_their_scores(form: str, criterion: Any) -> None:
    outputs, targets, *expected = CLASSES[form]
    scores, classes = aligned(criterion, outputs, targets)
    theirs = F.cross_entropy(expected[0], expected[1], reduction="none")
    own = F.cross_entropy(scores, classes, reduction="none")
    torch.testing.assert_close(own.squeeze(), theirs.squeeze(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        (TOKENS[:, -1:], TAGS, r"\(4, 1, 3\) and targets of shape \(4, 5\) do not fit.*model_loss"),
        (TOKENS[:, 0], TAGS[:3, 0], r"do not fit; targets of shape \(n, \.\.\.\) need outputs"),
        (TOKENS[:, 0], TAGS[0, :3], "do not fit"),
        (torch.zeros(4, 3, 3), TAGS[:, :3], r"fit in two ways.*in the last\. Write a loss_fn"),
    ],
)
def test_class_indices_without_one_reading_are_an_error(
    outputs: Tensor, targets: Tensor, message: str
) -> None:
    with pytest.raises(LossError, match=message):
        aligned(CE, outputs, targets)


STRICT = [
    nn.BCEWithLogitsLoss(),
    nn.BCELoss(),
    F.binary_cross_entropy_with_logits,
    functools.partial(F.binary_cross_entropy, reduction="sum"),
]


@pytest.mark.parametrize("criterion", STRICT)
@pytest.mark.parametrize("shapes", [((4, 1), (4,)), ((4,), (4, 1)), ((4, 5, 1), (4, 5))])
def test_criteria_that_refuse_other_shapes_are_given_their_own(criterion: Any, shapes: Any) -> None:
    outputs, targets = torch.rand(shapes[0]), torch.rand(shapes[1])
    with pytest.raises(ValueError, match="size"):  # so that nobody can have trained with these
        criterion(outputs, targets)
    own, theirs = aligned(criterion, outputs, targets)
    assert own is outputs
    torch.testing.assert_close(theirs.flatten(), targets.flatten(), rtol=0, atol=0)
    assert torch.isfinite(criterion(own, theirs))


def test_what_torch_computes_is_left_as_it_is() -> None:
    column, row = torch.rand(4, 1), torch.rand(4)
    assert aligned(nn.MSELoss(), column, row)[1] is row  # torch broadcasts: an error comes later
    assert aligned(CE, TOKENS, TOKENS)[0] is TOKENS  # class probabilities
    assert aligned(nn.BCELoss(), torch.rand(4, 2), torch.rand(4))[1].shape == (4,)
    assert aligned(CE, TOKENS, "text") == (TOKENS, "text")


def test_which_criteria_compare_classes() -> None:
    assert compares_classes(CE)
    assert compares_classes(functools.partial(F.nll_loss, reduction="sum"))
    assert not compares_classes(nn.MSELoss())
    assert not compares_classes(F.mse_loss)


def test_the_cures_work() -> None:
    class Last(nn.Module):
        """As nanoGPT: without targets the scores of the last token alone."""

        def forward(self, scores: Tensor, targets: Tensor | None = None) -> Any:
            if targets is None:
                return scores[:, -1:], None
            return scores, F.cross_entropy(scores.mT, targets)

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        scores, _ = model(*batch)
        return F.cross_entropy(scores.mT, batch[1], reduction="none").mean(1)

    with pytest.raises(LossError, match=r"do not fit.*Write a loss_fn.*use gn\.model_loss\(\)"):
        supervised(CE)(Last(), (TOKENS, TAGS))
    theirs = model_loss()(Last(), (TOKENS, TAGS))
    torch.testing.assert_close(loss_fn(Last(), (TOKENS, TAGS)).mean(), theirs)
