"""Gradients and norms of one batch, for every model of the table, held to single samples."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gradnoise as gn
from tests import oracles
from tests.cases import CASES, SAMPLES, Case, features, mlp, sequence_loss

PAIRS = [(case, engine) for case in CASES for engine in (*case.engines, "auto")]


def flat(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([gradient.reshape(SAMPLES, -1) for gradient in gradients.values()], dim=1)


@pytest.mark.parametrize(("case", "engine"), PAIRS, ids=lambda x: getattr(x, "name", x))
def test_gradients_and_norms_are_those_of_single_samples(case: Case, engine: str) -> None:
    model, loss_fn, batch = case.build()
    truth = oracles.dense(model, loss_fn, batch, second=False).gradients
    gradients = gn.per_sample_gradients(model, loss_fn, batch, engine=engine)
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert list(gradients) == trainable
    torch.testing.assert_close(flat(gradients), truth, rtol=1e-9, atol=1e-12)
    norms = gn.per_sample_sq_norms(model, loss_fn, batch, engine=engine)
    torch.testing.assert_close(norms, truth.square().sum(1), rtol=1e-9, atol=1e-15)


def test_norms_per_parameter_add_up_to_the_whole() -> None:
    model, loss_fn, batch = CASES[0].build()
    parts = gn.per_sample_sq_norms(model, loss_fn, batch, per_parameter=True)
    assert list(parts) == [name for name, _ in model.named_parameters()]
    whole = gn.per_sample_sq_norms(model, loss_fn, batch)
    torch.testing.assert_close(torch.stack(list(parts.values())).sum(0), whole)


def test_bfloat16_agrees_with_float64_to_its_own_digits() -> None:
    model, loss_fn, (inputs, labels) = CASES[0].build()
    truth = oracles.dense(model, loss_fn, (inputs, labels), second=False).gradients
    half = gn.per_sample_gradients(model.bfloat16(), loss_fn, (inputs.bfloat16(), labels))
    assert half["0.weight"].dtype == torch.bfloat16
    error = (flat(half).double() - truth).norm() / truth.norm()
    assert error < 0.02


def test_float32_norms_are_accumulated_in_float64() -> None:
    norms = gn.per_sample_sq_norms(mlp(), sequence_loss, features().float())
    assert norms.dtype == torch.float64


def test_hugging_face_models_are_measured_with_their_masks() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    model = GPT2LMHeadModel(config).double().eval()
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
    batch = {"input_ids": torch.randint(11, (3, 5)), "attention_mask": mask}
    model.zero_grad()
    norms = gn.per_sample_sq_norms(model, gn.causal_lm(), batch)
    for i in range(3):
        length = int(mask[i].sum())
        ids = batch["input_ids"][i : i + 1, :length]
        alone = model(input_ids=ids, labels=ids).loss  # their own loss of the unpadded sequence
        own = torch.autograd.grad(alone, list(model.parameters()))
        share = (length - 1) / 3  # its tokens over the average of 4, 2 and 3
        expected = share**2 * sum(float(g.square().sum()) for g in own)
        assert float(norms[i]) == pytest.approx(expected, rel=1e-6)  # theirs casts to float32


def test_a_compiled_model_is_measured_like_the_plain_one() -> None:
    model, loss_fn, batch = CASES[0].build()
    plain = gn.per_sample_sq_norms(model, loss_fn, batch)
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(gn.per_sample_sq_norms(compiled, loss_fn, batch), plain)
