"""`gn.branch`: what it costs, what it leaves as found, and how it goes on."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gradnoise as gn
from gradnoise.training.batch_order import BatchOrder
from tests.small_runs import DATA, dropping, normalised, small
from tests.starts import (
    ALONE,
    CE,
    FEW,
    STACKED,
    CutOff,
    KilledError,
    Own,
    branched,
    by_hand,
    state_of,
    trained,
)  # fmt: skip

ROOT = Path(__file__).parents[2]


def test_from_a_minimum_of_a_quadratic_the_largest_stable_rate_is_two_over_the_sharpness() -> None:
    toy = gn.toy.NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
    model, data = toy.model(), toy.sample(64, seed=0)
    sgd = torch.optim.SGD(model.parameters(), lr=0.25)
    found = gn.branch(
        model, toy.loss_fn, data, sgd, batch_size=64, batch_sizes=[64], samples=64 * 200,
        factors=[1.6, 1.9, 2.1, 2.4], seeds=1,
    )  # fmt: skip
    assert found.largest_stable() == {64: pytest.approx(1.9 * 0.25)}  # 2/λ = 0.5


@pytest.mark.parametrize("factor", [0.01, 1.0, 100.0])
def test_from_any_rate_it_finds_where_runs_begin_to_diverge(factor: float) -> None:
    """2/λ = 0.5 of steps without noise, from rates on both sides of it."""
    toy = gn.toy.NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
    model, data = toy.model(), toy.sample(64, seed=0)
    sgd = torch.optim.SGD(model.parameters(), lr=0.3 * factor)
    found = gn.branch(
        model, toy.loss_fn, data, sgd, batch_size=64, batch_sizes=[64], samples=64 * 200,
        factors=[1.0], further=0, seeds=1, stability=True,
    )  # fmt: skip
    limit = found.stability_limit()[64]
    assert limit.low < 0.5 < limit.high == pytest.approx(2 * limit.low)
    assert limit.low < float(limit) < limit.high


def test_factors_to_one_side_are_around_the_best_rates_at_the_next_batch_size() -> None:
    """1, 2 and 4 times the rate in use at B = 2; ½, 1 and 2 times the middle of the best at 4."""
    found = branched(batch_sizes=[2, 4], factors=[1, 2, 4], further=0, scaling="none")
    first, then = (
        sorted({r.run.lr for r in found.records if r.run.batch_size == size}) for size in (2, 4)
    )
    best = [found.best(by)[2].lr for by in ("late_loss", "averaged_loss")]
    assert first == pytest.approx([found.lr * f for f in (1, 2, 4)])
    assert then == pytest.approx([math.sqrt(best[0] * best[1]) * f for f in (0.5, 1, 2)])


def test_it_is_what_training_from_here_does() -> None:
    """A loop by hand from a copy, for one of the runs."""
    model, optimizer = trained(STACKED["AdamW in groups"])
    found = gn.branch(model, CE, DATA, optimizer, **FEW)
    for record in found.records[::5]:
        run = record.run
        order = BatchOrder(32, run.batch_size, run.seed)
        batches = [order.rows(step) for step in range(run.steps)]
        own, mean = by_hand(model, optimizer, run.lr, batches)
        assert record.train_loss == pytest.approx(CE(own(DATA[0]), DATA[1]).item(), rel=1e-9)
        assert record.averaged_loss == pytest.approx(CE(mean(DATA[0]), DATA[1]).item(), rel=1e-9)


@pytest.mark.parametrize("vectorise", [True, False])
def test_with_a_schedule_it_is_what_training_with_it_does(vectorise: bool) -> None:
    """Runs with parts of the samples have a fall of their own. Both losses are that at the end."""
    model, optimizer = trained(STACKED["AdamW in groups"])
    found = gn.branch(model, CE, DATA, optimizer, **FEW, schedule="linear", vectorise=vectorise)
    assert found.schedule == "linear"
    for record in (*found.records[::5], *found.parts):
        run = record.run
        order = BatchOrder(32, run.batch_size, run.seed)
        batches = [order.rows(step) for step in range(run.steps)]
        own, _ = by_hand(model, optimizer, run.lr, batches, falls=True)
        end = CE(own(DATA[0]), DATA[1]).item()
        assert record.train_loss == pytest.approx(end, rel=1e-9)
        assert record.averaged_loss == record.late_loss == record.train_loss


def test_a_file_knows_the_schedule(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    found = branched(schedule="cosine", path=path)
    again = gn.Branches.load(path)
    assert again.schedule == "cosine"
    assert again == found
    for other in (None, "linear", lambda done: 1 - 0.5 * done):
        with pytest.raises(gn.SweepFileError, match="is of other runs"):
            branched(schedule=other, path=path)
    half = branched(schedule=lambda done: 1 - 0.5 * done, path=tmp_path / "own.jsonl")
    assert half.schedule == "a function"
    assert branched().schedule is None


class Counting:
    """A loss that counts the samples that gradients are taken of."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        if torch.is_grad_enabled():
            self.count += len(batch[0])
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_sizes": [1, 3, 7], "samples": 20, "seeds": 1},
        {"batch_sizes": [4, 32], "samples": 75, "further": 3},
        {"factors": [1.0], "further": 0, "seeds": 3},
        {"factors": [1e-3, 2e-3], "further": 3, "samples": 100},
        {"factors": [1e8], "further": 2},
        {"factors": [1e-6], "further": 1, "stability": True},
    ],
)
def test_it_costs_no_more_than_is_said_before(options: dict[str, Any]) -> None:
    given = {**FEW, "factors": (0.5, 1.0, 2.0), **options}
    loss_fn = Counting()
    found = branched(loss_fn=loss_fn, vectorise=False, **given)
    per_size = len(given["factors"]) + given["further"] + 12 * given.get("stability", False)
    most = (len(given["batch_sizes"]) * per_size + 3) * given["seeds"] * given["samples"]
    assert found.samples <= most
    besides = loss_fn.count - found.samples  # trΣ, and the gradient that is compared on resuming
    assert 16 <= besides <= 16 + 5 * 32
    assert branched(vectorise=True, **given).samples == found.samples


