"""Each helper is held to the loss that the model returns itself."""

from __future__ import annotations

import copy
import gc
import random
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

import gradnoise as gn
from gradnoise import LossError
from gradnoise.problem.losses.own_loss import _HELD
from tests.language import (
    LABELS,
    MASKED_LABELS,
    PADDED,
    TARGET,
    TOKENS,
    Bigram,
    bart,
    experts,
    language_model,
    llama,
    masked_model,
    t5,
)

HELPERS = {"causal_lm": gn.causal_lm, "masked_lm": gn.masked_lm, "seq2seq_lm": gn.seq2seq_lm}
OTHERS = ((TOKENS + 3) % 11).masked_fill(LABELS == -100, -100)
MODELS: dict[str, tuple[Any, dict[str, Tensor], set[str]]] = {
    "GPT-2": (language_model, {**PADDED, "labels": LABELS}, {"causal_lm"}),
    "GPT-2 without labels": (language_model, PADDED, {"causal_lm"}),
    "Llama": (llama, {**PADDED, "labels": LABELS}, {"causal_lm"}),
    "BERT": (masked_model, {**PADDED, "labels": MASKED_LABELS}, {"masked_lm", "seq2seq_lm"}),
    "BART": (bart, {**PADDED, "labels": TARGET}, {"seq2seq_lm"}),
    "BART, equal lengths": (bart, {**PADDED, "labels": OTHERS}, {"seq2seq_lm"}),
    "T5": (t5, {**PADDED, "labels": TARGET}, {"seq2seq_lm"}),
}


