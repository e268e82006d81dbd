"""Per-sequence losses of masked language models."""

from __future__ import annotations

import torch
from torch.nn import functional as F

import gradnoise as gn
from tests.language import MASKED_LABELS, PADDED, masked_model

BATCH = {**PADDED, "labels": MASKED_LABELS}


def test_losses_are_means_over_each_sequences_masked_tokens() -> None:
    model = masked_model().eval()
    logits = model(**PADDED).logits
    expected = [F.cross_entropy(row, own) for row, own in zip(logits, MASKED_LABELS, strict=True)]
    torch.testing.assert_close(gn.masked_lm()(model, BATCH), torch.stack(expected))


def test_with_the_average_of_its_tokens_the_mean_is_the_loss_of_hugging_face() -> None:
    model = masked_model().eval()
    losses = gn.masked_lm(tokens_per_sequence=BATCH)(model, BATCH)
    torch.testing.assert_close(losses.mean(), model(**BATCH).loss)
    assert abs(gn.masked_lm()(model, BATCH).mean() - losses.mean()) > 1e-4


def test_it_is_measured_by_hooks() -> None:
    model = masked_model().eval()
    assert gn.explain_engine(model, gn.masked_lm(), BATCH).engine == "hooks"
    norms = [
        gn.per_sample_sq_norms(model, gn.masked_lm(), BATCH, engine=engine)
        for engine in ("hooks", "loop")
    ]
    torch.testing.assert_close(*norms, rtol=1e-5, atol=0)
