"""Engines: every model of the table, held to one backward pass per sample."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.per_sample.choice import ENGINES, choose
from gradnoise.per_sample.functional import Functional
from gradnoise.per_sample.loop import Loop
from gradnoise.problem.objective import Objective
from tests import oracles
from tests.cases import CASES, SAMPLES, Case, features, labelled, mlp, named, sequence_loss

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


@pytest.mark.parametrize("chunk", [1, 2, 4, 100])
def test_chunks_within_the_memory_budget_give_the_same_numbers(chunk: int) -> None:
    model, loss_fn, batch = CASES[0].build()
    objective = Objective(model, loss_fn)
    engine = Functional(objective, memory_budget=4 * chunk * 8 * objective.size)
    assert engine.chunk_size == chunk
    with objective.guard():
        chunks = list(engine.chunks(batch))
        (whole,) = Functional(objective).chunks(batch)
    assert max(len(c.losses) for c in chunks) == min(chunk, SAMPLES)
    joined = torch.cat([c.gradients["0.weight"] for c in chunks])
    torch.testing.assert_close(joined, whole.gradients["0.weight"], rtol=1e-12, atol=1e-15)


def chosen(case: Case) -> Any:
    model, loss_fn, batch = case.build()
    objective = Objective(model, loss_fn)
    with objective.guard():
        return choose(objective, batch)


@pytest.mark.parametrize("case", CASES, ids=named)
def test_auto_takes_the_fast_engine_wherever_it_is_right(case: Case) -> None:
    engine = chosen(case)
    assert engine.name == case.engines[0]
    assert bool(engine.failures) == (case.engines[0] != "hooks")
    assert engine.reason


def captured() -> tuple[nn.Module, Any]:
    """A penalty on parameters taken from outside, which torch.func cannot see."""
    model = mlp().double()
    weights = list(model.parameters())

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return model(batch).square().sum(-1) + sum(w.square().sum() for w in weights)

    return model, loss


def test_parameters_captured_from_outside_are_measured() -> None:
    model, loss = captured()
    batch = features()
    truth = oracles.dense(model, loss, batch, second=False).gradients
    norms = gn.per_sample_sq_norms(model, loss, batch, engine="hooks")
    torch.testing.assert_close(norms, truth.square().sum(1), rtol=1e-9, atol=0)
    with pytest.raises(gn.EngineError, match="differs from the plain one"):
        gn.per_sample_sq_norms(model, loss, batch, engine="functional")


def test_a_parameter_whose_gradient_is_not_finite_does_not_excuse_the_others() -> None:
    model, loss = captured()

    def broken(model: nn.Module, batch: Any) -> Tensor:
        return loss(model, batch) + (0 * model[0].weight).sum().sqrt()

    with pytest.raises(gn.EngineError, match="differs from the plain one"):
        gn.per_sample_sq_norms(model, broken, features(), engine="functional")


def test_samples_that_share_their_losses_are_noticed_by_the_loop() -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        outputs = model(batch)
        return (outputs - outputs.mean(0)).square().sum(-1)

    objective = Objective(mlp().double(), loss)
    with (
        objective.guard(),
        pytest.raises(gn.CoupledSamplesError, match="single samples do not add up"),
    ):
        choose(objective, features(), "loop")


def test_falling_back_is_said_with_the_reason() -> None:
    case = CASES[-1]
    profile = gn.profile(*case.build(), probes=2)
    assert profile.engine == "loop"
    assert "data-dependent" in profile.engine_reason
    assert f"engine: {profile.engine_reason}" in profile.warnings


def test_a_named_engine_that_cannot_is_an_error_that_names_the_way_out() -> None:
    with pytest.raises(gn.EngineError, match=r"engine='functional' cannot.*engine='loop'"):
        gn.per_sample_gradients(*CASES[-1].build(), engine="functional")


def test_an_unknown_engine_is_an_error() -> None:
    with pytest.raises(gn.EngineError, match=r"one of auto, .*hooks, loop; got 'fast'"):
        gn.per_sample_gradients(*CASES[0].build(), engine="fast")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_gradient_that_is_not_finite_is_named(engine: str) -> None:
    model = nn.Linear(4, 1, bias=False).double()
    batch = features()
    batch[2] = 0.0  # sqrt at zero: the loss is finite, its slope is not

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch).square().sum(1).sqrt()

    with pytest.raises(gn.LossError, match=r"'weight' is not finite for 1 of .*\(positions \[\d\]"):
        gn.per_sample_sq_norms(model, loss, batch, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_loss_that_is_not_finite_is_an_error_in_every_engine(engine: str) -> None:
    objective = Objective(nn.Linear(4, 1).double(), lambda model, x: model(x).sum(1) / 0.0)
    with objective.guard(), pytest.raises(gn.LossError, match="not finite"):
        list(ENGINES[engine](objective).chunks(features()))


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
        expected = sum(float(g.square().sum()) for g in own)
        assert float(norms[i]) == pytest.approx(expected, rel=1e-6)  # theirs casts to float32


def test_our_loop_agrees_with_backpack() -> None:
    from backpack import backpack, extend
    from backpack.extensions import BatchGrad

    model, _, (inputs, labels) = CASES[0].build()
    ours = gn.per_sample_gradients(model, nn.CrossEntropyLoss(), (inputs, labels), engine="loop")
    twin, criterion = extend(mlp().double()), extend(nn.CrossEntropyLoss(reduction="sum"))
    twin.load_state_dict(model.state_dict())
    with backpack(BatchGrad()):
        criterion(twin(inputs), labels).backward()
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(parameter.grad_batch, ours[name], rtol=1e-10, atol=1e-13)


def test_a_compiled_model_is_measured_like_the_plain_one() -> None:
    model, loss_fn, batch = CASES[0].build()
    plain = gn.per_sample_sq_norms(model, loss_fn, batch)
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(gn.per_sample_sq_norms(compiled, loss_fn, batch), plain)


def test_the_loop_needs_no_more_than_one_sample() -> None:
    objective = Objective(nn.Linear(4, 3).double(), nn.CrossEntropyLoss())
    inputs, labels = labelled()
    with objective.guard():
        (chunk,) = Loop(objective).chunks((inputs[:1], labels[:1]))
    assert chunk.losses.shape == (1,)
    assert SimpleNamespace(**chunk.gradients).weight.shape == (1, 3, 4)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_gradient_that_is_not_finite_leaves_the_model_as_found_at_once(engine: str) -> None:
    """Also while the error, and with it every frame it went through, is still held."""
    model = nn.Linear(4, 1, bias=False).double()
    model(features()).sum().backward()
    batch = features()
    batch[2] = 0.0
    grad, state = model.weight.grad, torch.get_rng_state()
    with pytest.raises(gn.LossError, match="not finite") as held:
        gn.per_sample_sq_norms(
            model, lambda m, x: m(x).square().sum(1).sqrt(), batch, engine=engine
        )
    assert model.weight.grad is grad
    assert torch.equal(torch.get_rng_state(), state)
    assert held.value


@pytest.mark.parametrize("first", range(1, 13))
@pytest.mark.parametrize("engine", ["auto", "loop"])
def test_an_error_that_every_engine_meets_is_the_users_own(engine: str, first: int) -> None:
    calls = [0]

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        calls[0] += 1
        if calls[0] >= first:
            raise KeyError("a bug in my loss_fn")
        return model(batch).square().sum(1)

    with pytest.raises(KeyError, match="a bug in my loss_fn"):
        gn.gradient_moments(nn.Linear(3, 2), loss_fn, torch.randn(8, 3), engine=engine)
