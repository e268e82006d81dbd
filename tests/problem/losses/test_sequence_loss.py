"""One loss per sequence, over its own tokens or over the average number of tokens."""

from __future__ import annotations

import pickle

import torch

from gradnoise import causal_lm
from gradnoise.problem.losses.sequence_loss import sequence_loss
from gradnoise.problem.losses.tokens import MASKED
from tests.language import IDS, Bigram


def test_sums_are_divided_by_their_own_counts_or_by_one_number() -> None:
    model, labels = Bigram(), IDS.clone()
    labels[0, :2] = -100
    labels[1] = -100
    batch = {"input_ids": IDS, "labels": labels}
    sums, counts = MASKED.sums(model, batch)
    assert counts.tolist() == [2, 0]
    assert torch.equal(sequence_loss(MASKED, None)(model, batch), sums / torch.tensor([2, 1]))
    assert torch.equal(sequence_loss(MASKED, 8)(model, batch), sums / 8)


def test_such_a_loss_function_can_be_sent_to_another_process() -> None:
    model, batch = Bigram(), {"input_ids": IDS}
    loss_fn = causal_lm(tokens_per_sequence=3)
    loss_fn(model, batch)
    again = pickle.loads(pickle.dumps(loss_fn))
    assert torch.equal(again(model, batch), loss_fn(model, batch))
