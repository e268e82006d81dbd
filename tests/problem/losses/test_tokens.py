"""Losses of tokens, added within each sequence."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradnoise import LossError, causal_lm, model_loss
from gradnoise.problem.losses.tokens import CAUSAL, MASKED, SEQ2SEQ
from tests.language import IDS, Bigram


def test_a_model_that_returns_no_logits_is_an_error() -> None:
    class Pair(nn.Module):
        def forward(self, input_ids: Tensor) -> Any:
            return (input_ids,)

    with pytest.raises(LossError, match=r"returns a tensor; this one returned tuple"):
        causal_lm()(Pair(), {"input_ids": IDS})


def test_half_precision_logits_are_compared_in_float32() -> None:
    model = Bigram().bfloat16()
    twin = Bigram()
    twin.load_state_dict(model.state_dict())
    losses = causal_lm()(model, {"input_ids": IDS})
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, causal_lm()(twin.float(), {"input_ids": IDS}))


def test_each_reading_adds_its_own_tokens() -> None:
    model, batch = Bigram(), {"input_ids": IDS, "labels": IDS.clone()}
    batch["labels"][1, 2:] = -100
    scores = model(IDS).logits.log_softmax(-1)
    sums, counts = MASKED.sums(model, batch)
    expected = [-sum(scores[i, t, IDS[i, t]] for t in range(n)) for i, n in enumerate((4, 2))]
    torch.testing.assert_close(sums, torch.stack(expected), rtol=1e-12, atol=0)
    assert counts.tolist() == [4, 2]
    sums, counts = CAUSAL.sums(model, batch)
    expected = [-sum(scores[i, t - 1, IDS[i, t]] for t in range(1, n)) for i, n in ((0, 4), (1, 2))]
    torch.testing.assert_close(sums, torch.stack(expected), rtol=1e-12, atol=0)
    assert counts.tolist() == [3, 1]


def test_only_a_decoder_is_given_the_labels() -> None:
    seen = []

    class Model(Bigram):
        def forward(self, input_ids: Tensor, labels: Any = None) -> Any:
            seen.append(labels)
            return super().forward(input_ids)

    batch = {"input_ids": IDS, "labels": IDS}
    for reading in (CAUSAL, MASKED, SEQ2SEQ):
        reading.sums(Model(), batch)
    assert seen[:2] == [None, None]
    assert seen[2] is IDS


@pytest.mark.parametrize("reading", [MASKED, SEQ2SEQ], ids=lambda reading: reading.name)
@pytest.mark.parametrize(
    ("batch", "got"),
    [
        ({"input_ids": IDS}, "labels: NoneType"),
        (IDS, "Tensor"),
        ({"labels": IDS[0]}, "labels: Ten"),
    ],
)
def test_labels_are_needed_where_the_inputs_cannot_serve(
    reading: Any, batch: Any, got: str
) -> None:
    message = rf"{reading.name} needs batches that map 'labels' to.*, with -100 where.*; got {got}"
    with pytest.raises(LossError, match=message):
        reading.labels(batch)
    assert reading.labels({"input_ids": IDS, "labels": IDS}) is IDS


def test_logits_of_other_positions_are_an_error_whose_cure_works() -> None:
    class Last(nn.Module):
        """As nanoGPT without targets: the last position alone."""

        def forward(self, input_ids: Tensor, labels: Any = None) -> Any:
            return SimpleNamespace(logits=torch.zeros(2, 1, 7), loss=torch.tensor(2.0))

    batch = {"input_ids": IDS, "labels": IDS}
    message = r"logits of shape \(2, 1, 7\) and labels of shape \(2, 4\).*gn\.model_loss\(\)"
    with pytest.raises(LossError, match=message):
        CAUSAL.sums(Last(), batch)
    assert model_loss()(Last(), batch) == 2


def test_a_model_with_other_names_is_an_error_whose_cures_work() -> None:
    class Other(nn.Module):
        def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
            loss = None if targets is None else torch.tensor(2.0)
            return torch.zeros(*idx.shape, 7), loss

    class Renamed(nn.Module):
        def forward(self, input_ids: Tensor) -> Tensor:
            return Other()(input_ids)[0]  # type: ignore[no-any-return]

    message = r"entries input_ids cannot be given to Other\.forward\(idx, targets\).*in a module ar"
    with pytest.raises(LossError, match=message):
        CAUSAL.sums(Other(), {"input_ids": IDS})
    assert CAUSAL.sums(Renamed(), {"input_ids": IDS})[1].tolist() == [3, 3]
    assert model_loss()(Other(), (IDS, IDS)) == 2
