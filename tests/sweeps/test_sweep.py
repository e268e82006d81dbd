"""Sweeps: held to torch's own optimizers, killed and continued, and to truths of toys."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.sweeps.batch_order import BatchOrder
from gradnoise.sweeps.checkpoint import Checkpoint
from gradnoise.sweeps.divergence import DivergenceMonitor
from gradnoise.sweeps.ensemble import Ensemble
from gradnoise.sweeps.grid import make_plan
from gradnoise.sweeps.optimizer import optimizer_arguments
from gradnoise.sweeps.plan import Plan
from gradnoise.sweeps.record import Record, Run
from gradnoise.sweeps.run import train
from gradnoise.sweeps.vectorise import why_not_vectorised

INPUTS = torch.randn(40, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = (INPUTS[:, 0] + 0.5 * INPUTS[:, 1] > 0).long()
DATA, TEST = (INPUTS[:32], LABELS[:32]), (INPUTS[32:], LABELS[32:])


def interrupt(*_) -> None:
    raise KeyboardInterrupt


NOWHERE = Checkpoint(None, "", ())


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2)).double()


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)).double()


def dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 60), nn.Dropout(0.5), nn.Linear(60, 2)).double()


def half_frozen() -> nn.Module:
    model = small()
    model[0].requires_grad_(False)
    return model


def accuracy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (model(batch[0]).argmax(-1) == batch[1]).double()


def halved(fraction: float) -> float:
    return 1.0 if fraction < 0.5 else 0.5


def plan_of(model=small, optimizer="sgd", momentum=0.0, decay=0.0, schedule=halved) -> Plan:
    return make_plan(
        model, nn.CrossEntropyLoss(), DATA, TEST, {"accuracy": accuracy}, optimizer, momentum,
        decay, schedule,
    )  # fmt: skip


def swept(model=small, loss_fn=None, **options) -> gn.Sweep:
    chosen = {"batch_sizes": [4, 8], "lrs": [0.1, 0.4], "epochs": 2, "seeds": 2, **options}
    return gn.sweep(model, loss_fn or nn.CrossEntropyLoss(), DATA, **chosen)


def zeros() -> nn.Module:
    model = nn.Linear(5, 2).double()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def evaluating() -> nn.Module:
    return small().eval()


class Wrapped(nn.Module):
    """A linear map with a given tensor for its weights."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