def test_all_runs_take_equally_many_samples() -> None:
    found = branched(batch_sizes=[2, 4, 16], samples=60)
    assert {r.run.steps * r.run.batch_size for r in found.records} == {48}


class Keeper(nn.Module):
    """Counts its calls in a buffer and in an attribute, and draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls, self.seen = small(), 0, [1]
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.count += 1
        return self.inner(x + 0.01 * torch.randn_like(x))


MODELS: dict[str, Any] = {
    "plain": small, "batch norm": normalised, "dropout": dropping, "keeper": Keeper,
}  # fmt: skip


@pytest.mark.parametrize("end", ["", "exception", "interrupt"])
@pytest.mark.parametrize("make", ["momentum", "AdamW in groups", "a user's"])
@pytest.mark.parametrize("name", MODELS)
def test_all_is_left_as_it_was_found(name: str, make: str, end: str) -> None:
    """Also when it is cut off in the middle."""
    model, optimizer = trained({**STACKED, **ALONE}[make], MODELS[name]())
    model[0].eval() if name == "plain" else model.train()
    torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    loader = DataLoader(
        TensorDataset(*DATA), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(5)
    )
    loss_fn: Any = CutOff(
        {"": None, "exception": KilledError, "interrupt": KeyboardInterrupt}[end], 40
    )
    before = state_of(model, optimizer, loader)
    given = {**FEW, "batch_size": None}
    if end:
        with pytest.raises((KilledError, KeyboardInterrupt)):
            gn.branch(model, loss_fn, loader, optimizer, **given)
    else:
        assert gn.branch(model, loss_fn, loader, optimizer, **given).batch_size == 4
    assert state_of(model, optimizer, loader) == before


def test_a_criterion_with_parameters_is_left_alone() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2, dtype=torch.float64))

        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            return nn.functional.cross_entropy(output * self.scale, target, reduction="none")

    criterion, model = Weighted(), small()
    optimizer = torch.optim.SGD([*model.parameters(), *criterion.parameters()], 0.1, momentum=0.9)
    loss = criterion(model(DATA[0]), DATA[1]).mean()
    loss.backward()
    optimizer.step()
    scale, grad = criterion.scale.tolist(), criterion.scale.grad
    value = grad.tolist()

    def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return criterion(model(batch[0]), batch[1])

    for vectorise in (True, False):
        gn.branch(model, loss_fn, DATA, optimizer, vectorise=vectorise, **FEW)
        assert criterion.scale.grad is grad
        assert (criterion.scale.tolist(), grad.tolist()) == (scale, value)


@pytest.mark.parametrize("make", [STACKED["AdamW"], ALONE["RMSprop"]])
def test_batches_that_are_mappings(make: Any) -> None:
    def loss_fn(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")

    found = branched(make, loss_fn=loss_fn, data={"x": DATA[0], "y": DATA[1]})
    assert found.records == branched(make).records


def test_a_compiled_model_is_copied() -> None:
    torch.manual_seed(0)
    model = small()
    plain, optimizer = trained(STACKED["momentum"], model)
    expected = gn.branch(plain, CE, DATA, optimizer, vectorise=False, **FEW)
    compiled = torch.compile(plain, backend="eager")
    before = [p.tolist() for p in compiled.parameters()]
    found = gn.branch(compiled, CE, DATA, optimizer, vectorise=False, **FEW)
    assert [p.tolist() for p in compiled.parameters()] == before
    for one, other in zip(found.records, expected.records, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-9)


def test_a_model_that_cannot_be_copied_is_said() -> None:
    model, optimizer = trained()
    model.last = model(DATA[0])  # not a leaf
    with pytest.raises(gn.ModelError, match="`model` cannot be copied, and runs are trained on co"):
        gn.branch(model, CE, DATA, optimizer, **FEW)


def test_the_optimizers_hooks_and_the_models_backward_hooks_take_no_part() -> None:
    calls: list[str] = []
    model, optimizer = trained(STACKED["momentum"])
    expected = gn.branch(model, CE, DATA, optimizer, **FEW)
    optimizer.register_step_pre_hook(lambda *_: calls.append("step"))
    model[0].register_full_backward_hook(lambda *_: calls.append("module"))
    model[0].weight.register_hook(lambda grad: calls.append("parameter"))
    for vectorise in (True, False):
        found = gn.branch(model, CE, DATA, optimizer, vectorise=vectorise, **FEW)
        for one, other in zip(found.records, expected.records, strict=True):
            assert one.train_loss == pytest.approx(other.train_loss, rel=1e-9)
    assert calls == []


@pytest.mark.parametrize("make", [STACKED["momentum"], STACKED["AdamW"], ALONE["Adagrad"]])
@pytest.mark.parametrize("calls", [45, 52, 60])
def test_after_an_error_in_the_middle_it_goes_on(
    make: Any, calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradnoise.training.checkpoint.EVERY", 0.0)
    expected, path = branched(make), tmp_path / "runs.jsonl"
    with pytest.raises(KilledError):
        branched(make, loss_fn=CutOff(KilledError, calls), path=path)
    again = CutOff(KilledError, 10**9)
    found = branched(make, loss_fn=again, path=path)
    whole = CutOff(KilledError, 10**9)
    branched(make, loss_fn=whole)
    assert found.records == expected.records
    assert found.parts == expected.parts
    assert again.calls < whole.calls
    assert [file.name for file in tmp_path.iterdir()] == ["runs.jsonl"]


def test_killed_without_warning_it_goes_on(tmp_path: Path) -> None:
    path, script = tmp_path / "runs.jsonl", tmp_path / "train.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys, time
            import gradnoise as gn
            import gradnoise.training.execute as execute
            from tests.starts import CE, DATA, FEW, trained

            plain = execute.run_group
            def slow(*given):
                time.sleep(float(sys.argv[1]))
                return plain(*given)
            execute.run_group = slow
            model, optimizer = trained()
            found = gn.branch(model, CE, DATA, optimizer, path={str(path)!r}, vectorise=False,
                              **FEW)
            print(len(found.records), found.records == gn.Branches.load({str(path)!r}).records)
            """
        )
    )
    given = {"env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    victim = subprocess.Popen([sys.executable, str(script), "0.3"], **given)
    for _ in range(600):
        if path.exists() and len(path.read_text().splitlines()) >= 5:
            break
        time.sleep(0.05)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    kept = path.read_text().splitlines()
    assert 5 <= len(kept) < 15
    done = subprocess.run(
        [sys.executable, str(script), "0"], capture_output=True, text=True, check=True, **given
    )
    expected = branched(vectorise=False)
    assert done.stdout.split() == [str(len(expected.records)), "True"]
    assert path.read_text().splitlines()[: len(kept)] == kept
    for one, other in zip(gn.Branches.load(path).records, expected.records, strict=True):
        assert one.run == other.run
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-9)


