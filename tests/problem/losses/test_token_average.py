"""The average number of tokens that count, given or counted in the data."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from gradnoise import ArgumentError, causal_lm
from gradnoise.problem.losses.token_average import average_tokens
from gradnoise.problem.losses.tokens import CAUSAL, MASKED, SEQ2SEQ
from tests.language import IDS, LABELS, PADDED, TOKENS, language_model


def test_tokens_are_counted_in_all_data_and_the_loader_is_left_as_found() -> None:
    sequences = [{"input_ids": row, "labels": own} for row, own in zip(TOKENS, LABELS, strict=True)]
    source = torch.Generator().manual_seed(0)
    loader: Any = torch.utils.data.DataLoader(
        sequences, batch_size=2, shuffle=True, generator=source
    )
    states = torch.get_rng_state(), source.get_state()
    loss_fn = causal_lm(tokens_per_sequence=loader)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.equal(source.get_state(), states[1])
    model = language_model()
    expected = causal_lm(tokens_per_sequence=3)(model, PADDED)
    torch.testing.assert_close(loss_fn(model, PADDED), expected, rtol=1e-15, atol=0)
    # one number for all batches: a sequence has the same loss in any company
    alone = loss_fn(model, {key: value[:1] for key, value in PADDED.items()})
    torch.testing.assert_close(alone, expected[:1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("tokens", [0, -2.0, math.nan, math.inf])
def test_the_average_has_to_be_positive(tokens: float) -> None:
    with pytest.raises(ArgumentError, match=rf"must be a positive number.*got {float(tokens)}"):
        causal_lm(tokens_per_sequence=tokens)


@pytest.mark.parametrize("data", [[], {"input_ids": IDS, "labels": torch.full_like(IDS, -100)}])
def test_data_without_tokens_that_count_have_no_average(data: Any) -> None:
    with pytest.raises(ArgumentError, match=r"data with tokens that count; got 0.0"):
        causal_lm(tokens_per_sequence=data)


@pytest.mark.parametrize("data", [True, object(), iter([PADDED])])
def test_what_is_neither_a_number_nor_data_is_an_error(data: Any) -> None:
    with pytest.raises(ArgumentError, match=r"a number, a DataLoader, a list.*; got \w+"):
        causal_lm(tokens_per_sequence=data)


@pytest.mark.parametrize(("reading", "average"), [(CAUSAL, 3), (MASKED, 4), (SEQ2SEQ, 4)])
def test_the_first_token_counts_where_nothing_is_shifted(reading: Any, average: float) -> None:
    batch = {"input_ids": TOKENS, "labels": LABELS}  # of 5, 3 and 4 tokens
    assert average_tokens(reading, batch) == average
    assert average_tokens(reading, None) is None
