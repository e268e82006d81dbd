"""One case measured, and held to what is written out."""

from __future__ import annotations

import os
import random
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.linalg.iteration import Eigenpairs
from gradnoise.linalg.lanczos import lanczos
from gradnoise.measurement.opened import Opened
from gradnoise.per_sample.contract.summary import Wanted
from gradnoise.problem.options import Options
from gradnoise.problem.problem import Problem
from gradnoise.problem.unit import Seeded

from .case import Case
from .truth import Units

LANCZOS = 1e-6  # relative residual to which λ is asked for
DIFFERENCES = 1e-3  # the same where gradnoise takes differences of gradients
QUICK = bool(os.environ.get("ZOO_QUICK"))  # the checks alone, without a profile and its cost


@dataclass(frozen=True)
class Row:
    """What the table shows of a case."""

    package: str
    name: str
    parameters: int
    unit: str
    engine: str
    curvature: str
    checked: str
    cost: str
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As built-in values."""
        return asdict(self)


def measured(case: Case) -> Row:
    """Measure a case and compare; AssertionError where anything differs."""
    _seed()
    model = case.build()
    data = case.data(torch.Generator().manual_seed(1))
    before = state(model)
    opened = Opened.open(
        model, case.loss_fn, data, Options(population="distribution", **case.options)
    )
    unit, problem = opened.unit, opened.problem
    assert (unit.kind, unit.is_replayed) == (case.unit, case.random), unit
    moments = opened.moments(intervals=False)
    norms = _norms(opened)
    pairs, hvp = _sharpest(opened, case)
    same_state(before, state(model))
    units = Units(model, case.own, _batches(problem), unit.is_group)
    gradients = units.gradients()
    _check_moments(moments, gradients, unit.size, case.rtol)
    _check_norms(norms, gradients, case.rtol)
    exact = hvp != "finite" and case.twice
    _check_curvature(pairs, exact, units, case.rtol)
    _put_back(model, before)
    curvature, cost = "λ", ""  # of the quick checks
    if not QUICK:
        curvature, cost = _profiled(case, opened, data)
    name = f"group of {unit.size}" if unit.is_group else "sample"
    return Row(
        case.package,
        case.name,
        problem.objective.size,
        name + (", replayed draws" if case.random else ""),
        opened.engine.name,
        curvature,
        "all" if exact else "all, λ by differences",
        cost,
        opened.engine.reason,
    )


def _seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


def _batches(problem: Problem) -> list[Any]:
    """Samples and seeds, as gradnoise holds them."""
    return [
        (b.batch, b.seeds) if isinstance(b, Seeded) else (b, None) for b in problem.samples.batches
    ]


def _norms(opened: Opened) -> Tensor:
    """‖g_i‖² of every unit, as the engine gives them."""
    with opened.problem.guard():
        parts = [
            torch.stack(list(summary.sq_norms.values())).sum(0)
            for batch in opened.problem.batches()
            for summary in opened.engine.summaries(batch, Wanted())
        ]
    return torch.cat(parts).double()


def _sharpest(opened: Opened, case: Case) -> tuple[Eigenpairs, str]:
    """λ and its direction, and how products were taken."""
    hessian = opened.hessian(hvp="auto")
    tol = DIFFERENCES if hessian.hvp == "finite" else max(LANCZOS, case.rtol)
    return lanczos(hessian, tol=tol), hessian.hvp


def _check_moments(found: Any, gradients: Tensor, size: int, rtol: float) -> None:
    """Mean gradient, |G|² and trΣ of a distribution from which the units were drawn."""
    mean = gradients.mean(0)
    trace = float(gradients.var(0).sum())
    signal = float(mean @ mean) - trace / len(gradients)
    ours = torch.cat([m.double().flatten() for m in found.mean.values()])
    scale = float(gradients.abs().max())
    torch.testing.assert_close(ours, mean, rtol=rtol, atol=rtol * scale)
    assert size * float(found.trace_cov) == pytest.approx(size * trace, rel=10 * rtol)
    error = 10 * rtol * (float(mean @ mean) + trace)
    assert float(found.grad_sq_norm) == pytest.approx(signal, rel=10 * rtol, abs=error)


def _check_norms(norms: Tensor, gradients: Tensor, rtol: float) -> None:
    truth = gradients.square().sum(1)
    torch.testing.assert_close(norms, truth, rtol=10 * rtol, atol=10 * rtol * float(truth.max()))


def _check_curvature(pairs: Eigenpairs, exact: bool, units: Units, rtol: float) -> None:
    """vᵀHv = λ and Hv = λv with products that are written out, or else with differences."""
    vector, value = pairs.vectors[:, 0].double(), float(pairs.values[0])
    product = (units.product if exact else units.difference)(vector)
    size = max(abs(value), float(product.norm()))
    close = 10 * (max(LANCZOS, rtol) if exact else DIFFERENCES)
    assert float(vector @ product) == pytest.approx(value, rel=close, abs=close * size)
    assert float((product - value * vector).norm()) <= 10 * close * size


def _profiled(case: Case, opened: Opened, data: Any) -> tuple[str, str]:
    """Whether a profile has curvature, and its cost in passes of training over the samples."""
    model = opened.problem.objective.model
    before = state(model)
    started = time.process_time()
    p = gn.profile(model, case.loss_fn, data, **case.options)
    spent = time.process_time() - started
    same_state(before, state(model))
    cost = f"{spent / _plain_pass(opened.problem):.0f}"
    if "sharpness" in p.estimates:
        return "yes", cost
    return "no: " + next((note for note in p.warnings if "not measured" in note), "?"), cost


def _plain_pass(problem: Problem) -> float:
    """Processor seconds of a forward and backward pass over the samples, as training does it."""
    times = []
    with problem.guard():
        for _ in range(2):
            started = time.process_time()
            for batch in problem.batches():
                problem.objective.gradient(batch)
            times.append(time.process_time() - started)
    return min(times)


def state(model: nn.Module) -> dict[str, Any]:
    """What a measurement leaves as it finds it."""
    return {
        "modes": [module.training for module in model.modules()],
        "buffers": [buffer.clone() for buffer in model.buffers()],
        "parameters": [parameter.detach().clone() for parameter in model.parameters()],
        "trained": [parameter.requires_grad for parameter in model.parameters()],
        ".grad": [parameter.grad is None for parameter in model.parameters()],
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].tolist(),  # type: ignore[index]
        "python": random.getstate(),
    }


def same_state(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Every tensor with the same bits, and the rest equal."""
    for name, found in before.items():
        if isinstance(found, list) and found and isinstance(found[0], Tensor):
            pairs = zip(found, after[name], strict=True)
            assert all(torch.equal(a, b) or bool(a.isnan().any()) for a, b in pairs), name
        elif isinstance(found, Tensor):
            assert torch.equal(found, after[name]), name
        else:
            assert found == after[name], name


def _put_back(model: nn.Module, before: dict[str, Any]) -> None:
    """Running statistics, which the passes that are written out have changed."""
    for buffer, content in zip(model.buffers(), before["buffers"], strict=True):
        buffer.copy_(content)
