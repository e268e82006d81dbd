"""Whole sweeps: a known limit, a kill, and nothing of the caller changed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.sweeps.knee import with_lost
from gradnoise.training.batch_order import BatchOrder
from tests.small_runs import DATA, small, swept
from tests.starts import ALONE, CE, STACKED, by_hand, state_of, trained

ROOT = Path(__file__).parents[2]


def test_full_batches_are_stable_up_to_two_over_the_sharpness() -> None:
    toy = gn.toy.NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
    rates = [0.45, 0.49, 0.51, 0.55]
    found = gn.sweep(
        toy.model, toy.loss_fn, toy.sample(16, seed=0), batch_sizes=[16], lrs=rates, steps=400
    )
    assert found.largest_stable() == {16: 0.49}


def test_a_killed_sweep_goes_on(tmp_path: Path) -> None:
    """Killed without warning once something is written; the rest is trained, nothing twice."""
    path, script = tmp_path / "sweep.jsonl", tmp_path / "train.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys, time, torch
            from torch import nn
            import gradnoise as gn
            import gradnoise.training.execute as execute

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
                epochs=1, path={str(path)!r}, vectorise=True,
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


def test_nothing_of_the_callers_is_changed() -> None:
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


@pytest.mark.parametrize("name", ["momentum", "AdamW in groups", "RMSprop"])
def test_a_sweep_can_start_from_a_model_and_its_optimizer(name: str, tmp_path: Path) -> None:
    model, optimizer = trained({**STACKED, **ALONE}[name])
    before, path = state_of(model, optimizer), tmp_path / "sweep.jsonl"
    found = swept(model, optimizer=optimizer, path=path, lrs=[0.01, 0.1])
    assert state_of(model, optimizer) == before
    for record in found.records[::3]:
        run = record.run
        order = BatchOrder(32, run.batch_size, run.seed)
        batches = [order.rows(step) for step in range(run.steps)]
        own, _ = by_hand(model, optimizer, run.lr, batches)
        assert record.train_loss == pytest.approx(CE(own(DATA[0]), DATA[1]).item(), rel=1e-9)
    assert gn.Sweep.load(path) == found
    optimizer.param_groups[0]["weight_decay"] = 0.5
    with pytest.raises(gn.SweepFileError, match="is of other runs: fingerprint"):
        swept(model, optimizer=optimizer, path=path, lrs=[0.01, 0.1])


class Point(nn.Module):
    """One number."""

    def __init__(self) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor([1.2], dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.at - x


def test_a_trained_model_may_stay_where_it_is(tmp_path: Path) -> None:
    """A smaller rate that trains further does not make the others diverge, as in a fresh one."""
    model, path = Point(), tmp_path / "sweep.jsonl"
    data = torch.randn(64, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = gn.sweep(
        model, lambda model, x: model(x).square()[:, 0] / 2, data, batch_sizes=[1], steps=60,
        lrs=[0.05, 1.0], optimizer=torch.optim.SGD(model.parameters(), 0.1), path=path, seeds=24,
    )  # fmt: skip
    lost = with_lost(found.records)
    assert sum(r.diverged for r in found.records) < sum(r.diverged for r in lost)
    assert gn.Sweep.load(path) == found
