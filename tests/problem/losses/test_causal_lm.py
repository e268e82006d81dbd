"""Per-sequence losses of causal language models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradnoise import LossError, causal_lm
from tests.language import IDS, LABELS, LENGTHS, MASK, PADDED, RIGHT, TOKENS, Bigram, language_model


def reference(model: nn.Module, labels: Tensor) -> Tensor:
    logits = model(IDS).logits
    rows = []
    for row, own in zip(logits, labels, strict=True):
        terms = [-row[t].log_softmax(-1)[own[t + 1]] for t in range(3) if own[t + 1] != -100]
        rows.append(torch.stack(terms).mean())
    return torch.stack(rows)


@pytest.mark.parametrize("form", ["inputs serve", "padding masked", "labels given"])
def test_causal_losses_are_means_over_each_sequences_own_shifted_tokens(form: str) -> None:
    model, batch, labels = Bigram(), {"input_ids": IDS}, IDS.clone()
    if form == "padding masked":
        batch["attention_mask"] = MASK
        labels[1, 3] = -100
    if form == "labels given":
        labels[0, 1] = -100
        batch["labels"] = labels
    torch.testing.assert_close(causal_lm()(model, batch), reference(model, labels))


def test_a_sequence_without_counted_tokens_has_no_loss() -> None:
    batch = {"input_ids": IDS, "labels": torch.full_like(IDS, -100)}
    assert causal_lm()(Bigram(), batch).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("batch", "got"),
    [
        (IDS, r"Tensor of shape \(2, 4\)"),
        ([IDS], "list"),
        ({"ids": IDS}, "input_ids: NoneType"),
        ({"input_ids": IDS.tolist()}, "input_ids: list"),
        ({"input_ids": IDS[0]}, r"input_ids: Tensor of shape \(4,\)"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_causal_losses_need_a_mapping_with_token_ids(batch: Any, got: str) -> None:
    message = rf"map 'input_ids' to token ids, shape \(n, T\); got {got}$"
    with pytest.raises(LossError, match=message):
        causal_lm()(Bigram(), batch)
    with pytest.raises(LossError, match=message):
        causal_lm(tokens_per_sequence=[batch])


def test_a_mask_of_another_shape_tells_no_padding() -> None:
    batch = {"input_ids": IDS, "attention_mask": torch.ones(2, 1, 4, 4)}
    with pytest.raises(
        LossError, match=r"shape \(2, 4\) of input_ids.*got \(2, 1, 4, 4\).*`labels`"
    ):
        causal_lm()(Bigram(), batch)
    assert causal_lm()(Bigram(), {**batch, "labels": IDS}).shape == (2,)


def test_labels_of_none_are_no_labels() -> None:
    batch = {"input_ids": IDS, "attention_mask": MASK}
    model = Bigram()
    losses = causal_lm()(model, {**batch, "labels": None})
    assert torch.equal(losses, causal_lm()(model, batch))


@pytest.mark.parametrize("form", ["padding masked", "labels given", "one without labels"])
def test_with_the_average_of_its_tokens_the_mean_is_the_loss_of_hugging_face(form: str) -> None:
    model, labels = language_model(), LABELS.clone()
    if form == "one without labels":
        labels[1] = -100
    batch = PADDED if form == "padding masked" else {**PADDED, "labels": labels}
    theirs = model(**PADDED, labels=labels).loss.item()  # in float32, whatever the model is in
    for tokens in (batch, [batch], int((labels[:, 1:] != -100).sum()) / 3):
        losses = causal_lm(tokens_per_sequence=tokens)(model, batch)
        assert losses.dtype == torch.float64
        assert losses.mean().item() == pytest.approx(theirs, rel=1e-6)
    assert causal_lm()(model, batch).mean().item() != pytest.approx(theirs, rel=1e-4)


def test_losses_over_the_average_are_sums_of_the_tokens_own() -> None:
    model = language_model()
    own = model(**PADDED).logits.log_softmax(-1)
    sums = [
        -sum(own[i, t - 1, TOKENS[i, t]] for t in range(1, length))
        for i, length in enumerate(LENGTHS)
    ]
    losses = causal_lm(tokens_per_sequence=3)(model, PADDED)
    torch.testing.assert_close(losses, torch.stack(sums) / 3, rtol=1e-12, atol=0)
    counts = torch.tensor([length - 1 for length in LENGTHS])
    torch.testing.assert_close(causal_lm()(model, PADDED), losses * 3 / counts)


@pytest.mark.parametrize("tokens", [None, 3.0])
def test_a_sequence_has_the_same_loss_padded_left_or_right_or_not_at_all(tokens: Any) -> None:
    model, loss_fn = language_model(), causal_lm(tokens_per_sequence=tokens)
    shifts = [5 - length for length in LENGTHS]
    ids, mask = (
        torch.stack([row.roll(shift) for row, shift in zip(whole, shifts, strict=True)])
        for whole in (TOKENS, RIGHT)
    )
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    left = loss_fn(model, {"input_ids": ids, "attention_mask": mask, "position_ids": positions})
    torch.testing.assert_close(left, loss_fn(model, PADDED), rtol=1e-12, atol=0)
    alone = [
        loss_fn(model, {"input_ids": row[None, :length]})
        for row, length in zip(TOKENS, LENGTHS, strict=True)
    ]
    torch.testing.assert_close(left, torch.cat(alone), rtol=1e-12, atol=0)
