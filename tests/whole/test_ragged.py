"""Samples that no tensor holds together, held to gradients and Hessians that are written out."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import gradnoise as gn
from gradnoise.problem.problem import Problem
from gradnoise.tensors.ragged import opened
from tests.ragged_cases import CASES, COUNT, Case, GraphNet, Graphs, graph_loss, masked_loss
from tests.unit_cases import groups_of, written_out

EXACT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-12}


def loader(case: Case, size: int = 5) -> DataLoader[Any]:
    return DataLoader(case.samples, batch_size=size, shuffle=True, collate_fn=case.collate)


@functools.cache
def truth(name: str) -> tuple[Tensor, Tensor]:
    """Of every sample alone, (n, P) and (n, P, P); only read."""
    case = CASES[name]
    model = case.model()
    batches = [case.collate([copy.copy(own)]) for own in copy.deepcopy(case.samples)]
    return written_out(model, [case.loss_fn(model, batch).reshape(()) for batch in batches])


@pytest.fixture(scope="module", params=CASES)
def known(request: Any) -> Any:
    case = CASES[request.param]
    return case, case.model(), *truth(request.param)


def test_moments_and_norms(known: Any) -> None:
    case, model, gradients, _ = known
    found = gn.gradient_moments(model, case.loss_fn, loader(case), variance=True)
    sigma = torch.cov(gradients.T)
    mean = gradients.mean(0)
    assert found.trace_cov.samples == COUNT
    torch.testing.assert_close(torch.cat([m.flatten() for m in found.mean.values()]), mean, **EXACT)
    assert float(found.trace_cov) == pytest.approx(float(sigma.trace()), rel=1e-9)
    assert float(found.grad_sq_norm) == pytest.approx(float(mean @ mean), rel=1e-9)
    torch.testing.assert_close(
        torch.cat([v.flatten() for v in found.variance.values()]), sigma.diagonal(), **EXACT
    )
    measured = gn.measure(model, case.loss_fn, loader(case))
    assert (measured.engine.name, measured.unit.kind) == (case.engine, "sample")


def test_curvature(known: Any) -> None:
    case, model, gradients, hessians = known
    top = torch.linalg.eigvalsh(hessians.mean(0))[-1]
    found = gn.sharpness(model, case.loss_fn, loader(case), tol=1e-9)
    assert float(found.estimate) == pytest.approx(float(top), rel=1e-6)
    p = gn.profile(model, case.loss_fn, loader(case))
    assert (p.unit, p.samples, p.population, p.batch_size) == ("sample", COUNT, COUNT, 5)
    noise = float((hessians.mean(0) @ torch.cov(gradients.T)).trace())
    assert p.trace_hessian_cov.low <= noise <= p.trace_hessian_cov.high


def test_a_batch_that_is_put_together_already(known: Any) -> None:
    """One batch, and a list of them: samples are taken out of it where there is a way."""
    case, model, gradients, _ = known
    trace = float(torch.cov(gradients.T).trace())
    whole = case.collate(copy.deepcopy(case.samples))
    several = [case.collate(copy.deepcopy(own)) for own in (case.samples[:8], case.samples[8:])]
    if case.collate is CASES["padding"].collate:
        with pytest.raises(gn.DataError, match=r"must agree.*pass the DataLoader or the Dataset"):
            gn.gradient_moments(model, case.loss_fn, whole)
        return
    norms = gn.per_sample_sq_norms(model, case.loss_fn, whole)
    torch.testing.assert_close(norms, gradients.square().sum(1), **EXACT)
    for data in (whole, several) if case.collate is not CASES["list of dicts"].collate else ():
        found = gn.gradient_moments(model, case.loss_fn, data)
        assert float(found.trace_cov) == pytest.approx(trace, rel=1e-9)


def test_nothing_of_the_samples_is_changed(known: Any) -> None:
    """Losses and collate functions here take entries out of what they are given."""
    case, model, _, _ = known

    def entries() -> list[Any]:
        plain = [own[1] if isinstance(own, tuple) else own for own in case.samples]
        return [dict(own) if isinstance(own, dict) else dict(vars(own)) for own in plain]

    before = entries()
    gn.gradient_moments(model, case.loss_fn, loader(case))
    for own, other in zip(before, entries(), strict=True):
        assert list(own) == list(other)
        assert all(own[name] is other[name] for name in own)


def test_groups_of_samples(known: Any) -> None:
    """One number for a batch: groups of the size of the loader, held to the same batches."""
    case, model, _, _ = known

    def mean(model: nn.Module, batch: Any) -> Tensor:
        return case.loss_fn(model, batch).mean()

    problem = Problem.open(model, mean, loader(case, 6))
    assert (problem.unit.kind, problem.unit.size) == ("group", 6)
    losses = [mean(model, opened(group)) for group in groups_of(problem)]
    gradients, _ = written_out(model, losses)
    found = gn.gradient_moments(model, mean, loader(case, 6), population="distribution")
    sigma = 6 * torch.cov(gradients.T)
    assert found.trace_cov.samples == COUNT
    assert float(found.trace_cov) == pytest.approx(float(sigma.trace()), rel=1e-9)


def test_groups_with_batch_normalisation_are_batches_of_training() -> None:
    case = CASES["graphs"]
    model = replace(case, make=lambda: GraphNet(nn.BatchNorm1d(4))).model()
    before = copy.deepcopy(model.state_dict())
    batches = [Graphs.from_data_list(case.samples[k : k + 6]) for k in range(0, COUNT, 6)]
    gradients, hessians = written_out(model, [graph_loss(model, own).mean() for own in batches])
    model.load_state_dict(before)
    found = gn.gradient_moments(model, graph_loss, batches, population="distribution")
    sigma = 6 * torch.cov(gradients.T)
    assert float(found.trace_cov) == pytest.approx(float(sigma.trace()), rel=1e-9)
    vector = torch.ones(gradients.shape[1], dtype=torch.float64)
    product = gn.Hessian(model, graph_loss, batches) @ vector
    torch.testing.assert_close(product, hessians.mean(0) @ vector, **EXACT)
    assert all(torch.equal(own, before[name]) for name, own in model.state_dict().items())


def test_dropout_on_samples_that_differ_in_size_is_no_coupling() -> None:
    case = CASES["graphs"]
    p = gn.profile(GraphNet(nn.Dropout(0.3)).double(), graph_loss, loader(case))
    assert p.unit == "sample"
    assert "draws" in p.randomness


def test_a_loss_that_is_divided_by_a_count_is_coupled_under_dropout_too() -> None:
    case = CASES["graphs"]
    model = GraphNet(nn.Dropout(0.3)).double()
    p = gn.profile(model, lambda m, b: graph_loss(m, b) / len(b.y), loader(case))
    assert p.unit == "group"


def test_a_collate_function_that_draws_is_replayed() -> None:
    """Its draws are made anew in every pass, from the same random state."""
    case = CASES["padding"]

    def masking(samples: list[Any]) -> Any:
        batch = case.collate(samples)
        return {**batch, "x": batch["x"] * (torch.rand_like(batch["x"]) > 0.3)}

    data = DataLoader(case.samples, batch_size=6, collate_fn=masking)
    first, second = (gn.profile(case.model(), masked_loss, data) for _ in range(2))
    assert "draws random numbers" in first.randomness
    assert float(first.trace_cov) == float(second.trace_cov)


@pytest.mark.parametrize("name", CASES)
def test_training_on_samples_is_training_on_their_positions(name: str) -> None:
    """What people do by hand: the batch is a tensor of positions, and the loss collates."""
    case = CASES[name]

    def by_hand(model: nn.Module, batch: Any) -> Tensor:
        chosen = [copy.deepcopy(case.samples[k]) for k in batch[0].tolist()]
        return case.loss_fn(model, case.collate(chosen))

    def trained(loss_fn: Any, data: Any) -> Tensor:
        model = case.model()
        sgd = torch.optim.SGD(model.parameters(), lr=0.05)
        found = gn.cooled(model, loss_fn, data, sgd, steps=4, batch_size=5)
        return nn.utils.parameters_to_vector(found.parameters())

    ordered = DataLoader(case.samples, batch_size=5, collate_fn=case.collate)
    ours, theirs = trained(case.loss_fn, ordered), trained(by_hand, (torch.arange(COUNT),))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_sweep_gives_its_metrics_what_training_gives_its_loss() -> None:
    case = CASES["graphs"]

    def misses(model: nn.Module, batch: Any) -> Tensor:
        return (graph_loss(model, batch) > 1).double()

    data = DataLoader(case.samples, batch_size=6, collate_fn=case.collate)
    options: dict[str, Any] = {"batch_sizes": [3], "lrs": [0.01], "epochs": 1}
    found = gn.sweep(
        case.model, graph_loss, data, test_data=data, metrics={"misses": misses}, **options
    )
    (record,) = found.records
    assert 0 <= record.metrics["misses"] <= 1


def test_samples_of_one_length_say_nothing_of_the_next_ones() -> None:
    """Two rows each in the first batch; in the second one and three, as many in all."""
    source = torch.Generator().manual_seed(1)
    rows = [torch.randn(n, 3, generator=source).double() for n in [2] * 8 + [1, 3] * 4]

    def joined(samples: list[Tensor]) -> Any:
        owner = torch.arange(len(samples)).repeat_interleave(torch.tensor([*map(len, samples)]))
        return torch.cat(samples), owner, len(samples)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        inputs, owner, count = batch
        each = model(inputs)[:, 0].square()
        return torch.zeros(count, dtype=each.dtype).index_add(0, owner, each)

    torch.manual_seed(0)
    model = nn.Linear(3, 1).double()
    data = DataLoader(rows, batch_size=8, collate_fn=joined)
    gradients, _ = written_out(model, [loss(model, joined([own]))[0] for own in rows])
    found = gn.gradient_moments(model, loss, data)
    assert float(found.trace_cov) == pytest.approx(float(torch.cov(gradients.T).trace()), rel=1e-9)
