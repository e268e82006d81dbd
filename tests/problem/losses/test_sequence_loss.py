"""One loss per sequence, over its own tokens or over the average number of tokens."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch

import gradnoise as gn
from gradnoise import causal_lm
from gradnoise.problem.losses.sequence_loss import sequence_loss
from gradnoise.problem.losses.tokens import MASKED
from tests.language import IDS, LABELS, MASKED_LABELS, PADDED, Bigram, language_model, masked_model


def test_sums_are_divided_by_their_own_counts_or_by_one_number() -> None:
    model, labels = Bigram(), IDS.clone()
    labels[0, :2] = -100
    labels[1] = -100
    batch = {"input_ids": IDS, "labels": labels}
    sums, counts = MASKED.sums(model, batch)
    assert counts.tolist() == [2, 0]
    assert torch.equal(sequence_loss(MASKED, None, None)(model, batch), sums / torch.tensor([2, 1]))
    assert torch.equal(sequence_loss(MASKED, 8, None)(model, batch), sums / 8)


def test_such_a_loss_function_can_be_sent_to_another_process() -> None:
    model, batch = Bigram(), {"input_ids": IDS}
    loss_fn = causal_lm(tokens_per_sequence=3)
    loss_fn(model, batch)
    again = pickle.loads(pickle.dumps(loss_fn))
    assert torch.equal(again(model, batch), loss_fn(model, batch))


@pytest.mark.parametrize("helper", [gn.causal_lm, gn.masked_lm], ids=["causal", "masked"])
def test_the_objective_is_the_loss_that_the_model_is_trained_on(helper: Any) -> None:
    causal = helper is gn.causal_lm
    model = language_model() if causal else masked_model().double().eval()
    batch = {**PADDED, "labels": LABELS if causal else MASKED_LABELS}
    found = gn.gradient_moments(model, helper(), batch)
    assert float(found.loss) == pytest.approx(float(model(**batch).loss.detach()), rel=1e-6)
    slopes = torch.autograd.grad(model(**batch).loss, list(model.parameters()), allow_unused=True)
    for (name, _), slope in zip(model.named_parameters(), slopes, strict=True):
        if slope is not None:
            torch.testing.assert_close(found.mean[name], slope, rtol=1e-5, atol=1e-7)
    equal = gn.gradient_moments(model, helper(weights="equal"), batch)
    losses = helper()(model, batch)
    assert float(equal.loss) == pytest.approx(float(losses.detach().mean()), rel=1e-9)
    assert float(equal.loss) != pytest.approx(float(found.loss), rel=1e-3)


def test_weights_are_counts_of_tokens_unless_they_are_told_otherwise() -> None:
    model = Bigram()
    assert causal_lm().weights(model, PADDED).tolist() == [4, 2, 3]  # type: ignore[attr-defined]
    assert causal_lm().labels(model, PADDED).tolist() == [4, 2, 3]  # type: ignore[attr-defined]
    for other in (causal_lm(weights="equal"), causal_lm(tokens_per_sequence=3)):
        assert other.weights(model, PADDED) is None  # type: ignore[attr-defined]
        assert other.weighted(model, PADDED) is None  # type: ignore[attr-defined]
    with pytest.raises(gn.ArgumentError, match=r"`weights` must be None or 'equal'; got 'own'"):
        causal_lm(weights="own")
