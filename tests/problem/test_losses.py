"""Per-sample losses of criteria and language models."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradnoise import ArgumentError, LossError, causal_lm, supervised

N, C, T = 4, 3, 5
OUTPUT = torch.randn(N, C, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SEQUENCE = torch.randn(N, C, T, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
CLASSES, TAGS = torch.tensor([0, 2, 1, 1]), torch.arange(N * T).reshape(N, T) % C
UNIT = torch.sigmoid(OUTPUT)
WEIGHT = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

CRITERIA = [
    (nn.CrossEntropyLoss(), OUTPUT, CLASSES),
    (nn.CrossEntropyLoss(label_smoothing=0.1), OUTPUT, CLASSES),
    (nn.CrossEntropyLoss(), OUTPUT, OUTPUT.softmax(1)),
    (nn.CrossEntropyLoss(), SEQUENCE, TAGS),
    (nn.CrossEntropyLoss(weight=WEIGHT, reduction="sum"), SEQUENCE, TAGS),
    (nn.NLLLoss(), OUTPUT.log_softmax(1), CLASSES),
    (nn.MSELoss(), OUTPUT, UNIT),
    (nn.MSELoss(reduction="sum"), OUTPUT, UNIT),
    (nn.L1Loss(), OUTPUT, UNIT),
    (nn.HuberLoss(), SEQUENCE, SEQUENCE.flip(0)),
    (nn.BCEWithLogitsLoss(pos_weight=WEIGHT), OUTPUT, UNIT),
    (nn.KLDivLoss(reduction="batchmean"), OUTPUT.log_softmax(1), OUTPUT.softmax(1)),
    (nn.PoissonNLLLoss(), OUTPUT, UNIT),
    (F.mse_loss, OUTPUT, UNIT),
    (F.cross_entropy, OUTPUT, CLASSES),
]


@pytest.mark.parametrize(("criterion", "outputs", "targets"), CRITERIA)
def test_each_loss_is_the_criterion_of_that_sample_alone(
    criterion: Any, outputs: Tensor, targets: Tensor
) -> None:
    losses = supervised(criterion)(nn.Identity(), (outputs, targets))
    alone = [criterion(outputs[i : i + 1], targets[i : i + 1]) for i in range(N)]
    assert losses.shape == (N,)
    torch.testing.assert_close(losses, torch.stack(alone), rtol=1e-13, atol=1e-13)


def test_ignored_positions_do_not_count_in_a_samples_mean() -> None:
    targets = TAGS.clone()
    targets[0, 2:] = -100
    targets[1] = -100
    losses = supervised(nn.CrossEntropyLoss())(nn.Identity(), (SEQUENCE, targets))
    kept = F.cross_entropy(SEQUENCE[:1, :, :2], TAGS[:1, :2])
    torch.testing.assert_close(losses[0], kept)
    assert losses[1] == 0


def test_a_bare_function_ignores_what_it_ignores_by_default() -> None:
    targets = TAGS.clone()
    targets[0, 2:] = -100
    bare, module = (
        supervised(criterion)(nn.Identity(), (SEQUENCE, targets))
        for criterion in (F.cross_entropy, nn.CrossEntropyLoss())
    )
    assert torch.equal(bare, module)


def test_the_logits_of_an_output_object_are_compared() -> None:
    class Output(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return SimpleNamespace(logits=x)

    losses = supervised(nn.MSELoss())(Output(), (OUTPUT, UNIT))
    assert torch.equal(losses, supervised(nn.MSELoss())(nn.Identity(), (OUTPUT, UNIT)))


def test_the_criterion_itself_stays_as_it_was() -> None:
    criterion = nn.MSELoss()
    supervised(criterion)
    assert criterion.reduction == "mean"


@pytest.mark.parametrize("kind", [nn.CrossEntropyLoss, nn.NLLLoss])
def test_class_weights_with_a_batch_wide_mean_are_refused(kind: Any) -> None:
    with pytest.raises(LossError, match=r"class weights of the whole batch.*reduction='sum'"):
        supervised(kind(weight=WEIGHT))


@pytest.mark.parametrize(
    ("criterion", "batch", "message"),
    [
        (nn.MSELoss(reduction="none"), (OUTPUT, UNIT), r"several per sample; pass reduction="),
        (nn.MSELoss(), OUTPUT, r"needs batches \(inputs, targets\); got Tensor"),
        (nn.MSELoss(), (OUTPUT, UNIT, UNIT), r"got tuple of 3"),
        (nn.MSELoss(), (OUTPUT[:, :1], UNIT[:, 0]), r"broadcast to \(4, 4\); give them the same"),
        (nn.MSELoss(), ((OUTPUT,), UNIT), r"returns a tensor; this one returned tuple"),
        (lambda x, y, reduction: (x - y).mean(), (OUTPUT, UNIT), r"single number for the whole"),
    ],
)
def test_what_has_no_per_sample_losses_is_an_error(
    criterion: Any, batch: Any, message: str
) -> None:
    with pytest.raises(LossError, match=message):
        supervised(criterion)(nn.Identity(), batch)


def test_a_criterion_without_reduction_is_refused() -> None:
    with pytest.raises(LossError, match=r"Identity has no `reduction`"):
        supervised(nn.Identity())


class Bigram(nn.Module):
    """Logits that depend on the current token alone."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 7, dtype=torch.float64)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        return SimpleNamespace(logits=self.table(input_ids))


IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 1, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


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


def language_model() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    return GPT2LMHeadModel(config).double().eval()


LENGTHS = (5, 3, 4)
TOKENS = torch.randint(11, (3, 5), generator=torch.Generator().manual_seed(2))
RIGHT = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
PADDED = {"input_ids": TOKENS, "attention_mask": RIGHT}
LABELS = TOKENS.masked_fill(RIGHT == 0, -100)


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
