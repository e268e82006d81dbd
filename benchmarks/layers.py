"""Peak memory of measurements under `fully_shard`, one layer gathered at a time.

    python benchmarks/layers.py --markdown

24 linear layers of 1024², 25 M parameters in float32, 32 samples in micro-batches of 8. Memory is
the peak of the resident set during the call over what the process held before the model was built;
of several ranks that of the one with most. The peak is set back before each call, which Linux can.
λ is of all 32 samples, from 20 products at most, with a basis of nine vectors.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from measure import show, versions
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F

import gradnoise as gn

WIDTH, LAYERS, SAMPLES, CLASSES = 1024, 24, 32, 10
WAYS = {"one process": (1, ""), "4 ranks, layers": (4, "layers"), "4 ranks, model": (4, "model")}
VECTORS = 9  # of the basis of λ
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
MEBI = 1024  # KiB


def model_of(width: int, layers: int) -> nn.Sequential:
    blocks = [nn.Sequential(nn.Linear(width, width, bias=False), nn.Tanh()) for _ in range(layers)]
    return nn.Sequential(*blocks, nn.Linear(width, CLASSES))


def built(width: int, layers: int, shard: bool) -> nn.Module:
    """On this rank only the parts that it holds are ever made."""
    with torch.device("meta"):
        model = model_of(width, layers)
    for part in [*model, model] if shard else []:
        fully_shard(part)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            own: Any = parameter.to_local() if shard else parameter  # type: ignore[operator]
            own.normal_(0, width**-0.5)
    return model


def losses(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def resident(key: str) -> float:
    """Of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(key))) / MEBI


def one_rank(gather: str) -> None:
    """Measure, and print what the rank with most took."""
    torch.set_num_threads(1)
    options: dict[str, Any] = {"population": "distribution", "micro_batch": 8}
    rank, size = 0, 1
    if gather:
        dist.init_process_group("gloo")
        rank, size = dist.get_rank(), dist.get_world_size()
        options |= {"process_group": dist.group.WORLD, "gather": gather}

    def data(width: int) -> tuple[Tensor, Tensor]:
        source, each = torch.Generator().manual_seed(0), SAMPLES // size
        inputs = torch.randn(SAMPLES, width, generator=source)
        labels = torch.randint(CLASSES, (SAMPLES,), generator=source)
        own = slice(rank * each, (rank + 1) * each)
        return inputs[own], labels[own]

    for call in (gn.gradient_moments, gn.sharpness):  # code is loaded
        call(built(8, 2, bool(gather)), losses, data(8), **options)
    gc.collect()
    before = resident("VmRSS")
    model, batch = built(WIDTH, LAYERS, bool(gather)), data(WIDTH)
    numbers = [resident("VmRSS") - before]
    size_of_one = sum(p.numel() for p in model.parameters()) * 4
    room = VECTORS * -(-size_of_one // (size if gather == "layers" else 1))
    calls: tuple[Callable[[], Any], ...] = (
        lambda: gn.gradient_moments(model, losses, batch, intervals=False, **options),
        lambda: gn.gradient_moments(model, losses, batch, **options),
        lambda: gn.sharpness(
            model, losses, batch, intervals=False, max_iterations=20, memory_budget=room, **options
        ),
    )
    for call in calls:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
        start = time.perf_counter()
        call()
        numbers += [resident("VmHWM") - before, time.perf_counter() - start]
    if gather:
        found: list[Any] = [None] * size
        dist.all_gather_object(found, numbers)
        numbers = [max(own) for own in zip(*found, strict=True)]
        gc.collect()
        dist.destroy_process_group()
    if not rank:
        print(json.dumps(numbers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markdown", action="store_true", help="a table for GitHub")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker is not None:
        one_rank(asked.worker)
        return
    rows, first = [], list[float]()
    for name, (ranks, gather) in WAYS.items():
        command = [sys.executable]
        if gather:
            command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        command += [__file__, "--worker", gather]
        environment = {**os.environ, **ALLOCATOR, "OMP_NUM_THREADS": "1"}
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        numbers = json.loads(run.stdout.strip().splitlines()[-1])
        first = first or numbers
        model, *rest = numbers
        peaks, times = rest[::2], rest[1::2]
        cells = [f"{own:.0f} ({own / of:.2f})" for own, of in zip(peaks, first[1::2], strict=True)]
        rows.append([name, f"{model:.0f}", *cells, ", ".join(f"{own:.1f}" for own in times)])
    print(versions())
    head = ["", "model, MiB", "moments, MiB", "with intervals, MiB", "λ, MiB", "seconds"]
    show("peak memory", [head, *rows], asked.markdown)


if __name__ == "__main__":
    main()
