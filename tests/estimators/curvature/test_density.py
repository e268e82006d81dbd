"""The spectral density of a model's Hessian: the matrix whose eigenvalues it shows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import gradnoise as gn
from tests import oracles
from tests.cases import CORE, Case, named
from tests.optimizers import by_hand, in_coordinates, trained


def seen(model: nn.Module, loss_fn: Any, batch: Any, **options: Any) -> gn.SpectralDensity:
    """As many steps as there are parameters: every rule holds all eigenvalues."""
    size = sum(p.numel() for p in model.parameters())
    return gn.spectral_density(model, loss_fn, batch, probes=3, steps=size, **options)


@pytest.mark.parametrize("case", CORE[:2], ids=named)
def test_its_rules_hold_the_eigenvalues_of_the_dense_hessian(case: Case) -> None:
    model, loss_fn, batch = case.build()
    truth = torch.linalg.eigvalsh(oracles.dense_of(case).hessian)
    found = seen(model, loss_fn, batch)
    for nodes in found.nodes:
        gaps = (torch.from_numpy(nodes)[:, None] - truth).abs().min(1).values
        assert float(gaps.max()) < 1e-9 * float(truth.abs().max())
    assert found.lower_edge == pytest.approx(float(truth[0]), rel=1e-9)
    assert found.upper_edge == pytest.approx(float(truth[-1]), rel=1e-9)
    assert found.trace.low < float(truth.sum()) < found.trace.high


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "AdamW in groups"])
def test_in_the_metric_of_an_optimizer_it_is_that_of_its_steps(name: str) -> None:
    """P^-½(H + D)P^-½ + E."""
    model, loss_fn, batch, optimizer = trained(CORE[0], name)
    dense = in_coordinates(model, oracles.dense(model, loss_fn, batch), optimizer)
    truth = torch.linalg.eigvalsh(dense.hessian + torch.diag(by_hand(optimizer)[2]))
    found = seen(model, loss_fn, batch, optimizer=optimizer, metric="optimizer")
    for nodes in found.nodes:
        gaps = (torch.from_numpy(nodes)[:, None] - truth).abs().min(1).values
        assert float(gaps.max()) < 1e-9 * float(truth.abs().max())
    assert found.lower_edge == pytest.approx(float(truth[0]), rel=1e-9)
    assert found.upper_edge == pytest.approx(float(truth[-1]), rel=1e-9)


def test_the_seed_chooses_samples_and_random_vectors() -> None:
    model, loss_fn, batch = CORE[0].build()
    options: dict[str, Any] = {"probes": 1, "steps": 4, "max_samples": 4}
    first, again, other = (
        gn.spectral_density(model, loss_fn, batch, seed=seed, **options) for seed in (0, 0, 1)
    )
    assert (first.nodes[0] == again.nodes[0]).all()
    assert first.upper_edge != other.upper_edge
    ticks: list[int] = []
    gn.spectral_density(model, loss_fn, batch, probes=3, steps=4, tick=ticks.append)
    assert ticks == [1, 1, 1]
