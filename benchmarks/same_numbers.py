"""Every public call on ten small models, so that two versions can be held to the same numbers.

    python benchmarks/same_numbers.py record before.json
    python benchmarks/same_numbers.py compare before.json after.json --tolerance 1e-9

`record` writes every number of every result to its last bit, tensors as sums and a few entries; an
error is a result too. `compare` shows the largest difference by call and by model, relative to the
larger of the value and its standard error; for entries and sums of a tensor, to its largest entry
and the sum of its absolute values. Entries of eigenvectors are compared without their signs. The
exit code is 1 where a difference exceeds the tolerance.
"""

from __future__ import annotations

import argparse
import copy
import enum
import functools
import inspect
import json
import math
import numbers
import re
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import gradnoise as gn
from gradnoise import toy

Found = dict[str, Any]  # path -> [value, scale] as hexadecimal floats, or a word
Calls = Iterator[tuple[str, str, Callable[[], Any]]]  # name, variant, call
Functions = dict[str, Callable[[Any], Any]]  # of one object, by the name of the call
N, PART = 32, 20  # samples, and those of a part of them
METHODS = "xtrace", "hutch++", "hutchinson"
ENGINES, HVPS = ("hooks", "functional", "backpack", "loop"), ("kept", "fresh", "finite")
PARTS: dict[str, dict[str, Any]] = {
    "whole": {"micro_batch": 16},
    "part": {"micro_batch": 16, "max_samples": PART},
    "distribution": {"micro_batch": 16, "population": "distribution"},
}
WHATEVER_THE_POPULATION = ("batch_sharpness", "spectral_density")


@dataclass(frozen=True)
class Subject:
    """A model, its per-sample loss, one batch of all samples, and how it is given to a call."""

    model: nn.Module
    loss_fn: Any
    batch: Any
    optimizer: optim.Optimizer
    given: tuple[Any, Any, Any]