@pytest.mark.parametrize("helper", HELPERS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_a_helper_agrees_with_the_models_own_loss_or_names_the_one_that_does(
    name: str, helper: str, train: bool
) -> None:
    build, batch, right = MODELS[name]
    if helper not in right and "labels" not in batch:
        return
    torch.manual_seed(0)
    model = build().train(train)
    if helper not in right:
        message = rf"^gn\.{helper}\(\) gives .* gn\.({'|'.join(right)})\(\) gives that"
        with pytest.raises(LossError, match=message):
            HELPERS[helper]()(model, batch)
    (cure, *_) = sorted(right)
    losses = HELPERS[cure](tokens_per_sequence=batch)(model.eval(), batch)
    theirs = model(**{"labels": LABELS, **batch}).loss
    torch.testing.assert_close(losses.mean().double(), theirs.double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["Llama", "BERT", "BART", "T5"])
@pytest.mark.parametrize("helper", HELPERS)
def test_half_precision_hides_no_other_loss(name: str, helper: str, dtype: torch.dtype) -> None:
    build, batch, right = MODELS[name]
    torch.manual_seed(0)
    model = build().to(dtype)
    if helper in right:
        assert HELPERS[helper]()(model, batch).dtype == torch.float32
        return
    with pytest.raises(LossError, match="gives that: use it"):
        HELPERS[helper]()(model, batch)


def test_a_loss_with_other_terms_is_an_error_whose_cure_works() -> None:
    torch.manual_seed(0)
    model, batch = experts(), {**PADDED, "labels": LABELS}
    with pytest.raises(LossError, match=r"other terms \(an auxiliary loss.*Use gn\.model_loss\(\)"):
        gn.causal_lm()(model, batch)
    torch.testing.assert_close(gn.model_loss()(model, batch), model(**batch).loss)


class Own(Bigram):
    """Returns a loss of its own."""

    def __init__(self) -> None:
        super().__init__(words=11)
        self.calls = self.without = 0
        self.noise = self.factor = 0.0

    def forward(self, input_ids: Tensor, attention_mask: Any = None, labels: Any = None) -> Any:
        self.calls += 1
        logits = self.table(input_ids)
        if labels is None:
            return SimpleNamespace(logits=logits)
        shifted = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        loss = F.cross_entropy(*shifted) * (1 + self.factor) + self.noise * torch.rand(())
        return SimpleNamespace(logits=logits, loss=loss)


def own(**options: float) -> Own:
    model = Own()
    for name, value in options.items():
        setattr(model, name, value)
    return model


BATCH = {**PADDED, "labels": LABELS}


def calls_of(model: Own, batch: Any = BATCH) -> int:
    """Calls within a loss function; attributes are as found after the comparison."""
    seen: list[int] = []
    handle = model.register_forward_pre_hook(lambda *_: seen.append(1))
    gn.causal_lm()(model, batch)
    handle.remove()
    return len(seen)


def test_it_costs_two_calls_once_per_model() -> None:
    model = own()
    assert calls_of(model) == 3
    assert calls_of(model) == 1
    assert calls_of(copy.deepcopy(model)) == 3


def test_a_few_sequences_are_enough() -> None:
    sizes: list[int] = []
    model = own()
    model.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    gn.causal_lm()(model, {key: value.repeat(7, 1) for key, value in BATCH.items()})
    assert sizes == [4, 4, 21]


def test_models_are_forgotten_when_they_are_gone() -> None:
    model = own()
    gn.causal_lm()(model, BATCH)
    assert model in _HELD
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_sequences_without_tokens_that_count_tell_nothing() -> None:
    model = own(factor=1.0)
    empty = {**BATCH, "labels": torch.full_like(LABELS, -100)}
    assert calls_of(model, empty) == 1
    later = {**BATCH, "labels": torch.cat([empty["labels"][:2], LABELS[2:]])}
    with pytest.raises(LossError, match="other terms"):
        gn.causal_lm()(model, later)


def test_tensors_without_an_entry_per_sequence_stay_whole() -> None:
    class Positions(Own):
        def forward(self, input_ids: Tensor, positions: Tensor, labels: Any = None) -> Any:
            assert positions.shape == (1, 5)
            return super().forward(input_ids, labels=labels)

    batch = {"input_ids": TOKENS, "positions": torch.arange(5)[None]}
    assert gn.causal_lm()(Positions(), batch).shape == (3,)


def test_noise_that_a_seed_repeats_is_compared_and_other_noise_is_not() -> None:
    source = torch.Generator()

    class Noisy(Own):
        def forward(self, input_ids: Tensor, labels: Any = None, attention_mask: Any = None) -> Any:
            output = super().forward(input_ids, attention_mask, labels)
            if labels is not None:
                output.loss = output.loss + torch.rand((), generator=source)
            return output

    with pytest.raises(LossError, match="other terms"):
        gn.causal_lm()(own(noise=1.0), BATCH)
    assert gn.causal_lm()(Noisy(), BATCH).shape == (3,)


def test_a_loss_in_rounded_numbers_is_compared_as_such() -> None:
    class Rounded(Own):
        def forward(self, input_ids: Tensor, labels: Any = None, attention_mask: Any = None) -> Any:
            output = super().forward(input_ids, attention_mask, labels)
            if labels is not None:
                output.loss = (output.loss * (1 + self.factor)).bfloat16()
            return output

    assert gn.causal_lm()(Rounded().bfloat16(), BATCH).shape == (3,)
    with pytest.raises(LossError, match="other terms"):
        gn.causal_lm()(Rounded(), BATCH)  # in float64
    model = Rounded().bfloat16()
    model.factor = 0.05
    with pytest.raises(LossError, match="other terms"):
        gn.causal_lm()(model, BATCH)


class Without(Bigram):
    """Takes labels and returns no loss."""

    def forward(self, input_ids: Tensor, **others: Any) -> Any:
        return super().forward(input_ids)


class Fails(Bigram):
    def forward(self, input_ids: Tensor, **others: Any) -> Any:
        if "labels" in others:
            raise self.error
        return super().forward(input_ids)


class Exhausted(Fails):
    error = RuntimeError("CUDA out of memory")


class Mistaken(Fails):
    error = KeyError("labels")  # type: ignore[assignment]


@pytest.mark.parametrize("kind", [Without, Mistaken])
def test_models_without_a_loss_of_their_own_are_let_through(kind: Any) -> None:
    assert gn.causal_lm()(kind(words=11), BATCH).shape == (3,)


def test_memory_that_runs_out_is_told() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        gn.causal_lm()(Exhausted(words=11), BATCH)


def test_under_a_transform_nothing_is_compared_and_nothing_remembered() -> None:
    model = own(factor=1.0)
    weights = {name: torch.stack([p.detach()] * 2) for name, p in model.named_parameters()}

    class Bound(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self) -> Tensor:
            return gn.causal_lm()(self.model, BATCH)

    named = {f"model.{name}": value for name, value in weights.items()}
    assert vmap(lambda values: functional_call(Bound(), values, ()))(named).shape == (2, 3)
    with pytest.raises(LossError, match="other terms"):
        gn.causal_lm()(model, BATCH)


def test_everything_is_as_found() -> None:
    class Counting(Own):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(5)
            self.drop = nn.Dropout(0.5)
            self.double()

        def forward(self, input_ids: Tensor, attention_mask: Any = None, labels: Any = None) -> Any:
            output = super().forward(input_ids, attention_mask, labels)
            random.random()
            np.random.rand()
            self.drop(self.norm(output.logits))
            return output

    model = Counting()
    gn.causal_lm()(model, BATCH)
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    again = Counting()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    with pytest.raises(LossError, match="gives that"):
        gn.masked_lm()(again, BATCH)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # type: ignore[index]
    assert again.training
    assert again.norm.num_batches_tracked == 0
    assert again.calls == 0


def test_a_measurement_of_the_wrong_loss_is_refused() -> None:
    model, batch = masked_model().eval(), {**PADDED, "labels": MASKED_LABELS}
    with pytest.raises(LossError, match=r"gn\.masked_lm\(\) gives that"):
        gn.per_sample_sq_norms(model, gn.causal_lm(), batch)
    norms = gn.per_sample_sq_norms(model, gn.masked_lm(weights="equal"), batch)
    model.zero_grad()
    loss = F.cross_entropy(model(**PADDED).logits[1], MASKED_LABELS[1])
    alone = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    torch.testing.assert_close(
        norms[1].float(), sum(g.square().sum() for g in alone if g is not None), rtol=1e-4, atol=0
    )