def test_more_batch_sizes_can_follow_in_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    few = branched(path=path, batch_sizes=[2, 8])
    more = branched(path=path, batch_sizes=[2, 8, 32])
    assert more.records[: len(few.records)] == few.records
    assert gn.Branches.load(path) == more


def _other_state(model: nn.Module, optimizer: Any) -> None:
    next(iter(optimizer.state.values()))["momentum_buffer"].add_(1e-3)


def _other_rate(model: nn.Module, optimizer: Any) -> None:
    optimizer.param_groups[0]["lr"] = 0.06


def _other_weights(model: nn.Module, optimizer: Any) -> None:
    with torch.no_grad():
        model[0].bias.add_(1e-3)


@pytest.mark.parametrize(
    ("change", "options", "what"),
    [
        (_other_state, {}, "fingerprint"),
        (_other_rate, {}, "fingerprint, lr"),
        (_other_weights, {}, "fingerprint"),
        (None, {"loss_fn": nn.CrossEntropyLoss(label_smoothing=0.3)}, "loss at the start"),
        (None, {"data": (DATA[0] + 1e-3, DATA[1])}, "fingerprint"),
        (None, {"max_grad_norm": 1.0}, "fingerprint"),
        (None, {"samples": 40}, "samples"),
        (None, {"seeds": 3}, "seeds"),
        (None, {"batch_size": 2}, "batch_size"),
    ],
)
def test_a_file_of_other_runs_is_refused(
    change: Any, options: dict[str, Any], what: str, tmp_path: Path
) -> None:
    path = tmp_path / "runs.jsonl"
    model, optimizer = trained()
    gn.branch(model, CE, DATA, optimizer, path=path, **FEW)
    if change is not None:
        change(model, optimizer)
    given = {"loss_fn": CE, "data": DATA, **FEW, **options}
    loss_fn, data = given.pop("loss_fn"), given.pop("data")
    with pytest.raises(gn.SweepFileError, match=f"is of other runs: .*{what}"):
        gn.branch(model, loss_fn, data, optimizer, path=path, **given)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_sizes": []}, "`batch_sizes` must hold at least one"),
        ({"batch_sizes": [0, 4]}, "`batch_sizes` must be a whole number from 1 on; got 0"),
        ({"batch_sizes": [64], "samples": 64}, "`batch_sizes` holds 64, and there are 32 samples"),
        ({"samples": 0}, "`samples` must be a whole number from 1 on"),
        ({"samples": 7}, "`samples` must be enough for a step at every batch size, at least 8"),
        ({"seeds": 0}, "`seeds` must be a whole number from 1 on"),
        ({"further": -1}, "`further` must be a whole number from 0 on"),
        ({"scaling": "cubic"}, "`scaling` must be one of auto, linear, sqrt, none; got 'cubic'"),
        ({"factors": []}, r"`factors` must be positive numbers; got \[\]"),
        ({"factors": [0.0, 1.0]}, "`factors` must be positive numbers"),
        ({"batch_sizes": ["4"]}, "`batch_sizes` must be a whole number from 1 on; got '4'"),
        ({"factors": "12"}, r"`factors` must be positive numbers; got \['1', '2'\]"),
        ({"tolerance": None}, "`tolerance` must be a number; got None"),
        ({"max_grad_norm": "1"}, "`max_grad_norm` must be a number; got '1'"),
        ({"tolerance": 0}, "`tolerance` must be positive; got 0"),
        ({"tolerance": math.nan}, "`tolerance` must be positive; got nan"),
        ({"level": 1.0}, "`level` is a coverage between 0 and 1"),
        ({"batch_size": None}, "`batch_size` is needed"),
        ({"vectorise": "maybe"}, '`vectorise` must be "auto", True or False'),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(gn.ArgumentError, match=said):
        branched(**options)


