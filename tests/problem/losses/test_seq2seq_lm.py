"""Per-sequence losses of encoders with a decoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

import gradnoise as gn
from tests.language import PADDED, TARGET, bart, t5

BATCH = {**PADDED, "labels": TARGET}


@pytest.mark.parametrize("build", [bart, t5])
def test_losses_are_means_over_each_sequences_own_labels(build: Any) -> None:
    model = build().eval()
    logits = model(**BATCH).logits
    expected = [F.cross_entropy(row, own) for row, own in zip(logits, TARGET, strict=True)]
    torch.testing.assert_close(gn.seq2seq_lm()(model, BATCH), torch.stack(expected))


@pytest.mark.parametrize("build", [bart, t5])
def test_with_the_average_of_its_tokens_the_mean_is_the_loss_of_hugging_face(build: Any) -> None:
    model = build().eval()
    losses = gn.seq2seq_lm(tokens_per_sequence=BATCH)(model, BATCH)
    torch.testing.assert_close(losses.mean(), model(**BATCH).loss)


@pytest.mark.parametrize("build", [bart, t5])
def test_it_is_measured_by_hooks(build: Any) -> None:
    """The loss that the model computes beside its logits takes no part."""
    model = build().eval()
    assert gn.explain_engine(model, gn.seq2seq_lm(), BATCH).engine == "hooks"
    norms = [
        gn.per_sample_sq_norms(model, gn.seq2seq_lm(), BATCH, engine=engine)
        for engine in ("hooks", "loop")
    ]
    torch.testing.assert_close(*norms, rtol=1e-5, atol=0)
