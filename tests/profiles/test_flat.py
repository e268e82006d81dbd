"""A profile as rows of a table and as numbers for loggers."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import gradnoise as gn
from gradnoise.problem.optimizer_settings import OptimizerSettings

COLUMNS = {
    *("model", "date", "scope", "name", "quantity", "value", "low", "high", "level", "stderr"),
    *("status", "samples", "unit", "batch_size", "metric"),
}
KINDS = ("resolved", "bounds_only", "negative", "flat", "deep")


def used(profile: gn.Profile) -> gn.Profile:
    return replace(profile, batch_size=8, optimizer=OptimizerSettings("SGD", 0.1, 0.5))


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_has_the_same_columns_of_built_in_values(
    kind: str, request: pytest.FixtureRequest
) -> None:
    rows = used(request.getfixturevalue(kind)).rows()
    assert all(set(row) == COLUMNS for row in rows)
    kinds = {type(value) for row in rows for value in row.values()}
    assert kinds <= {str, float, int, type(None)}
    keys = [(row["scope"], row["name"], row["quantity"]) for row in rows]
    assert len(set(keys)) == len(keys)


def test_there_is_a_row_for_each_quantity_limit_and_layer(deep: gn.Profile) -> None:
    rows = used(deep).rows()
    of = {scope: [row for row in rows if row["scope"] == scope] for scope in ("model", "layer")}
    quantities = [row["quantity"] for row in of["model"]]
    limits = ["stable_lr", "max_lr", "greedy_lr", "mean_square_lr"]
    assert quantities == [*deep.estimates, *limits]
    assert [row["name"] for row in of["layer"]][::7] == list(deep.layers)
    assert len(of["layer"]) == 7 * len(deep.layers)


def test_a_row_is_the_estimate(resolved: gn.Profile) -> None:
    (row,) = [row for row in used(resolved).rows() if row["quantity"] == "noise_scale"]
    found = resolved.noise_scale
    assert (row["value"], row["low"], row["high"]) == (found.value, found.low, found.high)
    assert (row["unit"], row["status"], row["batch_size"]) == ("samples", "resolved", None)
    (limit,) = [row for row in used(resolved).rows() if row["quantity"] == "max_lr"]
    assert (limit["value"], limit["batch_size"]) == (float(resolved.max_lr(8, 0.5)), 8)


def test_a_share_without_an_interval_has_none(deep: gn.Profile) -> None:
    row = next(row for row in deep.rows() if row["quantity"] == "noise_share")
    layer = deep.layers[row["name"]]
    assert (row["value"], row["low"], row["status"]) == (layer.noise_share, None, None)


def test_groups_have_rows_of_their_own() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = torch.randn(32, 3).double(), torch.arange(32) % 2
    p = gn.profile(model, nn.CrossEntropyLoss(), data, optimizer=optimizer, probes=4)
    assert {row["name"] for row in p.rows() if row["scope"] == "group"} == {"group 0"}


def test_rows_can_be_written_as_csv(resolved: gn.Profile) -> None:
    file = io.StringIO()
    writer = csv.DictWriter(file, resolved.rows()[0])
    writer.writeheader()
    writer.writerows(resolved.rows())
    read = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert [row["quantity"] for row in read] == [row["quantity"] for row in resolved.rows()]


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_for_a_logger_are_finite(kind: str, request: pytest.FixtureRequest) -> None:
    found = used(request.getfixturevalue(kind)).values()
    assert all(type(number) is float and math.isfinite(number) for number in found.values())
    assert all(key.startswith("gradnoise/") for key in found)
    assert found["gradnoise/batch_size"] == 8


def test_keys_are_those_of_the_monitor_for_the_same_quantities(resolved: gn.Profile) -> None:
    """One key must not mean B_simple in one logger's line and B_noise in the next."""
    p, found = used(resolved), used(resolved).values()
    assert found["gradnoise/noise_scale"] == float(p.simple_noise_scale)
    assert found["gradnoise/noise_scale_high"] == p.simple_noise_scale.high
    assert found["gradnoise/hessian_noise_scale"] == float(p.noise_scale)
    assert found["gradnoise/batch_over_noise_scale"] == 8 / float(p.simple_noise_scale)
    assert found["gradnoise/mean_square_lr_low"] == p.mean_square_lr(8, 0.5).low
    assert (found["gradnoise/lr"], found["gradnoise/momentum"]) == (0.1, 0.5)
    monitor = gn.NoiseMonitor(nn.Linear(2, 1)).values()
    shared = {key.removeprefix("gradnoise/") for key in monitor} & {
        key.removeprefix("gradnoise/") for key in found
    }
    assert shared == {
        *("noise_scale", "noise_scale_low", "noise_scale_high", "trace_cov", "grad_sq_norm"),
        *("batch_size", "batch_over_noise_scale"),
    }


def test_limits_that_are_not_of_the_optimizer_are_left_out(resolved: gn.Profile) -> None:
    adam = replace(used(resolved), optimizer=OptimizerSettings("Adam", 0.1, kind="adam"))
    assert not any("max_lr" in key or "stable_lr" in key for key in adam.values())
    assert not any(row["quantity"] == "max_lr" for row in adam.rows())


def test_tensorboard_takes_them(resolved: gn.Profile, tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        for key, number in resolved.values().items():
            writer.add_scalar(key, number, 3)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert set(events.Tags()["scalars"]) == set(resolved.values())
    (event,) = events.Scalars("gradnoise/sharpness")
    assert event.value == pytest.approx(float(resolved.sharpness))
