"""Two ranks in each training framework: the numbers are those of all samples together."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.nn.functional import cross_entropy

import gradnoise as gn
from tests import small_loops, small_modules, small_trainers
from tests.offline import Numbers, averaged, by_parts, rows_of

WORLD, PARTS = 2, 2
Part = tuple[Tensor, int, float]  # c_j, b_j, w_j of a micro-batch, of this rank alone
FRAMEWORKS = ("accelerate", "lightning", "transformers")


def restored(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    model.double().load_state_dict({key.removeprefix("module."): t for key, t in state.items()})
    return model


def classified(passes: list[Any]) -> list[Part]:
    """Of micro-batches that are averaged."""
    found = []
    for state, inputs, labels in passes:
        model = restored(small_modules.network(), state)
        loss = cross_entropy(model(inputs), labels) / len(passes)
        found.append((rows_of(model, [loss])[0], len(labels), 1 / len(passes)))
    return found


def in_accelerate(folder: Path) -> tuple[gn.NoiseMonitor, list[list[Part]]]:
    loop = small_loops.Loop(PARTS)
    monitor = gn.attach(loop.accelerator, model=loop.model, every=1, sink=f"{folder}.jsonl")
    loop.train()
    return monitor, [classified(passes) for passes in loop.passes if passes]


def in_lightning(folder: Path) -> tuple[gn.NoiseMonitor, list[list[Part]]]:
    module = small_modules.Classifier()
    run = small_modules.trainer(
        folder, precision="64-true", accumulate_grad_batches=PARTS, devices=WORLD, strategy="ddp"
    )
    monitor = gn.attach(run, model=module, every=1, sink=f"{folder}.jsonl")
    small_modules.fit(run, module)
    return monitor, [classified(passes) for passes in module.passes.values()]


def in_transformers(folder: Path) -> tuple[gn.NoiseMonitor, list[list[Part]]]:
    """The loss of a rank is divided by the tokens of all ranks, and multiplied by their number."""
    run = small_trainers.trainer(
        folder, small_trainers.language_model().double(), gradient_accumulation_steps=PARTS
    )
    monitor = gn.attach(run, every=1, sink=f"{folder}.jsonl")
    run.train()
    found = []
    for passes in run.passes.values():
        tokens = [own.inputs["labels"][:, 1:].ne(-100).sum() for own in passes]
        total = torch.stack(tokens).sum()
        dist.all_reduce(total)
        parts = []
        for own, count in zip(passes, tokens, strict=True):
            model = restored(small_trainers.language_model(), own.state)
            loss = small_trainers.token_losses(model, own.inputs).sum() / own.items * WORLD
            share = float(count / total) * WORLD
            parts.append((rows_of(model, [loss])[0], len(own.inputs["labels"]), share))
        found.append(parts)
    return monitor, found


def run_rank(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": WORLD, "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in places.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", ACCELERATE_USE_CPU="1", NODE_RANK="0")
    found = {}
    for name in FRAMEWORKS:
        monitor, steps = globals()[f"in_{name}"](Path(folder) / name)
        value = (monitor.trace_cov.value, monitor.grad_sq_norm.value)
        found[name] = (value, monitor.source, monitor.notes, steps)
        lines = Path(folder, f"{name}.jsonl").read_text().splitlines()
        assert rank or len(lines) == monitor.measured  # the first rank alone writes
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.barrier()  # none leaves while another one still reads
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank found."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(run_rank, (port, str(folder)), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


def together(steps: tuple[list[Part], ...]) -> Numbers:
    """Of one step of all ranks, whose gradients are averaged."""
    rows, sizes, shares = zip(*(part for own in steps for part in own), strict=True)
    scaled = [row / WORLD for row in rows]
    apart = [torch.stack([row / size] * size) for row, size in zip(scaled, sizes, strict=True)]
    return by_parts(torch.cat(apart), sizes, [share / WORLD for share in shares])


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_two_ranks(found: list[dict[str, Any]], name: str) -> None:
    (value, source, notes, own), (other, _, _, theirs) = (rank[name] for rank in found)
    assert (source, notes) == ("ranks", [])
    assert value == other
    expected = averaged([together(steps) for steps in zip(own, theirs, strict=True)])
    assert value == pytest.approx(expected, rel=1e-6)