class Squashed(nn.Module):
    """The same parameters and the same text, whatever the function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.inner, self.outer, self.function = nn.Linear(5, 6), nn.Linear(6, 2), function
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.function(self.inner(x)))


def penalised(coefficient: float, seen: bool = True):
    """Cross-entropy with a penalty, whose value shows or not."""

    def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        losses = nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
        penalty = coefficient * sum((p * p).sum() for p in model.parameters())
        return losses + penalty - (0.0 if seen else penalty.detach())

    return loss_fn


def first_class(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (model(batch[0]).argmax(-1) == 0).double()


def runs_in(path: Path) -> list[dict]:
    lines = map(json.loads, path.read_text().splitlines())
    return [line for line in lines if "run" in line]


class TestEnsemble:
    @pytest.mark.parametrize(
        ("optimizer", "momentum", "decay"),
        [("sgd", 0.0, 0.0), ("sgd", 0.9, 0.01), ("nesterov", 0.8, 0.0), ("adam", 0.9, 0.02)],
    )
    def test_it_trains_as_torch_does(self, optimizer, momentum, decay):
        plan = plan_of(optimizer=optimizer, momentum=momentum, decay=decay)
        runs = [Run(4, lr, seed, "epochs", 24) for lr in (0.01, 0.1) for seed in (0, 3)]
        together = {
            record.run: record for record in Ensemble(plan, runs).run(lambda _: None, NOWHERE)
        }
        for run in runs:
            alone, _ = train(plan, run)
            for name in ("start_loss", "train_loss", "test_loss"):
                assert getattr(together[run], name) == pytest.approx(getattr(alone, name), rel=1e-9)
            assert together[run].metrics == alone.metrics
            assert together[run].diverged == alone.diverged

    def test_a_run_is_a_plain_loop_over_its_batches(self):
        plan, run = plan_of(schedule=None), Run(8, 0.3, 7, "steps", 9)
        _, model = train(plan, run)
        with torch.random.fork_rng():
            torch.manual_seed(7)
            own = small()
        step = torch.optim.SGD(own.parameters(), lr=0.3)
        order = BatchOrder(32, 8, seed=7)
        for count in range(9):
            rows = order.rows(count)
            step.zero_grad()
            nn.functional.cross_entropy(own(DATA[0][rows]), DATA[1][rows]).backward()
            step.step()
        for ours, theirs in zip(model.parameters(), own.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)

    def test_runs_that_diverge_leave_and_the_others_go_on(self):
        toy = gn.toy.NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
        data = toy.sample(32, seed=0)
        rates = [0.1, 5.0, 0.3, 50.0]
        found = gn.sweep(toy.model, toy.loss_fn, data, batch_sizes=[8], lrs=rates, steps=80)
        alone = gn.sweep(toy.model, toy.loss_fn, data, batch_sizes=[8], lrs=[0.3], steps=80)
        assert [record.diverged for record in found.records] == [False, False, True, True]
        assert [record.stopped is None for record in found.records] == [True, True, False, False]
        assert found.records[1].train_loss == pytest.approx(alone.records[0].train_loss, rel=1e-9)

    @pytest.mark.parametrize(
        ("model", "reason"), [(small, None), (normalised, "batch norm"), (dropping, "")]
    )
    def test_models_that_cannot_be_one_program_are_known(self, model, reason):
        found = why_not_vectorised(plan_of(model), Run(4, 0.1, 0, "epochs", 2))
        assert found is None if reason is None else reason in str(found).lower()

    @pytest.mark.parametrize("model", [normalised, dropping])
    def test_they_are_trained_one_by_one_with_the_reason_said(self, model):
        found = gn.sweep(model, nn.CrossEntropyLoss(), DATA, batch_sizes=[8], lrs=[0.1], epochs=1)
        assert found.vectorised == 0
        assert "cannot be one program" in found.reason
        assert "trained one by one" in str(found)
        with pytest.raises(gn.ArgumentError, match="`vectorise` = True, but the runs cannot"):
            gn.sweep(
                model, nn.CrossEntropyLoss(), DATA, batch_sizes=[8], lrs=[0.1], epochs=1,
                vectorise=True,
            )  # fmt: skip

    def test_either_way_gives_the_same_table(self):
        one, other = swept(), swept(vectorise=False)
        assert (one.vectorised, other.vectorised) == (4, 0)
        for first, second in zip(one.rows, other.rows, strict=True):
            assert first == pytest.approx(second)


class TestOrder:
    def test_every_epoch_sees_every_sample_once_in_another_order(self):
        order = BatchOrder(12, 4, seed=0)
        epochs = [torch.cat([order.rows(3 * e + s) for s in range(3)]) for e in range(2)]
        assert all(epoch.sort().values.tolist() == list(range(12)) for epoch in epochs)
        assert epochs[0].tolist() != epochs[1].tolist()

    def test_an_incomplete_batch_is_left_out(self):
        order = BatchOrder(10, 4, seed=0)
        assert len(torch.cat([order.rows(0), order.rows(1)]).unique()) == 8

    def test_the_seed_decides(self):
        assert BatchOrder(12, 4, 0).rows(5).tolist() == BatchOrder(12, 4, 0).rows(5).tolist()
        assert BatchOrder(12, 4, 0).rows(5).tolist() != BatchOrder(12, 4, 1).rows(5).tolist()


class TestWatch:
    @pytest.mark.parametrize(
        ("losses", "end", "diverged"),
        [
            ([1.0, 0.9, 0.5], 0.4, False),
            ([1.0, 0.99], 0.99, False),  # slow
            ([1.0, 1.1], 1.01, True),  # higher than before
            ([1.0, 9.0, 9.0, 9.0], 0.95, True),  # blew up and did not come back
            ([1.0, 9.0, 9.0, 9.0], 0.5, False),  # did
            ([1.0], math.inf, True),
            ([1.0], math.nan, True),
        ],
    )
    def test_what_diverged_means(self, losses, end, diverged):
        monitor = DivergenceMonitor(torch.tensor([1.0]), tolerates_spikes=True)
        for loss in losses:
            assert bool(monitor.see(torch.tensor([loss])))
        assert monitor.verdict(torch.tensor([end])) == [diverged]

    @pytest.mark.parametrize(
        ("tolerates_spikes", "loss"), [(True, 2e5), (False, 30.0), (True, math.nan)]
    )
    def test_hopeless_runs_are_given_up(self, tolerates_spikes, loss):
        monitor = DivergenceMonitor(torch.tensor([1.0, 1.0]), tolerates_spikes)
        assert monitor.see(torch.tensor([loss, 1.0])).tolist() == [False, True]


class TestLedger:
    def test_what_is_done_is_not_done_again(self, tmp_path, monkeypatch):
        path = tmp_path / "sweep.jsonl"
        first = swept(path=path)
        monkeypatch.setattr("gradnoise.sweeps.execute.run_group", None)  # nothing left to do
        again = swept(path=path)
        assert again.records == first.records
        assert gn.Sweep.load(path).records == first.records

    def test_the_grid_may_grow(self, tmp_path):
        path = tmp_path / "sweep.jsonl"
        swept(path=path, lrs=[0.1])
        grown = swept(path=path)
        assert [r.train_loss for r in grown.records] == pytest.approx(
            [r.train_loss for r in swept().records], rel=1e-9
        )
        assert len(runs_in(path)) == 8

    def test_a_line_that_was_cut_off_is_trained_again(self, tmp_path):
        path = tmp_path / "sweep.jsonl"
        first = swept(path=path)
        path.write_text(path.read_text()[:-40])
        assert len(gn.Sweep.load(path).records) == 7
        assert swept(path=path).records == pytest.approx(first.records)
        assert [json.loads(line) for line in path.read_text().splitlines() if line[-1:] == "}"]
        assert len(gn.Sweep.load(path).records) == 8

    @pytest.mark.parametrize(
        ("options", "what"),
        [
            ({"momentum": 0.5}, "momentum"),
            ({"schedule": halved}, "fingerprint"),
            ({"model": half_frozen}, "fingerprint"),
            ({"model": evaluating}, "fingerprint"),
            ({"loss_fn": nn.CrossEntropyLoss(label_smoothing=0.5)}, "loss at the start"),
            ({"loss_fn": penalised(1e-4)}, "loss at the start"),
            ({"loss_fn": penalised(0.1, seen=False)}, "gradient nearby at the start"),
        ],
    )
    def test_another_sweep_is_refused(self, tmp_path, options, what):
        path = tmp_path / "sweep.jsonl"
        swept(path=path)
        with pytest.raises(gn.SweepFileError, match=f"of another sweep: .*{what}"):
            swept(path=path, **options)

    @pytest.mark.parametrize(
        ("first", "then", "what"),
        [
            (
                {"model": zeros, "loss_fn": penalised(0.1)},
                {"model": zeros, "loss_fn": penalised(0.2)},
                "loss nearby at the start",
            ),
            (
                {"model": lambda: Squashed(torch.tanh)},
                {"model": lambda: Squashed(torch.relu)},
                "loss at the start",
            ),
            (
                {"test_data": TEST, "metrics": {"share": accuracy}},
                {"test_data": TEST, "metrics": {"share": first_class}},
                "metric 'share' at the start",
            ),
            (
                {"schedule": lambda fraction: 1.0 if fraction < 0.503 else 0.5},
                {"schedule": lambda fraction: 1.0 if fraction < 0.510 else 0.5},
                "fingerprint",
            ),
        ],
    )
    def test_what_changes_the_runs_alone_makes_another_sweep(self, tmp_path, first, then, what):
        path = tmp_path / "sweep.jsonl"
        swept(path=path, **first)
        assert len(swept(path=path, **first).records) == 8
        with pytest.raises(gn.SweepFileError, match=f"of another sweep: {what}"):
            swept(path=path, **then)

    @pytest.mark.parametrize(("change", "refused"), [(1e-7, False), (1e-3, True)])
    def test_values_at_the_start_may_differ_by_rounding(self, tmp_path, change, refused):
        path = tmp_path / "sweep.jsonl"
        swept(path=path)
        header, rest = path.read_text().split("\n", 1)
        fields = json.loads(header)
        fields["start"]["loss"] *= 1 + change
        path.write_text(json.dumps(fields) + "\n" + rest)
        if refused:
            with pytest.raises(
                gn.SweepFileError, match=r"loss at the start \(0\.\d{6,7} in the file"
            ):
                swept(path=path)
        else:
            assert len(swept(path=path).records) == 8

    def test_a_file_without_values_at_the_start_is_read_and_not_continued(self, tmp_path):
        path = tmp_path / "sweep.jsonl"
        found = swept(path=path)
        header, rest = path.read_text().split("\n", 1)
        path.write_text(json.dumps({**json.loads(header), "start": {}}) + "\n" + rest)
        assert gn.Sweep.load(path).records == found.records
        with pytest.raises(
            gn.SweepFileError, match=r"values at the start \(an older file has none"
        ):
            swept(path=path)

    @pytest.mark.parametrize("model", [small, normalised])
    def test_how_runs_were_trained_is_kept(self, tmp_path, model, monkeypatch):
        path = tmp_path / "sweep.jsonl"
        found = swept(model, path=path)
        assert str(gn.Sweep.load(path)) == str(found)
        assert gn.Sweep.load(path).vectorised == (4 if model is small else 0)
        assert gn.Sweep.load(path).reason == found.reason
        monkeypatch.setattr(
            "gradnoise.sweeps.vectorise.why_not_vectorised", None
        )  # nothing is tried again
        assert str(swept(model, path=path)) == str(found)

    @pytest.mark.parametrize(
        ("line", "damage"),
        [
            (-1, {"start_loss": "0.6e"}),
            (-1, {"train_loss": None}),
            (-1, {"stopped": "soon"}),
            (-1, {"metrics": [1.0]}),
            (-1, {"run": {"lr": "0,1"}}),
            (-1, {"run": [4, 0.1]}),
            (0, {"start": {"loss": "big"}}),
            (1, {"vectorised": "all"}),
        ],
    )
    def test_a_damaged_number_is_said(self, tmp_path, line, damage):
        path = tmp_path / "sweep.jsonl"
        swept(path=path)
        lines = path.read_text().splitlines()
        lines[line] = json.dumps({**json.loads(lines[line]), **damage})
        path.write_text("\n".join(lines))
        for read in (gn.Sweep.load, lambda path: swept(path=path)):
            with pytest.raises(gn.SweepFileError, match=r"is damaged \(.+\); sweep again"):
                read(path)

    def test_a_file_of_something_else_is_refused(self, tmp_path):
        path = tmp_path / "notes.txt"
        path.write_text("buy milk\n")
        with pytest.raises(gn.SweepFileError, match="is not a sweep of this version"):
            swept(path=path)
        with pytest.raises(gn.SweepFileError, match="cannot read"):
            gn.Sweep.load(tmp_path / "nothing.jsonl")
        with pytest.raises(gn.SweepFileError, match="cannot write"):
            swept(path=tmp_path / "no folder" / "sweep.jsonl")

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"momentum": 0.9, "optimizer": "nesterov"},
            {"momentum": 0.9, "optimizer": "adam", "weight_decay": 0.1},
        ],
    )
    def test_a_program_that_was_cut_off_goes_on_where_it_stood(
        self, tmp_path, monkeypatch, options
    ):
        """Interrupted after 21 of 32 steps, with one run of six given up before."""
        path = tmp_path / "sweep.jsonl"
        chosen = {"batch_sizes": [4], "lrs": [0.01, 0.1, 1e30], "epochs": 4, **options}
        whole = swept(**chosen)
        monkeypatch.setattr("gradnoise.sweeps.checkpoint.EVERY", 0.0)
        real, taken = Ensemble.update, []

        def step(self, at, gradients):
            if len(taken) == 21:
                raise KeyboardInterrupt
            taken.append(at)
            real(self, at, gradients)

        monkeypatch.setattr(Ensemble, "update", step)
        with pytest.raises(KeyboardInterrupt):
            swept(path=path, **chosen)
        assert len(list(tmp_path.glob("*.part"))) == 1
        assert not gn.Sweep.load(path).records
        taken.append("resumed")
        again = swept(path=path, **chosen)
        assert taken == [*range(21), "resumed", *range(21, 32)]
        assert again.records == whole.records
        assert not list(tmp_path.glob("*.part"))

    def test_a_new_file_does_not_go_on_from_what_a_lost_one_left(self, tmp_path, monkeypatch):
        """Interrupted under one loss, the file deleted, then swept under another."""
        path = tmp_path / "sweep.jsonl"
        monkeypatch.setattr("gradnoise.sweeps.checkpoint.EVERY", 0.0)
        with monkeypatch.context() as once:
            once.setattr("gradnoise.sweeps.ensemble.ended", interrupt)
            with pytest.raises(KeyboardInterrupt):
                swept(path=path, loss_fn=penalised(0.5))
        assert len(list(tmp_path.glob("*.part"))) == 1
        path.unlink()
        found = swept(path=path)
        assert found.records == swept().records
        assert not list(tmp_path.glob("*.part"))

    def test_a_checkpoint_that_cannot_be_read_is_left_out(self, tmp_path):
        kept = Checkpoint(tmp_path / "s.jsonl", "mark", ("a",))
        assert kept.load() is None
        kept.path.write_bytes(b"half a file")
        assert kept.load() is None
        assert Checkpoint(kept.ledger, "other", ("a",)).path != kept.path
        kept.save({"step": 3})
        assert kept.load() == {"step": 3}
        kept.clear()
        kept.clear()
        assert not kept.path.exists()

    def test_a_killed_sweep_goes_on(self, tmp_path):
        """Killed without warning once something is written; the rest is trained, nothing twice."""
        path, script = tmp_path / "sweep.jsonl", tmp_path / "train.py"
        script.write_text(
            textwrap.dedent(
                f"""
                import sys, time, torch
                from torch import nn
                import gradnoise as gn
                import gradnoise.sweeps.execute as execute

                def small():
                    return nn.Linear(3, 2)

                plain = execute.run_group
                def slow(plan, runs, *rest):
                    with open(sys.argv[2], "a") as log:
                        log.write(f"{{runs[0].batch_size}}\\n")
                    time.sleep(float(sys.argv[1]))
                    return plain(plan, runs, *rest)
                execute.run_group = slow

                source = torch.Generator().manual_seed(0)
                data = torch.randn(16, 3, generator=source), torch.arange(16) % 2
                found = gn.sweep(
                    small, nn.CrossEntropyLoss(), data, batch_sizes=[1, 2, 4, 8], lrs=[0.1, 0.2],
                    epochs=1, path={str(path)!r},
                )
                print(len(found.records))
                """
            )
        )
        log = tmp_path / "log"
        command = [sys.executable, str(script), "0.5", str(log)]
        victim = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
        for _ in range(600):
            if path.exists() and len(path.read_text().splitlines()) >= 4:
                break
            time.sleep(0.1)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        kept = len(gn.Sweep.load(path).records)
        assert 2 <= kept < 8
        command[2] = "0"
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        assert done.stdout.strip() == "8"
        groups = log.read_text().split()
        assert sorted(set(groups)) == ["1", "2", "4", "8"]
        assert len(groups) <= 5  # the one that was cut off, once more


def made(losses: tuple[float, ...], sizes: tuple[int, ...]) -> gn.Sweep:
    """Runs that end at these losses by learning rate, and diverge at one more."""
    records = [
        Record(Run(size, 0.1 * 2**k, 0, "steps", 9), loss == math.inf, None, 1.0, loss)
        for size in sizes
        for k, loss in enumerate((*losses, math.inf))
    ]
    return gn.Sweep(tuple(records), {})


ROOT = Path(__file__).parents[2]


class Inline(Executor):
    """Runs what it is sent at once, from a copy as another process would have."""

    def submit(self, function, *given):
        future = Future()
        future.set_result(function(*pickle.loads(pickle.dumps(given))))
        return future


COUNTED: list[int] = []  # passes over all samples without a gradient


def counted(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    if len(batch[0]) == 32 and not torch.is_grad_enabled():
        COUNTED.append(32)
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


class TestWork:
    """What is done once for a sweep is not done for every batch size."""

    @pytest.mark.parametrize(("vectorise", "models"), [("auto", 2 + 2 + 2 * 2), (False, 2 + 2 + 8)])
    def test_the_loss_at_the_start_is_computed_once_for_every_seed(self, vectorise, models):
        made = []
        COUNTED.clear()

        def make() -> nn.Module:
            made.append(small())
            return made[-1]

        assert len(swept(make, counted, vectorise=vectorise).records) == 8
        assert len(COUNTED) == 2 + 8  # both seeds before, all runs after
        assert len(made) <= models

    def test_it_is_sent_to_an_executor(self):
        COUNTED.clear()
        found = swept(loss_fn=counted, executor=Inline())
        assert len(COUNTED) == 2 + 8
        assert found.records == swept().records

    @pytest.mark.parametrize("model", [normalised, dropping])
    def test_a_run_is_the_same_whatever_was_swept_before(self, model):
        alone = swept(model, batch_sizes=[8], lrs=[0.4], vectorise=False).records
        whole = swept(model, vectorise=False).records
        assert [r for r in whole if (r.run.batch_size, r.run.lr) == (8, 0.4)] == list(alone)

    def test_a_quick_sweep_tries_once_whether_runs_can_be_one_program(self, monkeypatch):
        tried = []
        monkeypatch.setattr(
            "gradnoise.sweeps.vectorise.why_not_vectorised",
            lambda *given: tried.append(given) or "no",
        )
        gn.lr_sweep(small, nn.CrossEntropyLoss(), DATA, batch_size=8, lrs=[1e-3], seeds=2)
        assert len(tried) == 1


class TestExecutor:
    def test_processes_give_the_same_table(self):
        with ProcessPoolExecutor(max_workers=2) as pool:
            found = swept(executor=pool)
        for first, second in zip(found.rows, swept().rows, strict=True):
            assert first == pytest.approx(second)

    def test_what_cannot_be_sent_is_said(self):
        with (
            ProcessPoolExecutor(max_workers=1) as pool,
            pytest.raises(gn.ArgumentError, match="have to be picklable"),
        ):
            gn.sweep(
                lambda: small(), nn.CrossEntropyLoss(), DATA, batch_sizes=[8], lrs=[0.1], epochs=1,
                executor=pool,
            )  # fmt: skip
        with (
            ThreadPoolExecutor(max_workers=1) as pool,
            pytest.raises(gn.ArgumentError, match="runs threads"),
        ):
            swept(executor=pool)


class TestGrid:
    def test_equal_epochs_are_fewer_steps_of_larger_batches(self):
        steps = {r.run.batch_size: r.run.steps for r in swept(epochs=3).records}
        assert steps == {4: 24, 8: 12}

    def test_both_budgets_are_swept(self):
        found = swept(steps=5)
        assert {r.run.steps for r in found.under("steps").records} == {5}
        assert {r.run.steps for r in found.under("epochs").records} == {16, 8}
        with pytest.raises(gn.ArgumentError, match="these runs have two budgets"):
            found.best()
        with pytest.raises(gn.ArgumentError, match="no run has the `budget` 'hours'"):
            found.under("hours")
        assert "equal steps, B =" in str(found)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"batch_sizes": []}, "must each hold something"),
            ({"batch_sizes": [0]}, "`batch_sizes` must be a whole number from 1 on; got 0"),
            ({"batch_sizes": [64]}, "`batch_sizes` holds 64, and there are 32 samples"),
            ({"lrs": [0.1, -1.0]}, "`lrs` must be positive numbers"),
            ({"lrs": ["0.1"]}, "`lrs` must be positive numbers"),
            ({"seeds": [-1]}, "`seeds` must be a whole number from 0 on; got -1"),
            ({"epochs": None}, "say how long to train"),
            ({"epochs": 0}, "`epochs` must be a positive number; got 0"),
            ({"steps": 0}, "`steps` must be a whole number from 1 on; got 0"),
            ({"momentum": 1.0}, "`momentum` must be at least 0 and below 1; got 1.0"),
            ({"optimizer": "lion"}, "`optimizer` must be one of sgd, nesterov, adam; got 'lion'"),
            ({"optimizer": "nesterov"}, "needs a `momentum` above 0"),
            ({"vectorise": "maybe"}, '`vectorise` must be "auto", True or False'),
            ({"metrics": {"accuracy": accuracy}}, "`metrics` are about `test_data`; give some"),
        ],
    )
    def test_what_cannot_be_trained_is_refused(self, options, message):
        with pytest.raises(gn.ArgumentError, match=message):
            swept(**options)

    def test_a_model_in_place_of_a_function_is_refused(self):
        for wrong, error, message in (
            (small(), gn.ArgumentError, "`make_model` must be a function"),
            (lambda: None, gn.ModelError, "`make_model` must return a new torch.nn.Module"),
            (nn.Linear, gn.ArgumentError, "`make_model` is called without arguments"),
            (nn.Tanh, gn.ModelError, "the model has no trainable parameter"),
        ):
            with pytest.raises(error, match=message):
                gn.sweep(wrong, nn.CrossEntropyLoss(), DATA, batch_sizes=[8], lrs=[1.0], epochs=1)

    @pytest.mark.parametrize("make", [lambda model: model, lambda model: Wrapped(model.weight)])
    def test_a_model_that_is_handed_out_twice_is_refused(self, make):
        model = nn.Linear(5, 2).double()
        for sweep in (gn.sweep, gn.lr_sweep):
            size = {"batch_sizes": [8], "lrs": [0.1]} if sweep is gn.sweep else {"batch_size": 8}
            with pytest.raises(gn.ArgumentError, match=r"the same weights twice.*deepcopy"):
                sweep(lambda: make(model), nn.CrossEntropyLoss(), DATA, epochs=1, **size)

    def test_a_copy_of_a_model_and_a_frozen_part_that_is_shared_are_trained(self):
        model, frozen = small(), nn.Linear(5, 5).double().requires_grad_(False)
        before = [p.clone() for p in model.parameters()]
        for make in (
            lambda: copy.deepcopy(model),
            lambda: nn.Sequential(frozen, nn.Linear(5, 2).double()),
        ):
            assert len(swept(make).records) == 8
        assert all(map(torch.equal, before, model.parameters()))

    def test_weights_that_the_seed_does_not_decide_are_refused(self):
        source = torch.Generator().manual_seed(0)

        def make() -> nn.Module:
            return Wrapped(torch.randn(2, 5, generator=source, dtype=torch.float64))

        with pytest.raises(gn.ArgumentError, match="other weights when it was called again under"):
            swept(make)

    def test_no_samples_at_all_are_refused(self):
        with pytest.raises(gn.DataError, match=r"got no samples; at least 1 needed\. Pass"):
            gn.sweep(
                small, nn.CrossEntropyLoss(), (INPUTS[:0], LABELS[:0]), batch_sizes=[1], lrs=[1.0],
                epochs=1,
            )  # fmt: skip

    def test_samples_that_do_not_fit_into_one_tensor_are_refused(self):
        ragged = [(torch.randn(2, 3), torch.zeros(2)), (torch.randn(2, 4), torch.zeros(2))]
        with pytest.raises(gn.DataError, match="the batches of `train_data` do not fit into one"):
            gn.sweep(small, nn.CrossEntropyLoss(), ragged, batch_sizes=[1], lrs=[1.0], epochs=1)

    def test_losses_and_metrics_are_one_per_sample(self):
        def mean_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            return nn.functional.cross_entropy(model(batch[0]), batch[1])

        with pytest.raises(gn.LossError, match="`loss_fn` must return one number per sample"):
            gn.sweep(small, mean_loss, DATA, batch_sizes=[8], lrs=[1.0], epochs=1)
        with pytest.raises(gn.LossError, match="a metric must return one number per sample"):
            swept(test_data=TEST, metrics={"all": lambda model, batch: model(batch[0]).sum()})

    def test_a_loss_that_is_not_finite_from_the_start_is_said(self):
        with pytest.raises(gn.LossError, match="the loss of a fresh model is not finite"):
            gn.sweep(
                small, nn.CrossEntropyLoss(), (math.nan * DATA[0], DATA[1]), batch_sizes=[8],
                lrs=[1.0], epochs=1,
            )  # fmt: skip

    def test_nothing_of_the_callers_is_changed(self):
        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(*DATA), batch_size=8, shuffle=True
        )
        before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        with torch.no_grad():
            swept()
            gn.sweep(
                small, nn.CrossEntropyLoss(), loader, batch_sizes=[8], lrs=[1.0], epochs=1,
                vectorise=False,
            )  # fmt: skip
            gn.lr_sweep(small, nn.CrossEntropyLoss(), loader, batch_size=8, lrs=[0.1, 1e4])
            assert not torch.is_grad_enabled()
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]

    def test_a_model_too_large_to_be_stacked_is_trained_alone(self, monkeypatch):
        monkeypatch.setattr("gradnoise.sweeps.vectorise.MEMORY", 1000)
        found = swept()
        assert found.vectorised == 0
        assert "too large to be stacked" in found.reason

    def test_frozen_parameters_that_the_seed_decides_are_not_shared(self):
        found = gn.sweep(
            half_frozen, nn.CrossEntropyLoss(), DATA, batch_sizes=[8], lrs=[0.1], epochs=1, seeds=2
        )
        assert found.vectorised == 0
        assert found.records[0].start_loss != found.records[1].start_loss

    def test_runs_that_diverge_are_strict_json(self, tmp_path):
        toy = gn.toy.NoisyQuadratic(torch.eye(2), torch.ones(2))
        path = tmp_path / "sweep.jsonl"
        options = {"batch_sizes": [8], "lrs": [0.1, 90.0], "steps": 60, "path": path}
        found = gn.sweep(toy.model, toy.loss_fn, toy.sample(16, seed=0), **options)
        for line in path.read_text().splitlines():
            json.loads(line, parse_constant=lambda name: pytest.fail(name))
        json.dumps(found.to_dict(), allow_nan=False)
        assert set(map(str, gn.Sweep.load(path).records)) == set(map(str, found.records))
        assert found.records[1].train_loss == math.inf

    def test_a_loss_that_is_not_finite_near_the_start_is_no_obstacle(self, tmp_path):
        def steep(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            far = (1000 * model.bias.sum()).exp()
            return model(batch[0])[:, 0].exp() + far.square() - far.square()

        path = tmp_path / "sweep.jsonl"
        found = swept(zeros, steep, lrs=[1e-9], path=path)
        assert math.inf in found.settings["start"].values()
        json.dumps(found.to_dict(), allow_nan=False)
        assert swept(zeros, steep, lrs=[1e-9], path=path).records == found.records


@pytest.fixture(scope="module")
def found() -> gn.Sweep:
    return replace(swept(), settings={})


class TestTable:
    def test_a_row_holds_the_run_and_what_came_out(self, found):
        row = found.rows[0]
        assert (row["batch_size"], row["lr"], row["seed"], row["steps"]) == (4, 0.1, 0, 16)
        assert row["train_loss"] < row["start_loss"]

    def test_the_best_is_the_lowest_mean_over_seeds(self, found):
        best = found.best()[4]
        own = [r.train_loss for r in found.records if (r.run.batch_size, r.run.lr) == (4, 0.4)]
        assert best.lr == 0.4
        assert best.value == pytest.approx(sum(own) / 2)
        assert best.stderr == pytest.approx(abs(own[0] - own[1]) / 2)
        assert best.at_edge

    def test_of_a_metric_the_largest_is_best(self):
        found = swept(test_data=TEST, metrics={"accuracy": accuracy})
        best = found.best("accuracy")[4]
        means = {
            lr: sum(r.metrics["accuracy"] for r in found.records if r.run.lr == lr and
                    r.run.batch_size == 4) / 2
            for lr in found.lrs
        }  # fmt: skip
        assert best.value == max(means.values())
        assert "accuracy" in str(found)
        with pytest.raises(gn.ArgumentError, match="`by` = 'speed' was not measured"):
            found.best("speed")

    def test_it_can_be_printed_and_written(self, found):
        text = str(found)
        assert "8 runs, 0 diverged; trained 4 at once" in text
        assert "0.400 or more" in text
        assert "no knee: a knee needs three batch sizes" in text
        assert "\noptimizer" not in text
        json.dumps(found.to_dict())

    def test_what_trained_them_is_said(self):
        found = swept(momentum=0.9, optimizer="nesterov", weight_decay=0.01)
        assert "\noptimizer nesterov, momentum 0.9, weight decay 0.01\n" in str(found)
        assert "\noptimizer sgd\n" in str(swept())

    @pytest.mark.parametrize("knee", [True, False])
    @pytest.mark.parametrize("starred", [True, False])
    def test_a_star_is_explained_where_there_is_one(self, knee, starred):
        losses = (0.5, 0.8, 0.9) if starred else (0.9, 0.5, 0.8)
        found = made(losses, (1, 4, 16) if knee else (1, 4))
        text = str(found)
        assert ("ε_∞ " in text) == knee
        assert ("\n* the best ε lies at the edge of the grid: extend `lrs`" in text) == starred
        assert text.count("*") == (len(found.batch_sizes) + 1) * starred

    def test_no_column_is_shown_twice(self):
        first, *_ = str(made((0.9, 0.5, 0.8), (1, 4))).split("equal steps")[1].splitlines()
        assert "train_loss" in first
        assert "best by train loss" not in first
        assert "best by train loss" in str(swept(test_data=TEST))


class TestToys:
    def test_full_batches_are_stable_up_to_two_over_the_sharpness(self):
        toy = gn.toy.NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
        rates = [0.45, 0.49, 0.51, 0.55]
        found = gn.sweep(
            toy.model, toy.loss_fn, toy.sample(16, seed=0), batch_sizes=[16], lrs=rates, steps=400
        )
        assert found.largest_stable() == {16: 0.49}

    def test_a_quick_sweep_brackets_it_whatever_the_grid(self):
        toy = gn.toy.NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
        for grid in (None, [1e-7], [1e4]):
            found = gn.lr_sweep(
                toy.model, toy.loss_fn, toy.sample(16, seed=0), batch_size=16, epochs=100, lrs=grid
            )
            assert 0.3 < found.stable < 0.5 < found.diverged < 1.0
            assert found.diverged / found.stable < 1.6
            assert found.best <= found.stable
            assert "largest stable" in str(found)

    def test_a_loss_that_cannot_diverge_is_said(self):
        class Bounded(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.w = nn.Parameter(torch.tensor(1.0))

            def forward(self, x: Tensor) -> Tensor:
                return torch.sigmoid(self.w).expand(len(x))

        with pytest.raises(gn.ArgumentError, match="every run stayed stable"):
            gn.lr_sweep(Bounded, lambda m, x: m(x), torch.zeros(8), batch_size=4, epochs=2)


class TestOptimizer:
    """The arguments of a sweep that trains as a torch optimizer does."""

    @pytest.mark.parametrize(
        ("make", "expected"),
        [
            (lambda p: torch.optim.SGD(p, lr=0.1), ("sgd", 0.0, 0.0)),
            (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), ("sgd", 0.9, 0.0)),
            (
                lambda p: torch.optim.SGD(p, momentum=0.9, nesterov=True, weight_decay=0.1),
                ("nesterov", 0.9, 0.1),
            ),
            (lambda p: torch.optim.Adam(p, weight_decay=0.1, foreach=False), ("adam", 0.9, 0.1)),
            (lambda p: torch.optim.AdamW(p, weight_decay=0.0), ("adam", 0.9, 0.0)),
            (lambda p: torch.optim.SGD([{"params": [q]} for q in p], lr=0.1), ("sgd", 0.0, 0.0)),
        ],
    )
    def test_they_are_those_that_train_alike(self, make, expected):
        model = small()
        optimizer = make(list(model.parameters()))
        found = optimizer_arguments(optimizer)
        assert (found["optimizer"], found["momentum"], found["weight_decay"]) == expected
        for group in optimizer.param_groups:
            group["lr"] = 0.1
        torch.manual_seed(0)
        own, loss_fn = small(), nn.CrossEntropyLoss()
        model.load_state_dict(own.state_dict())
        for _ in range(4):
            optimizer.zero_grad()
            loss_fn(model(DATA[0]), DATA[1]).backward()
            optimizer.step()
        swept = gn.sweep(
            lambda: copy.deepcopy(own), loss_fn, DATA, batch_sizes=[32], lrs=[0.1], steps=4, **found
        )
        after = float(loss_fn(model(DATA[0]), DATA[1]).detach())
        assert swept.records[0].train_loss == pytest.approx(after, rel=1e-6)

    def test_none_is_plain_sgd(self):
        assert optimizer_arguments(None) == {}

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (torch.optim.RMSprop, r"trains with torch's SGD or Adam; the optimizer is RMSprop\."),
            (torch.optim.AdamW, r"cannot train with AdamW and decoupled weight decay"),
            (lambda p: torch.optim.Adam(p, eps=1e-3), r"Adam and eps = 0\.001:"),
            (lambda p: torch.optim.Adam(p, betas=(0.9, 0.99)), r"betas = \(0\.9, 0\.99\)"),
            (lambda p: torch.optim.Adam(p, amsgrad=True), "amsgrad = True"),
            (lambda p: torch.optim.SGD(p, maximize=True), "maximize = True"),
            (
                lambda p: torch.optim.SGD([{"params": p[:1]}, {"params": p[1:], "lr": 0.7}]),
                "several learning rates",
            ),
            (
                lambda p: torch.optim.SGD([{"params": p[:1]}, {"params": p[1:], "momentum": 0.7}]),
                r"momentum = 0\.7",
            ),
        ],
    )
    def test_what_a_sweep_does_not_have_is_refused(self, make, said):
        with pytest.raises(gn.ArgumentError, match=said):
            optimizer_arguments(make(list(small().parameters())))
