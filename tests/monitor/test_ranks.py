"""Several ranks: the monitor of each has the numbers of all their samples."""

from __future__ import annotations

import gc
import tempfile
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import gradnoise as gn
from gradnoise.monitor.gradients import StepGradient
from gradnoise.monitor.ranks import ELSEWHERE, averaged, summed, world_size
from tests.monitored import classified, contributions, of_parts, of_samples, parted

WORLD, EACH = 2, 12


def model_and_batch() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    return model, (torch.randn(WORLD * EACH, 6).double(), torch.randint(3, (WORLD * EACH,)))


CHECK = StepGradient.check


def broken(_: Any) -> str:
    raise RuntimeError("out of memory")


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=WORLD)
    torch.save(measured(rank), Path(folder) / f"{rank}.pt")
    gc.collect()  # what still holds the group would end its threads too late
    dist.barrier()  # none leaves while another one still reads
    dist.destroy_process_group()


def measured(rank: int) -> dict[str, Any]:
    group = dist.group.WORLD
    model, batch = model_and_batch()
    hooked = model[0].weight.register_hook(lambda g: 2 * g)  # what is measured is without it
    parallel = DistributedDataParallel(model)
    own = tuple(t[rank * EACH : (rank + 1) * EACH] for t in batch)
    found = {}
    cases = {
        "ranks": ("auto", (12,)),
        "accumulated": ("ranks", (6, 6)),
        "samples": ("samples", (12,)),
        "samples, accumulated": ("samples", (7, 5)),
    }
    for name, (source, sizes) in cases.items():
        parallel.zero_grad()
        monitor = gn.NoiseMonitor(parallel, every=1, source=source, group=group, max_samples=None)
        with monitor.step(EACH):
            *first, last = parted(own, sizes)
            with parallel.no_sync():
                for part in first:
                    (classified(parallel, part).mean() / len(sizes)).backward()
            (classified(parallel, last).mean() / len(sizes)).backward()
        assert monitor.notes == []
        found[name] = (*monitor.values().values(), monitor.source)
    monitor = gn.NoiseMonitor(parallel, every=1, group=group)
    warnings.simplefilter("ignore")  # in this process
    for shares in (None, [-1.0] if rank else None):
        parallel.zero_grad()
        with monitor.step(shares=shares):
            classified(parallel, own).mean().backward()
    found["one refuses"] = (monitor.measured, monitor.notes)
    for source in ("ranks", "samples"):
        monitor = gn.NoiseMonitor(parallel, every=1, source=source, group=group)
        for fails in (False, bool(rank), False):
            parallel.zero_grad()
            check = mock.patch.object(StepGradient, "check", broken if fails else CHECK)
            with check, monitor.step():
                classified(parallel, own).mean().backward()
        found[f"one fails, {source}"] = (monitor.measured, monitor.notes)
    hooked.remove()
    numbers = (
        summed(torch.tensor([1.0, rank]), group),
        averaged(torch.tensor([rank]).float(), group),
    )
    found["numbers"] = (numbers[0].tolist(), numbers[1].tolist(), world_size(group))
    return found


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    """What each rank found."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(run_rank, (folder,), nprocs=WORLD)
        return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(WORLD)]


def expected(sizes: tuple[int, ...], by_samples: bool) -> tuple[float, float]:
    """Of all samples, in the micro-batches of both ranks, whose gradients are averaged."""
    model, batch = model_and_batch()
    rows = contributions(model, classified, parted(batch, sizes * WORLD))
    return of_samples(rows, sizes * WORLD) if by_samples else of_parts(rows, sizes * WORLD)


@pytest.mark.parametrize(
    ("name", "sizes", "source"),
    [
        ("ranks", (12,), "ranks"),
        ("accumulated", (6, 6), "ranks"),
        ("samples", (12,), "samples"),
        ("samples, accumulated", (7, 5), "samples"),
    ],
)
def test_all_ranks_find_what_the_samples_of_all_say(
    found: list[dict[str, Any]], name: str, sizes: tuple[int, ...], source: str
) -> None:
    trace, signal = expected(sizes, source == "samples")
    keys = [key.removeprefix("gradnoise/") for key in gn.NoiseMonitor(nn.Linear(1, 1)).values()]
    for rank in found:
        *values, used = rank[name]
        numbers = dict(zip(keys, values, strict=True))
        assert used == source
        assert numbers["trace_cov"] == pytest.approx(trace, rel=1e-9)
        assert numbers["grad_sq_norm"] == pytest.approx(signal, rel=1e-9)
        assert numbers["batch_size"] == WORLD * EACH


def test_no_rank_goes_on_where_one_cannot(found: list[dict[str, Any]]) -> None:
    told = [rank["one refuses"] for rank in found]
    assert told == [(1, [ELSEWHERE]), (1, ["a share below zero"])]


@pytest.mark.parametrize("source", ["ranks", "samples"])
def test_ranks_do_not_wait_for_one_that_fails(found: list[dict[str, Any]], source: str) -> None:
    told = [rank[f"one fails, {source}"] for rank in found]
    assert told == [(2, [ELSEWHERE]), (2, ["RuntimeError: out of memory"])]


def test_sums_and_means_over_ranks(found: list[dict[str, Any]]) -> None:
    for rank in found:
        assert rank["numbers"] == ([2.0, 1.0], [0.5], 2)


def test_without_a_group_there_is_one_rank() -> None:
    numbers = torch.tensor([1.0, 2.0])
    assert summed(numbers, None) is numbers
    assert averaged(numbers, None) is numbers
    assert world_size(None) == 1