def subject(
    model: nn.Module, loss_fn: Any, batch: Any, kind: Any, data: Any = None, second: Any = ()
) -> Subject:
    """With an optimizer that has taken three steps, of one parameter group or two."""
    per_sample = gn.supervised(loss_fn) if isinstance(loss_fn, nn.Module) else loss_fn
    groups: dict[bool, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[name in second].append(parameter)
    optimizer = kind([{"params": g, "lr": 0.05 if key else 0.02} for key, g in groups.items()])
    for _ in range(3):
        optimizer.zero_grad()
        per_sample(model, batch).mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    given = model, loss_fn, batch if data is None else data
    return Subject(model, per_sample, batch, optimizer, given)


class Function(nn.ModuleDict):
    """Any forward of some modules; parameters on the root are set afterwards."""

    def __init__(self, forward: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__(parts)
        self._forward = forward

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        return self._forward(self, *inputs, **named)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def next_token(model: nn.Module, ids: Tensor) -> Tensor:
    return F.cross_entropy(model(ids[:, :-1]).mT, ids[:, 1:], reduction="none").mean(1)


def subjects() -> dict[str, Subject]:
    torch.manual_seed(0)
    entropy, sgd = nn.CrossEntropyLoss(), partial(optim.SGD, momentum=0.9, weight_decay=0.01)
    rows, ids = torch.randn(N, 4), torch.randint(5, (N, 5)) * torch.randint(2, (N, 5))
    labels = (torch.randint(9, (N,)) - 6).clamp(min=0)  # so unequal that the gradient stands out
    images, wide = torch.randn(N, 2, 4, 4), torch.randn(N, 4, 4, 4).double()
    mask = (torch.arange(5) < torch.randint(3, 6, (N, 1))).long()
    line = toy.LinearRegression(torch.linspace(0.2, 2, 6), 3 * torch.ones(6))
    cnn = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    )
    transformer = Function(
        lambda self, x: self.head(self.layer(x + self.pos[: x.shape[1]]).mean(1)),
        layer=nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
        head=nn.Linear(4, 3),
    ).double()
    transformer.pos = nn.Parameter(torch.randn(6, 4).double() / 2)
    tied = Function(
        lambda self, ids: F.linear(self.mix(self.embedding(ids)).tanh(), self.embedding.weight),
        embedding=nn.Embedding(5, 4),
        mix=nn.Linear(4, 4),
    ).double()
    lstm = Function(
        lambda self, ids: self.head(self.lstm(self.embedding(ids))[0][:, -1]),
        embedding=nn.Embedding(5, 3),
        lstm=nn.LSTM(3, 3, batch_first=True),
        head=nn.Linear(3, 3),
    ).double()
    residual = Function(
        lambda self, x: self.head(F.relu(x + self.norm(self.conv(x))).mean((2, 3))),
        conv=nn.Conv2d(4, 4, 3, padding=1, bias=False),
        norm=nn.GroupNorm(2, 4),
        head=nn.Linear(4, 3),
    ).double()
    lora = Function(
        lambda self, x: self.head((self.base(x) + F.linear(x, self.B @ self.A)).tanh()),
        base=nn.Linear(4, 6).requires_grad_(False),
        head=nn.Linear(6, 1),
    ).double()
    lora.A = nn.Parameter(torch.randn(2, 4).double() / 2)
    lora.B = nn.Parameter(torch.randn(6, 2).double() / 2)
    masked = Function(
        lambda self, input_ids, attention_mask: self.head(
            self.norm((self.embedding(input_ids) * attention_mask[..., None]).cumsum(1))
        ),
        embedding=nn.Embedding(5, 4),
        norm=nn.LayerNorm(4),
        head=nn.Linear(4, 5),
    )
    loader = DataLoader(TensorDataset(images, labels), batch_size=8)
    chunks = list(zip(wide.split(8), labels.split(8), strict=True))
    words = {"input_ids": ids, "attention_mask": mask}
    pair, steps = (rows.double(), torch.randn(N, 1).double() + 3), (wide[:, 0], labels)
    coarse = (rows.bfloat16(), labels)
    nesterov, plain = partial(sgd, nesterov=True), partial(sgd, weight_decay=0)
    return {
        "MLP, float32": subject(mlp(), entropy, (rows, labels), sgd, TensorDataset(rows, labels)),
        "CNN, float32": subject(cnn, entropy, (images, labels), optim.AdamW, loader),
        "transformer, pos[:T]": subject(transformer, entropy, steps, optim.Adam),
        "embedding, tied head": subject(tied, next_token, ids, optim.NAdam),
        "LSTM": subject(lstm, entropy, (ids, labels), optim.RMSprop),
        "GroupNorm residual": subject(residual, entropy, (wide, labels), nesterov, chunks),
        "LoRA": subject(lora, nn.MSELoss(), pair, optim.AdamW, second=("A", "B")),
        "dict batches, float32": subject(masked, gn.causal_lm(), words, optim.AdamW),
        "MLP, bfloat16": subject(mlp().bfloat16(), entropy, coarse, plain),
        "linear regression": subject(line.model(), line.loss_fn, line.sample(N, 0), sgd),
    }


def is_kept(profile: gn.Profile) -> bool:
    """Whether a file holds all of it."""
    with tempfile.TemporaryDirectory() as folder:
        profile.save(Path(folder) / "profile.json")
        loaded = gn.Profile.load(Path(folder) / "profile.json")
    return repr(loaded.to_dict()) == repr(profile.to_dict())


def at_sizes(call: Callable[..., Any], *fixed: Any) -> list[Any]:
    return [call(size, *fixed) for size in (1, 8, 20)]


def landscape(profile: gn.Profile) -> dict[str, Any]:
    seen = profile.landscape(0.5)
    names = "max_lr greedy_lr mean_square_lr noise_interaction steps samples limits"
    by_size = {name: at_sizes(getattr(seen, name)) for name in names.split()}
    return {"itself": seen, "speed": seen.speed(0.01, 8), **by_size}


def products(m: Any, names: dict[str, Tensor] | None = None) -> dict[str, Any]:
    """With vectors and blocks, of the transpose, of sums and of one parameter's block."""
    source = torch.Generator().manual_seed(7)
    v, w = (torch.randn(size, 3, generator=source) for size in (m.shape[1], m.shape[0]))
    found = {"shape": m.shape, "vector": m @ v[:, 0], "block": m @ v, "T": m.T @ w}
    found |= {"sum": (m - 0.5 * m + m) @ v, "scipy": m.to_scipy() @ v[:, 0].double().numpy()}
    if names is not None:
        found |= {"dict": m @ names, "hvp": getattr(m, "hvp", None)}
    if names is not None and m.shape[0] == m.shape[1]:
        block = m.restrict([*names][:1])
        found["restrict"] = block @ torch.ones(block.shape[1])
    return found


def sq_norms(rows: Tensor, batch: int) -> Tensor:
    return torch.stack([part.mean(0).square().sum() for part in rows.split(batch)])


def from_batches(rows: Tensor) -> Any:
    sizes = torch.tensor([2] * 16 + [4] * 8 + [8] * 4)
    return gn.noise_scale_from_batches(sizes, torch.cat([sq_norms(rows, b) for b in (2, 4, 8)]))


def populations(call: Callable[..., Any], *given: Any) -> dict[str, Any]:
    return {str(n): call(*given, population=n) for n in ("distribution", "dataset", 3 * N)}


OF_PROFILE: Functions = {
    "profile": lambda p: p,
    "Profile.load": is_kept,
    "Profile.to_dict": lambda p: p.to_dict(),
    "Profile.recommend": lambda p: p.recommend(),
    "Profile.stable_lr": lambda p: [p.stable_lr(), p.stable_lr(0.5)],
    "Profile.temperature": lambda p: p.temperature(0.1, 8, 0.5),
    "Profile.max_lr": lambda p: at_sizes(p.max_lr, 0.5),
    "Profile.mean_square_lr": lambda p: at_sizes(p.mean_square_lr, 0.5),
    "Profile.limits": lambda p: at_sizes(p.limits, 0.5),
    "Profile.greedy_lr": lambda p: at_sizes(p.greedy_lr),
    "Profile.regime": lambda p: at_sizes(p.regime),
    "Landscape": landscape,
}
NAMES = """norm_test inner_product_test orthogonality_test gradient_diversity diversity_bound
signal_to_noise sign_noise_scale"""
OF_MOMENTS: Functions = {
    "GradientMoments.merge": lambda m: m.merge(m),
    "GradientMoments.restrict": lambda m: m.restrict([*m.mean][:1]),
    "cabs_batch_size": lambda m: gn.cabs_batch_size(m, 0.1),
} | {name: getattr(gn, name) for name in NAMES.split()}
OF_GRADIENTS: Functions = {  # by name
    "noise_scale_from_gradients": lambda g: populations(gn.noise_scale_from_gradients, g),
    "sign_noise_scale": lambda g: populations(gn.sign_noise_scale, g),
    "spectral_noise_scale": lambda g: [
        gn.spectral_noise_scale({k: v for k, v in g.items() if v.ndim == 3}, side=side)
        for side in ("rows", "columns")
    ],
    "tail_index": lambda g: gn.tail_index(g, controls=19),
}
OF_ROWS: Functions = {  # (n, P)
    "noise_scale_from_gram": lambda rows: populations(gn.noise_scale_from_gram, rows @ rows.T),
    "noise_scale_from_sums": lambda rows: populations(
        gn.noise_scale_from_sums, len(rows), rows.sum(0), rows.square().sum()
    ),
    "simple_noise_scale_from_norms": lambda rows: gn.simple_noise_scale_from_norms(
        sq_norms(rows, 2), sq_norms(rows, 8), 2, 8
    ),
    "noise_scale_from_batches": from_batches,
    "stable_index": lambda rows: gn.stable_index(rows.flatten()),
    "hill_index": lambda rows: gn.hill_index(rows.square().sum(1), tail=0.3),
}
OF_MATRIX: Functions = {
    "lanczos": lambda m: [gn.lanczos(m, k=2), gn.lanczos(m, which="SA", repeats=False)],
    "trace": lambda m: [gn.trace(m, method=method, products=15) for method in METHODS],
    "frobenius_norm": lambda m: gn.frobenius_norm(m, products=15),
    "diagonal": lambda m: gn.diagonal(m, products=15),
    "SpectralDensity": lambda m: gn.SpectralDensity.of(m, probes=2, steps=8),
}
OF_SWEEP: Functions = {
    "sweep": lambda found: found,
    "Sweep.largest_stable": lambda found: found.largest_stable(),
    "Sweep.best": lambda found: found.best(),
    "Sweep.fit": lambda found: found.fit(),
}


def each(functions: Functions, variant: str, make: Callable[[], Any]) -> Calls:
    """All functions of one object, which is made at its first use."""
    kept = functools.cache(make)
    for name, function in functions.items():
        yield name, variant, lambda function=function: function(kept())


def measurements(optimizer: optim.Optimizer) -> dict[str, dict[str, dict[str, Any]]]:
    """Calls that take (model, loss_fn, data), each with its variants."""
    metric = {"optimizer": optimizer, "metric": "optimizer"}
    three = {"k=3": {"k": 3}, "gauss-newton": {"k": 3, "operator": "gauss-newton"}}
    ends = {"SA": {"which": "SA"}, "no interval": {"intervals": False}}
    size = {"batch_size": 8}
    return {
        "profile": {"": {}, "optimizer": {"optimizer": optimizer}, "metric": {**size, **metric}},
        "gradient_moments": {"": {"variance": True}, "quick": {"intervals": False}}
        | {"metric": metric, **{name: {"engine": name} for name in ENGINES}},
        "noise_scale": {"": {}, "metric": metric, "few": {"probes": 8, "accuracy": 0.5}},
        "layer_noise_scales": {"": {"probes": 8}},
        "diagnostics": {"": {"lr": 0.1}},
        "sharpness": {"": {}, "metric": metric, **ends, **three}
        | {hvp: {"hvp": hvp, "tol": 1e-6} for hvp in HVPS},
        "batch_sharpness": {"": size, "metric": {**size, **metric}},
        "covariance": {"k=3": {"k": 3, "variance": True}}
        | {name: {"k": 3, "method": name, "hessian": False} for name in ("gram", "lanczos")},
        "spectral_density": {"": {"probes": 2, "steps": 12}},
    }


def calls_of(s: Subject) -> Calls:
    """Everything that measures one model."""
    for name, variants in measurements(s.optimizer).items():
        function = getattr(gn, name)
        functions = OF_PROFILE if name == "profile" else {name: lambda found: found}
        for part, options in PARTS.items():
            if part == "distribution" and name in WHATEVER_THE_POPULATION:
                continue
            for variant, more in variants.items():
                call = partial(function, *s.given, **options, **more)
                yield from each(functions, f"{part} {variant}", call)
    yield from operators(s)
    one_batch = s.model, s.given[1], s.batch
    gradients = partial(gn.per_sample_gradients, *one_batch)
    for engine in ("auto", *ENGINES):
        yield "per_sample_gradients", engine, partial(gradients, engine=engine)
        for whole in (False, True):
            call = partial(gn.per_sample_sq_norms, *one_batch, engine=engine, per_parameter=whole)
            yield "per_sample_sq_norms", f"{engine} {whole}", call
        yield "explain_engine", engine, partial(gn.explain_engine, *one_batch, engine=engine)
    yield "supervised or causal_lm", "", partial(s.loss_fn, s.model, s.batch)
    if isinstance(s.batch, dict):
        per_token = gn.causal_lm(tokens_per_sequence=s.batch)
        yield "supervised or causal_lm", "per token", partial(per_token, s.model, s.batch)
    yield "SharpnessTracker", "", partial(tracked, s)
    moments = partial(gn.gradient_moments, *s.given, max_samples=PART, variance=True)
    yield from each(OF_MOMENTS, "moments", moments)
    yield from each(OF_GRADIENTS, "gradients", gradients)
    flat = (g.flatten(1).double() for g in gradients().values())
    yield from each(OF_ROWS, "rows", lambda: torch.cat([*flat], dim=1))


def operators(s: Subject) -> Calls:
    """Products of the operators, and what linear algebra finds in them."""
    names = {k: p.detach() for k, p in s.model.named_parameters() if p.requires_grad}
    by_engine, by_hvp = [{}, {"engine": "loop"}], [{}, *({"hvp": name} for name in HVPS)]
    preconditioned = {"Preconditioned": lambda m: products(gn.Preconditioned(m, s.optimizer))}
    for kind, variants, more in (
        (gn.Hessian, by_hvp, OF_MATRIX | preconditioned),
        (gn.GaussNewton, by_hvp[:3], OF_MATRIX | preconditioned),
        (gn.GradientCovariance, by_engine, OF_MATRIX),
        (gn.PerSampleGradients, by_engine, {}),
    ):
        name = kind.__name__
        for part in ("whole", "part"):
            for variant in variants:
                make = partial(kind, *s.given, **PARTS[part], **variant)
                yield from each({name: partial(products, names=names)}, f"{part} {variant}", make)
        yield from each(more, f"part of {name}", partial(kind, *s.given, **PARTS["part"]))


def tracked(s: Subject) -> dict[str, Any]:
    """Three updates along parameters that grow."""
    model = copy.deepcopy(s.model)
    tracker = gn.SharpnessTracker(model, *s.given[1:])
    for _ in range(3):
        tracker.update()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.05)
    return {"values": tracker.values, "history": tracker.history, "matvecs": tracker.matvecs}


