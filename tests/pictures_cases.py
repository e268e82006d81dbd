"""Profiles, densities, runs, sweeps and branches of every kind that pictures must show."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

import gradnoise as gn
from gradnoise.history.run_file import Run
from gradnoise.moments.layer import Layer
from gradnoise.problem.optimizer_settings import OptimizerSettings
from gradnoise.training.record import Record
from gradnoise.training.record import Run as Trained
from tests.reports import quadratic_profile, toy_profile
from tests.run_files import DIGITS, run_of
from tests.small_runs import made
from tests.starts import ended, made_branches

Draw = Callable[..., Any]
INF, NAN = math.inf, math.nan


def estimate(value: float, low: float, high: float, status: gn.Status | None = None) -> gn.Estimate:
    return gn.Estimate(value, low, high, 0.95, NAN, 64, status or gn.Status.RESOLVED)


UNKNOWN = estimate(NAN, 0.0, INF, gn.Status.SIGNAL_BELOW_NOISE)
AT_LEAST = estimate(NAN, 300.0, INF, gn.Status.SIGNAL_BELOW_NOISE)


def with_scales(profile: gn.Profile, **scales: gn.Estimate) -> gn.Profile:
    return replace(profile, estimates={**profile.estimates, **scales})


def used(profile: gn.Profile, name: str, lr: float, batch: int, **settings: Any) -> gn.Profile:
    own = OptimizerSettings(name, lr, settings.pop("momentum", 0.0), **settings)
    return replace(profile, optimizer=own, batch_size=batch)


def _shared(value: float, width: float) -> gn.Estimate:
    return estimate(value, value - width, value + width)


def with_layers(profile: gn.Profile, count: int, curvature: bool = True) -> gn.Profile:
    """Layers with names as transformers have them, and random shares."""
    source = np.random.default_rng(0)
    noise, sharp, both = source.dirichlet(np.full(count, 0.5), 3)
    both[0], both[1 % count] = both[0] - 0.1, both[1 % count] + 0.1
    layers = {}
    for i in range(count):
        name = f"transformer.encoder.layers.{i}.attention.self.query_projection"
        curved = {
            "sharpness_share": _shared(sharp[i], 0.01),
            "curvature_noise_share": _shared(both[i], 0.03),
        }
        layers[name] = Layer(
            name, 100, UNKNOWN, UNKNOWN, UNKNOWN, float(noise[i]), **(curved if curvature else {})
        )
    return replace(profile, layers=layers)


@functools.cache
def profiles() -> dict[str, gn.Profile]:
    resolved = quadratic_profile(1.0)
    wide = with_scales(
        toy_profile(max_samples=100, population="distribution"),
        noise_scale=estimate(60.0, 20.0, 200.0), simple_noise_scale=estimate(40.0, 15.0, 90.0),
        sharpness=estimate(4.0, 3.0, 5.0),
    )  # fmt: skip
    adam = {"kind": "adam", "momentum": 0.9}
    return {
        "exact": toy_profile(),
        "resolved": used(wide, "SGD", 0.05, 16),
        "momentum": used(wide, "SGD", 0.05, 16, momentum=0.9),
        "bounds": quadratic_profile(0.0, population="distribution"),
        "unknown": used(with_scales(wide, noise_scale=UNKNOWN), "SGD", 0.1, 32),
        "all unknown": with_scales(wide, noise_scale=UNKNOWN, simple_noise_scale=UNKNOWN),
        "at least": used(with_scales(wide, noise_scale=AT_LEAST), "SGD", 0.1, 32),
        "AdamW": used(wide, "AdamW", 0.001, 64, **adam),
        "AdamW, own": replace(used(wide, "AdamW", 0.001, 64, **adam), metric="optimizer"),
        "groups": toy_profile(unit="group", group_size=8, batch_size=16),
        "huge": used(with_scales(wide, noise_scale=estimate(3e7, 1e7, 9e7)), "SGD", 0.1, 32),
        "tiny": used(with_scales(wide, noise_scale=estimate(0.02, 0.01, 0.03)), "SGD", 0.1, 32),
        "beyond N": toy_profile(batch_size=200),
        "no step": replace(resolved, batch_size=None, optimizer=None),
        "60 layers": used(with_layers(wide, 60), "SGD", 0.1, 32),
    }


def densities() -> dict[str, gn.SpectralDensity]:
    mixed = np.r_[np.random.default_rng(0).normal(0, 0.1, 300), [2.0, 5.0, -0.5]]
    values = {"mixed": mixed.tolist(), "one value": [1.0] * 3, "zero": [0.0, 0.0]}
    return {
        name: gn.SpectralDensity.of(torch.diag(torch.tensor(each).double()))
        for name, each in values.items()
    }


def runs() -> dict[str, Run]:
    lost = {"noise_scale": NAN, "noise_scale_low": 50.0, "noise_scale_high": INF}
    nothing = {**lost, "noise_scale_low": 0.0, "batch_size": NAN}
    return {
        "digits": Run.load(DIGITS),
        "short": run_of({}, {}, {}),
        "bounds": run_of({}, lost, lost, {}),
        "nothing": run_of(nothing),
    }


@functools.cache
def predicting() -> gn.Profile:
    toy = gn.toy.NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
    return gn.profile(toy.model(), toy.loss_fn, toy.sample(8, seed=0), probes=4)


def sharp_sweep() -> gn.Sweep:
    """Runs that diverge beyond 1/(1 + 8/B), on a grid that is fine enough to show it."""
    records = [
        Record(Trained(size, lr, seed, "steps", 9), lost, None, 1.0, INF if lost else 1 - lr / 2)
        for size in (1, 4, 16, 64, 256)
        for lr in np.geomspace(0.05, 2, 12).tolist()
        for seed in range(3)
        for lost in [lr > (1 + 0.05 * seed) / (1 + 8 / size)]
    ]
    return gn.Sweep(tuple(records), {"optimizer": "sgd", "momentum": 0.0})


@functools.cache
def pictures() -> dict[str, tuple[Draw, Any, dict[str, Any]]]:
    """Function, argument and options of every picture in every case."""
    gp = gn.pictures
    shown: dict[str, tuple[Draw, Any, dict[str, Any]]] = {}
    for name, profile in profiles().items():
        for draw in (gp.regime_map, gp.trade_off):
            shown[f"{draw.__name__}, {name}"] = draw, profile, {}
    for name in ("exact", "60 layers"):
        shown[f"layers, {name}"] = gp.layers, profiles()[name], {}
    bare = with_layers(profiles()["exact"], 5, curvature=False)
    shown["layers, no curvature"] = gp.layers, bare, {}
    for name, density in densities().items():
        shown[f"density, {name}"] = gp.spectral_density, density, {"matrix": "H"}
    for name, run in runs().items():
        shown[f"noise scale, {name}"] = gp.noise_scale, run, {"title": "run.jsonl"}
        shown[f"loss, {name}"] = gp.loss, run, {}
    losses = (0.9, 0.5, 0.8)
    shown["sweep"] = gp.sweep, made(losses, (1, 4, 16)), {"predictions": predicting()}
    shown["sweep, sharp"] = gp.sweep, sharp_sweep(), {"predictions": predicting()}
    shown["sweep, no fit"] = gp.sweep, made(losses, (1, 4)), {"best": None}
    shown["branches"] = gp.branches, made_branches(), {"predictions": profiles()["resolved"]}
    flat = (*ended(4, 0.1, (0.1,)), *ended(16, 0.1, (0.2,)))
    shown["branches, one seed"] = gp.branches, gn.Branches(flat, {}), {}
    return shown