def test_numbers_of_every_kind_are_read() -> None:
    plain = branched(batch_sizes=[4, 8], factors=[0.5, 1.0], samples=32, seeds=2)
    given: list[dict[str, Any]] = [
        {"batch_sizes": np.array([8, 4]), "factors": np.array([1.0, 0.5])},
        {"batch_sizes": (size for size in (4, 8)), "factors": (f for f in (0.5, 1))},
        {"batch_sizes": [4, 8], "factors": [0.5, 1], "samples": np.int64(32), "seeds": np.int8(2)},
    ]
    for options in given:
        found = branched(**{"samples": 32, "seeds": 2, **options})
        assert [record.run for record in found.records] == [r.run for r in plain.records]
        assert f"{found.critical_batch_size}" in str(found)
    one = branched(batch_sizes=4, factors=1.0, further=0)
    assert {record.run.batch_size for record in one.records} == {4}


def test_one_program_is_refused_where_it_is_not_possible() -> None:
    with pytest.raises(gn.ArgumentError, match="one program: RMSprop is stepped one by one"):
        branched(ALONE["RMSprop"], vectorise=True)
    assert "Own is stepped one by one" in branched(lambda m: Own(m.parameters(), 0.1)).reason


@pytest.mark.parametrize(
    ("scaling", "growth"), [("auto", 2), ("sqrt", 2), ("linear", 4), ("none", 1)]
)
def test_the_first_rates_are_scaled_from_the_batch_size_in_use(scaling: str, growth: int) -> None:
    found = branched(
        STACKED["SGD"], batch_size=2, batch_sizes=[8], scaling=scaling, further=0, seeds=1
    )
    assert found.lrs == pytest.approx([0.05 * growth * factor for factor in (0.5, 1, 2)])