def formulas() -> Calls:
    """Pure functions of numbers."""
    scale = gn.Estimate(20.0, 10.0, 40.0, 0.95, 5.0, 100)
    for optimizer, m in (("sgd", 0.0), ("sgd", 0.9), ("nesterov", 0.9), ("adam", 0.9)):
        own = {"optimizer": optimizer, "momentum": m}
        yield "stable_lr", f"{own}", partial(gn.stable_lr, 3.0, **own)
        yield "max_lr", f"{own}", partial(gn.max_lr, 3.0, 20.0, 8, **own)
        yield "mean_square_lr", f"{own}", partial(gn.mean_square_lr, 3.0, 20.0, 8, 100, **own)
        yield "toy.diverging_lr", f"{own}", partial(toy.diverging_lr, 3.0, **own)
    yield "temperature", "", partial(gn.temperature, 0.1, 8, 0.9, 100)
    yield "effective_lr", "", partial(gn.effective_lr, 0.1, 0.9)
    yield "greedy_lr", "", partial(gn.greedy_lr, 2.0, 3.0, 20.0, 8)
    yield "regime", "", lambda: [gn.regime(size, scale) for size in (1, 20, 400)]
    for rule in ("linear", "sqrt", "none"):
        yield "scale_lr", rule, partial(gn.scale_lr, 0.1, 8, 64, rule)
    bowl = torch.diag(torch.tensor([3.0, 1.0]))
    yield "toy.stationary_covariance", "", partial(toy.stationary_covariance, bowl, bowl, 0.1, 0.1)


