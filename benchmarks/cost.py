"""What every measuring call costs, in plain forward and backward passes over the same samples.

    python benchmarks/cost.py --models mlp cnn gpt --rounds 3 --markdown

Every model has taken 20 steps of SGD. Processor seconds of this process; plain passes are timed
before and after every call, in the same micro-batches; medians. "Whole" means that the samples are
the population, "part" that they are a part of it, whose sampling errors are measured as well. The
last columns are B_noise as `gn.profile` found it. Memory is the growth of the peak in a process of
its own, in that of one plain pass.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from measure import common_options, fresh, growth, rounded, show, versions
from tasks import MODELS, make
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.problem.losses.loss_fn import LossFn
from gradnoise.tensors.trees import Batch, map_samples, sample_count, split

MICRO_BATCH = {"mlp": 256, "cnn": 256, "resnet": 128, "gpt": 64, "gpt2": 64}
STEPS, RATE, BATCH = 20, 0.05, 32
CALLS: dict[str, Callable[..., Any]] = {
    "gn.profile": gn.profile,
    "gn.noise_scale": gn.noise_scale,
    "gn.sharpness": gn.sharpness,
    "gn.gradient_moments": gn.gradient_moments,
}
POPULATIONS = {"whole": "dataset", "part": "distribution"}
SEPARATOR = "; "


@dataclass(frozen=True)
class Trained:
    """A model after some steps, its losses, and the samples that are measured."""

    model: nn.Module
    losses: LossFn
    batch: Batch
    micro_batch: int

    def plain(self) -> float:
        """Processor seconds of a forward and backward pass over all samples."""
        parameters = list(self.model.parameters())
        start = time.process_time()
        for part in split(self.batch, self.micro_batch):
            torch.autograd.grad(self.losses(self.model, part).mean(), parameters)
        return time.process_time() - start

    def call(self, name: str, population: str) -> Any:
        return CALLS[name](
            self.model, self.losses, self.batch,
            population=POPULATIONS[population], micro_batch=self.micro_batch,
        )  # fmt: skip


def trained(name: str, samples: int) -> Trained:
    """The same at every call."""
    task, source = make(name), torch.Generator().manual_seed(1)

    def more(leaf: Tensor) -> Tensor:
        shape = samples, *leaf.shape[1:]
        if leaf.is_floating_point():
            return torch.randn(shape, generator=source)
        return torch.randint(int(leaf.max()) + 1, shape, generator=source)

    batch = map_samples(more, task.batch)
    optimizer = torch.optim.SGD(task.model.parameters(), RATE)
    for _ in range(STEPS):
        chosen = torch.randint(samples, (BATCH,), generator=source)
        here = map_samples(lambda leaf, index=chosen: leaf[index], batch)
        optimizer.zero_grad()
        task.losses(task.model, here).mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    assert sample_count(batch) == samples
    return Trained(task.model, task.losses, batch, MICRO_BATCH[name])


def in_passes(problem: Trained, name: str, population: str, rounds: int) -> tuple[float, Any]:
    """Median cost of a call, and its last result."""
    ratios, found = [], None
    for _ in range(rounds):
        plain = [problem.plain() for _ in range(2)]
        start = time.process_time()
        found = problem.call(name, population)
        taken = time.process_time() - start
        plain += [problem.plain() for _ in range(2)]
        ratios.append(taken / statistics.median(plain))
    return statistics.median(ratios), found


def work(model: str, asked: str) -> dict[str, Any]:
    """Growth of the peak memory of one call, in this process."""
    samples, name, population = asked.split(SEPARATOR)
    problem = trained(model, int(samples))
    if name != "plain":
        return {"bytes": growth(lambda: problem.call(name, population))}
    return {"bytes": growth(problem.plain)}


def memory(model: str, samples: int, name: str, population: str) -> int:
    asked = SEPARATOR.join((str(samples), name, population))
    return int(fresh([__file__, "--worker", model, asked])["bytes"])


def main() -> None:
    parser = common_options(__doc__, MODELS)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="peaks as well")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.worker:
        print(json.dumps(work(*asked.worker)))
        return
    rows = [["", *asked.models]]
    cells: dict[str, list[str]] = {}
    for model in asked.models:
        problem = trained(model, asked.samples)
        cells.setdefault("plain, ms", []).append(rounded(1e3 * problem.plain()))
        unit = memory(model, asked.samples, "plain", "whole") if asked.memory else 0
        for name in CALLS:
            for population in POPULATIONS:
                ratio, found = in_passes(problem, name, population, asked.rounds)
                label = f"{name}, {population}"
                cells.setdefault(label, []).append(rounded(ratio))
                if name == "gn.profile":
                    cells.setdefault(f"B_noise, {population}", []).append(str(found.noise_scale))
                    if asked.memory:
                        peak = memory(model, asked.samples, name, population) / unit
                        cells.setdefault(f"memory, {population}", []).append(rounded(peak))
    rows += [[label, *own] for label, own in cells.items()]
    title = f"in plain passes over {asked.samples} samples, medians of {asked.rounds}, one thread"
    show(title, rows, asked.markdown)
    print(versions())


if __name__ == "__main__":
    main()
