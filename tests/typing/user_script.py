"""A user's script, for type checkers: `mypy --strict` finds no error, and results have types.

It is never run. `make check` reads it beside the package, `make package` with the wheel installed.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import assert_type

import gradnoise as gn


def problem() -> tuple[nn.Module, nn.Module, DataLoader[tuple[Tensor, ...]]]:
    """A model, a criterion and data."""
    data = TensorDataset(torch.randn(64, 3), torch.arange(64) % 2)
    return nn.Linear(3, 2), nn.CrossEntropyLoss(), DataLoader(data, batch_size=8)


def own_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """One loss per sample."""
    inputs, targets = batch
    return nn.functional.cross_entropy(model(inputs), targets, reduction="none")


def measures(path: Path) -> None:
    """Profiles, estimates and files."""
    model, criterion, loader = problem()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    p = gn.profile(model, criterion, loader, optimizer=optimizer, progress=True)
    assert_type(p, gn.Profile)
    assert_type(p.noise_scale, gn.Estimate)
    assert_type(float(p.sharpness), float)
    assert_type(p.noise_scale.low, float)
    assert_type(p.noise_scale.status, gn.Status)
    assert_type(p.max_lr(32), gn.Estimate)
    assert_type(p.recommend(), gn.Recommendation)
    assert_type(p.layers["weight"], gn.Layer)
    p.plot(path)
    p.save(path)
    assert_type(gn.Profile.load(path), gn.Profile)
    assert_type(gn.pool([p, p]), gn.Pool)
    assert_type(gn.pool(path), gn.RunPool)
    opened = gn.measure(model, own_loss, loader)
    assert_type(opened, gn.Measurement)
    assert_type(opened.noise_scale(), gn.NoiseScale)
    assert_type(opened.moments(), gn.GradientMoments)
    assert_type(gn.__version__, str)


def matrices() -> None:
    """Operators, and what is computed of them."""
    model, criterion, loader = problem()
    hessian = gn.Hessian(model, criterion, loader)
    vector = torch.ones(8)
    assert_type(hessian @ vector, Tensor)
    assert_type(hessian.T @ vector, Tensor)
    assert_type((hessian + 0.1 * hessian) @ vector, Tensor)
    assert_type(gn.GradientCovariance(model, criterion, loader) @ vector, Tensor)
    assert_type(gn.lanczos(hessian, k=2).values, Tensor)
    assert_type(gn.trace(hessian), gn.Estimate)
    density = gn.spectral_density(model, criterion, loader)
    assert_type(density, gn.SpectralDensity)
    density.plot()
    gradients = gn.per_sample_gradients(model, criterion, next(iter(loader)))
    assert_type(gradients, dict[str, Tensor])


def training(path: Path) -> None:
    """The monitor, sweeps, branches and advice."""
    model, criterion, loader = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = gn.NoiseMonitor(model, optimizer, every=10, sink=path)
    for inputs, targets in loader:
        with monitor.step(len(inputs)):
            criterion(model(inputs), targets).backward()
        optimizer.step()
    assert_type(monitor.noise_scale, gn.SimpleNoiseScale)
    assert_type(monitor.values(), dict[str, float])
    assert_type(gn.advise(model, criterion, loader, optimizer), gn.Advice)
    found = gn.branch(model, criterion, loader, optimizer, batch_sizes=[8, 16], samples=64)
    assert_type(found, gn.Branches)
    found.plot(path)
    sweep = gn.sweep(
        lambda: nn.Linear(3, 2), criterion, loader, batch_sizes=[8], lrs=[0.1, 0.2], epochs=1
    )
    assert_type(sweep, gn.Sweep)
    sweep.plot(path)


def formulas() -> None:
    """Functions of numbers."""
    assert_type(gn.stable_lr(2.0), float)
    assert_type(gn.scale_lr(0.1, 32, 64), float)
    assert_type(gn.regime(32, 100.0), str)