def toys() -> dict[str, Any]:
    point = torch.ones(2)
    inputs = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    return {
        "NoisyQuadratic": toy.NoisyQuadratic(torch.diag(torch.tensor([3.0, 1.0])), point),
        "NoisyQuadraticModel": toy.NoisyQuadraticModel(point),
        "RandomCurvature": toy.RandomCurvature(2.0, 0.5),
        "FiniteLeastSquares": toy.FiniteLeastSquares(inputs, inputs.sum(1), 2 * point),
        "LinearRegression": toy.LinearRegression(torch.tensor([3.0, 1.0]), point),
        "SoftmaxRegression": toy.SoftmaxRegression(inputs[:3]),
        "FlippedLogistic": toy.FlippedLogistic(0.1),
    }


def dynamics(problem: Any) -> dict[str, Any]:
    exact = problem.dynamics()
    names = "radius", "stationary", "noise_floor"
    found = {name: getattr(exact, name)(0.05, 8, "sgd", 0.5) for name in names}
    path = exact.trajectory(torch.ones(len(exact.hessian)), 5, 0.05, 8, "sgd", 0.5)
    return {**found, "trajectory": path, "mean_square_lr": exact.mean_square_lr(8, "sgd", 0.5)}


def calls_of_toy(problem: Any) -> Calls:
    yield "toy.truth", "", problem.truth
    yield "toy.limits", "", partial(problem.limits, 8)
    yield "toy.sample", "", partial(problem.sample, 9, seed=1)
    if problem.dynamics() is not None:
        yield "toy.dynamics", "", partial(dynamics, problem)
    if isinstance(problem, toy.FiniteLeastSquares):
        return
    data = problem.sample(64, seed=0)
    given, rates = (problem.model, problem.loss_fn, data), (0.03, 0.3, 3.0, 30.0)
    grid = {"batch_sizes": (2, 8, 32), "lrs": rates, "steps": 12, "seeds": 2, "test_data": data}
    for how in (
        {"momentum": 0.5, "vectorise": True},
        {"momentum": 0.5, "vectorise": False},
        {"optimizer": "adam", "weight_decay": 0.1},
    ):
        yield from each(OF_SWEEP, f"{how}", partial(gn.sweep, *given, **grid, **how))
    short = {"batch_size": 8, "epochs": 2, "lrs": rates, "refine": 2}
    yield "lr_sweep", "", partial(gn.lr_sweep, *given, **short)


def walk(value: Any, out: Found, path: str = "", scale: float = 0.0) -> None:
    """Every public number and word of a result; sentences are wording."""
    if isinstance(value, (Tensor, np.ndarray)):
        walk_array(torch.as_tensor(value).detach(), out, path)
    elif isinstance(value, numbers.Real):
        out[path] = [float(value).hex(), float(scale).hex()]
    elif isinstance(value, (str, enum.Enum)):
        word = value.name if isinstance(value, enum.Enum) else value
        if " " not in word:
            out[path] = word
    elif isinstance(value, Mapping):
        for key, part in value.items():
            walk(part, out, f"{path}[{key}]", scale)
    elif isinstance(value, (list, tuple)):
        if len(value) > 6 and all(isinstance(part, numbers.Real) for part in value):
            walk_array(torch.tensor(value), out, path)
        else:
            walk(dict(enumerate(value)), out, path)
    elif type(value).__module__.startswith("gradnoise"):
        walk_object(value, out, path)


def walk_array(tensor: Tensor, out: Found, path: str) -> None:
    """Sums of the finite entries, and a few entries."""
    flat = tensor.double().flatten()
    flat = flat.abs() if path.endswith("vectors") else flat
    finite = flat[flat.isfinite()]
    out[f"{path}.type"] = f"{tensor.dtype}{list(tensor.shape)}, {len(finite)} finite"
    total = float(finite.abs().sum())
    largest = float(finite.abs().max()) if len(finite) else 0.0
    walk({"sum": float(finite.sum()), "abs": total}, out, path, total)
    for place in {0, 1, len(flat) // 2, len(flat) - 1} & {*range(len(flat))}:
        walk(float(flat[place]), out, f"{path}[{place}]", largest)


def walk_object(value: Any, out: Found, path: str) -> None:
    """Fields and properties."""
    kinds = property, functools.cached_property
    own = [n for n in dir(type(value)) if isinstance(inspect.getattr_static(value, n), kinds)]
    parts: dict[str, Any] = {}
    for name in sorted({*vars(value), *own}):
        try:
            if not name.startswith("_"):
                parts[name] = getattr(value, name)
        except Exception as error:
            out[f"{path}.{name}"] = f"error: {type(error).__name__}"
    sizes = [abs(parts[n]) for n in ("value", "stderr") if isinstance(parts.get(n), float)]
    scale = max([size for size in sizes if math.isfinite(size)], default=0.0)
    for name, part in parts.items():
        walk(part, out, f"{path}.{name}", scale)


def record(path: Path) -> None:
    """Make every call and write what it gave."""
    groups = {model: calls_of(s) for model, s in subjects().items()} | {"numbers": formulas()}
    groups |= {model: calls_of_toy(problem) for model, problem in toys().items()}
    found: dict[str, Found] = {}
    for model, calls in groups.items():
        start = time.perf_counter()
        for name, variant, call in calls:
            own = found.setdefault(f"{name} | {model} | {variant}", {})
            try:
                walk(call(), own)
            except Exception as error:
                own["error"] = f"error: {type(error).__name__}: {str(error).splitlines()[:1]}"
        print(f"{model}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
    path.write_text(json.dumps(found), encoding="utf-8")
    print(f"{len(found)} calls, {sum(map(len, found.values()))} values")


def difference(first: Any, second: Any) -> float:
    """Relative; infinite where words differ or one is no number."""
    if isinstance(first, str) or isinstance(second, str):
        words = [str(each).split(": ")[:2] for each in (first, second)]  # of errors the type
        return 0.0 if words[0] == words[1] else math.inf
    (a, *scales), (b, *more) = ([float.fromhex(x) for x in pair] for pair in (first, second))
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    if not (math.isfinite(a) and math.isfinite(b)):
        return math.inf
    return abs(a - b) / max(abs(a), abs(b), *scales, *more)


@dataclass
class Row:
    """What a table says of one call or one model."""

    members: set[str] = field(default_factory=set)
    differences: list[float] = field(default_factory=list)
    only: Counter[int] = field(default_factory=Counter)  # values by side


def compare(before: Path, after: Path, tolerance: float) -> int:
    """Print the tables; 1 where a difference exceeds the tolerance."""
    sides = [json.loads(path.read_text(encoding="utf-8")) for path in (before, after)]
    by_call, by_model = defaultdict(Row), defaultdict(Row)
    worst: list[tuple[float, str, Any, Any]] = []
    missing: list[Counter[str]] = [Counter(), Counter()]
    for call in {**sides[0], **sides[1]}:
        name, model, _ = call.split(" | ")
        rows = by_call[name], by_model[model]
        first, second = (side.get(call, {}) for side in sides)
        rows[0].members.add(model)
        rows[1].members.add(name)
        for side, only in enumerate((first.keys() - second.keys(), second.keys() - first.keys())):
            missing[side].update(name + re.sub(r"\[[^]]*\]", "[]", path) for path in only)
            for row in rows:
                row.only[side] += len(only)
        for path in sorted(first.keys() & second.keys()):
            far = difference(first[path], second[path])
            worst.append((far, f"{call} {path}", first[path], second[path]))
            for row in rows:
                row.differences.append(far)
    console = Console(width=120)
    for title, other, rows in (("call", "models", by_call), ("model", "calls", by_model)):
        console.print(table_of(title, other, rows))
    for label, names in zip(("before", "after"), missing, strict=True):
        for name, count in sorted(names.items()):
            console.print(f"only {label}: {name} ({count})", markup=False)
    different = [each for each in worst if each[0] > 0]
    for far, place, *values in sorted(different, key=lambda each: -each[0])[:10]:
        console.print(f"{far:.1e}  {place}: {shown(values[0])} | {shown(values[1])}", markup=False)
    return int(any(far > tolerance for far, *_ in worst))


def shown(value: Any) -> str:
    return value if isinstance(value, str) else f"{float.fromhex(value[0]):.17g}"


def table_of(title: str, other: str, rows: dict[str, Row]) -> Table:
    heads = title, other, "values", "identical", "largest difference", "only before", "only after"
    table = Table(*heads)
    for name, row in rows.items():
        counts = len(row.members), len(row.differences), row.differences.count(0.0)
        far = f"{max(row.differences, default=0.0):.1e}"
        table.add_row(name, *map(str, counts), far, str(row.only[0]), str(row.only[1]))
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("record").add_argument("file", type=Path)
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.add_argument("--tolerance", type=float, default=1e-9)
    chosen = parser.parse_args()
    if chosen.command == "compare":
        return compare(chosen.before, chosen.after, chosen.tolerance)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    record(chosen.file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
