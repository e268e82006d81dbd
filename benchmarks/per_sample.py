"""Per-sample squared norms and the mean gradient of one batch: our engines beside other libraries.

    python benchmarks/per_sample.py --markdown
    python benchmarks/per_sample.py --models cnn --methods ours-auto opacus-hooks --rounds 5

Time: rounds in which every method runs once, in an order drawn anew; the median over the rounds of
its time over that of a plain forward and backward pass of the mean loss. What is done once per
model is not timed: choosing an engine, which has a row of its own, and wrapping the model.

Memory: peak resident set of a fresh process over what it holds just before the first call, again as
a ratio to the plain pass. Read from /proc: `ru_maxrss` starts at the peak of the parent process.

Before it is timed, each method's numbers are held to those of a loop over single samples.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import importlib
import json
import math
import random
import re
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from torch.utils import benchmark
from torch.utils._pytree import tree_map

import gradnoise as gn
from gradnoise.losses import LossFn, supervised
from gradnoise.objective import Objective
from gradnoise.pergrad import ENGINES, Wanted, choose
from gradnoise.trees import Batch, sample_count, select

TOLERANCE = 1e-3  # relative error beyond which a method is wrong
SLOW, FEW_ROUNDS = 2.0, 3  # methods of more seconds per call run in so many rounds
MIB = 2**20

Found = tuple[Tensor, Sequence[Tensor]]  # ‖g_i‖² of shape (n,), mean gradient by parameter
Run = Callable[[], Any]


@dataclass(frozen=True)
class Task:
    """What is measured.

    Args:
        model: fresh; a method may wrap it.
        losses: per-sample losses of (model, batch), shape (n,).
        batch: nested tensors, samples first.
        aid: further inputs for libraries that take the leading dimension of every layer's input
            for the samples.
    """

    model: nn.Module
    losses: LossFn
    batch: Batch
    aid: dict[str, Tensor] = field(default_factory=dict)


# models ------------------------------------------------------------------------------------------


def mlp() -> Task:
    """784-512-512-10."""
    model = nn.Sequential(
        nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )
    return _classification(model, torch.randn(256, 784))


def cnn() -> Task:
    """Three convolutions with pooling, 32×32 images."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4 * 4, 10))
    return _classification(model, torch.randn(128, 3, 32, 32))


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.GroupNorm(8, outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.GroupNorm(8, outputs),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def resnet() -> Task:
    """A stem and three residual blocks with GroupNorm, 0.22 M parameters, 32×32 images."""
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1, bias=False),
        nn.GroupNorm(8, 32),
        nn.ReLU(),
        Residual(32, 32, 1),
        Residual(32, 64, 2),
        Residual(64, 96, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(96, 10),
    )
    return _classification(model, torch.randn(64, 3, 32, 32))


def _classification(model: nn.Module, inputs: Tensor) -> Task:
    targets = torch.randint(10, (len(inputs),))
    return Task(model, supervised(nn.CrossEntropyLoss()), (inputs, targets))


class Block(nn.Module):
    """Pre-norm attention and GELU MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        split = self.qkv(self.norm_1(x)).unflatten(-1, (3, self.heads, -1))  # [n, T, 3, h, d]
        q, k, v = (part.transpose(1, 2) for part in split.unbind(2))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm_2(x))


class GPT(nn.Module):
    """A decoder with learned positions, looked up for every sample, and a tied head."""

    def __init__(self, vocabulary: int, tokens: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(vocabulary, width), nn.Embedding(tokens, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embedding.weight
        for module in (self.embedding, self.position):
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        x = self.embedding(ids) + self.position(positions)
        return self.head(self.norm(self.blocks(x)))


def gpt() -> Task:
    """4 layers, width 128, 4 heads, 64 tokens, 1000 words."""

    def losses(model: nn.Module, batch: Batch) -> Tensor:
        ids, targets = batch
        logits = model(ids).transpose(1, 2)
        return F.cross_entropy(logits, targets, reduction="none").mean(1)

    ids = torch.randint(1000, (32, 65))
    return Task(GPT(1000, 64, 128, 4, 4), losses, (ids[:, :-1].clone(), ids[:, 1:].clone()))


def gpt2() -> Task:
    """GPT-2 of `transformers`: 4 layers, width 128, 4 heads, 64 tokens, 1000 words."""
    transformers = library("transformers", "test")
    config = transformers.GPT2Config(
        n_layer=4,
        n_embd=128,
        n_head=4,
        vocab_size=1000,
        n_positions=64,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    ids = torch.randint(1000, (16, 64))
    positions = torch.arange(64).expand(16, 64)
    return Task(
        transformers.GPT2LMHeadModel(config),
        gn.causal_lm(),
        {"input_ids": ids},
        {"position_ids": positions},
    )


MODELS: dict[str, Callable[[], Task]] = {m.__name__: m for m in (mlp, cnn, resnet, gpt, gpt2)}


def make(model: str) -> Task:
    """The same parameters and data each time."""
    torch.manual_seed(0)
    return MODELS[model]()


def library(name: str, extra: str) -> Any:
    """An optional library.

    Raises:
        ImportError: with how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{error}; it comes with pip install 'gradnoise[{extra}]'") from error


# methods: prepared once, then called -------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """A way to per-sample norms and the mean gradient, ready to run.

    Args:
        run: what is timed; gives `Found` where `checked`.
        note: what people should know about it.
        checked: whether there are norms to hold to the loop.
    """

    run: Run
    note: str = ""
    checked: bool = True


def plain(task: Task, _: ExitStack) -> Method:
    """The unit: forward and backward pass of the mean loss."""
    parameters = list(task.model.parameters())

    def run() -> Any:
        return torch.autograd.grad(task.losses(task.model, task.batch).mean(), parameters)

    return Method(run, checked=False)


def ours(engine: str, task: Task, stack: ExitStack) -> Method:
    """An engine of gradnoise that has been chosen already."""
    objective = Objective(task.model, task.losses)
    stack.enter_context(objective.guard())
    chosen = choose(objective, task.batch, engine).engine

    def run() -> Found:
        found = list(chosen.summaries(task.batch, Wanted()))
        norms = torch.cat([torch.stack([*s.sq_norms.values()]).sum(0) for s in found])
        sums = zip(*(s.total.values() for s in found), strict=True)
        return norms, [sum(parts[1:], parts[0]) / len(norms) for parts in sums]

    return Method(run, f"chose {chosen.name!r}" if engine == "auto" else "")


def choice(task: Task, stack: ExitStack) -> Method:
    """What "auto" costs once per model."""
    objective = Objective(task.model, task.losses)
    stack.enter_context(objective.guard())
    return Method(lambda: choose(objective, task.batch, "auto"), checked=False)


def backpack(extension: str, saved: str, task: Task, _: ExitStack) -> Method:
    """BackPACK on the layers that own parameters; it divides by n what the mean loss divides."""
    package = library("backpack", "backpack")
    for module in task.model.modules():
        if not list(module.children()) and list(module.parameters()):
            package.extend(module)
    parameters, count = list(task.model.parameters()), sample_count(task.batch)

    def run() -> Found:
        with package.backpack(getattr(package.extensions, extension)()):
            task.losses(task.model, task.batch).mean().backward()
        _refuse_missing(task.model, saved)
        found = [vars(p).pop(saved) for p in parameters]
        norms = sum(
            own if own.ndim == 1 and saved == "batch_l2" else sq_norms(own) for own in found
        )
        return count**2 * norms, _taken(parameters)

    return Method(run)


def _refuse_missing(model: nn.Module, saved: str) -> None:
    """BackPACK passes over layers that it does not know."""
    kinds = {
        type(module).__name__
        for module in model.modules()
        if any(saved not in vars(p) for p in module.parameters(recurse=False))
    }
    if kinds:
        raise NotImplementedError(f"BackPACK leaves no {saved} on {', '.join(sorted(kinds))}")


def opacus_hooks(task: Task, _: ExitStack) -> Method:
    """Opacus' gradients of every sample."""
    task, note = _aided(task)
    model = library("opacus.grad_sample", "bench").GradSampleModule(task.model)
    parameters = list(model.parameters())

    def run() -> Found:
        task.losses(model, task.batch).mean().backward()
        norms = torch.stack([sq_norms(p.grad_sample) for p in parameters]).sum(0)
        mean = _taken(parameters)
        model.zero_grad(set_to_none=True)
        return norms, mean

    return Method(run, note)


def opacus_ghost(task: Task, _: ExitStack) -> Method:
    """Opacus' ghost clipping up to the norms, without the second backward pass that clips."""
    task, note = _aided(task)
    module = library("opacus.grad_sample", "bench").GradSampleModuleFastGradientClipping
    model = module(task.model)
    parameters = list(model.parameters())

    def run() -> Found:
        task.losses(model, task.batch).mean().backward()
        return model.get_norm_sample().square(), _taken(parameters)

    return Method(run, note)


def vmap_grad(task: Task, _: ExitStack) -> Method:
    """torch.func as its tutorial has it: all samples at once."""
    alone = _Losses(task)
    values = {name: p.detach() for name, p in alone.named_parameters()}

    def loss(values: dict[str, Tensor], sample: Batch) -> Tensor:
        single = tree_map(lambda leaf: leaf.unsqueeze(0), sample)
        return functional_call(alone, values, (single,)).sum()

    per_sample = vmap(grad(loss), in_dims=(None, 0))

    def run() -> Found:
        gradients = per_sample(values, task.batch).values()
        norms = torch.stack([sq_norms(g) for g in gradients]).sum(0)
        return norms, [g.mean(0) for g in gradients]

    return Method(run)


def loop(task: Task, _: ExitStack) -> Method:
    """A forward and backward pass per sample."""
    parameters, count = list(task.model.parameters()), sample_count(task.batch)

    def run() -> Found:
        norms, mean = [], [torch.zeros_like(p) for p in parameters]
        for index in range(count):
            losses = task.losses(task.model, select(task.batch, slice(index, index + 1)))
            gradients = torch.autograd.grad(losses.sum(), parameters)
            norms.append(sum(g.square().sum() for g in gradients))
            torch._foreach_add_(mean, gradients, alpha=1 / count)
        return torch.stack(norms), mean

    return Method(run)


class _Losses(nn.Module):
    """Per-sample losses as a module, whose parameters `functional_call` can swap."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model, self.losses = task.model, task.losses

    def forward(self, batch: Batch) -> Tensor:
        return self.losses(self.model, batch)


def sq_norms(gradients: Tensor) -> Tensor:
    """‖g_i‖², shape (n,)."""
    return torch.linalg.vector_norm(gradients.flatten(1), dim=1).square()


def _taken(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """The gradients, which do not stay on the parameters."""
    found = []
    for parameter in parameters:
        found.append(parameter.grad)
        parameter.grad = None
    return found


def _aided(task: Task) -> tuple[Task, str]:
    if not task.aid:
        return task, ""
    given = ", ".join(task.aid)
    return replace(task, batch=task.batch | task.aid), f"given {given} for each sample"


Prepare = Callable[[Task, ExitStack], Method]
METHODS: dict[str, Prepare] = {
    "ours-auto": functools.partial(ours, "auto"),
    "ours-choice": choice,
    **{f"ours-{name}": functools.partial(ours, name) for name in ENGINES},
    "backpack-l2": functools.partial(backpack, "BatchL2Grad", "batch_l2"),
    "backpack-grad": functools.partial(backpack, "BatchGrad", "grad_batch"),
    "opacus-hooks": opacus_hooks,
    "opacus-ghost": opacus_ghost,
    "vmap": vmap_grad,
    "loop": loop,
}


# time --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What became of a method on a model.

    Args:
        value: seconds or bytes.
        ratio: in plain passes.
        spread: interquartile range of the ratio over its median.
        note: what people should know.
        state: instead of a value, "–" or "wrong".
    """

    value: float = math.nan
    ratio: float = math.nan
    spread: float = 0.0
    note: str = ""
    state: str = ""


def times(model: str, methods: Sequence[str], rounds: int) -> dict[str, Result]:
    """Medians over interleaved rounds, of "plain" too."""
    results, ready = {}, {}
    with ExitStack() as stack:
        truth = loop(make(model), stack).run()
        ready["plain"] = plain(make(model), stack).run
        ready["plain"]()
        for name in methods:
            results[name], run = _checked(METHODS[name], make(model), stack, truth)
            if run is not None:
                ready[name] = run
        taken = _interleaved(ready, rounds)
    results["plain"] = Result()
    for name, own in taken.items():
        ratios = [t / unit for t, unit in zip(own, taken["plain"], strict=False)]
        spread = benchmark.Measurement(1, ratios, benchmark.TaskSpec("", "")).iqr
        ratio = statistics.median(ratios)
        value = statistics.median(own)
        results[name] = replace(results[name], value=value, ratio=ratio, spread=spread / ratio)
    return results


def _checked(
    prepare: Prepare, task: Task, stack: ExitStack, truth: Found
) -> tuple[Result, Run | None]:
    """Run it a first time and hold it to the loop."""
    try:
        method = prepare(task, stack)
        found = method.run()
    except Exception as error:  # other people's code on models it may not know
        return Result(state="–", note=_reason(error)), None
    off = _deviation(found, truth) if method.checked else 0.0
    if not off <= TOLERANCE:
        return Result(state="wrong", note=f"off by {off:.2g} of the loop's numbers"), None
    return Result(note=method.note), method.run


def _deviation(found: Found, truth: Found) -> float:
    """Relative error of the n squared norms, or of the mean gradient, each as one vector.

    Not the largest over the samples: where two entries of a pooling window are equal but for
    rounding, another may win in a batch than alone.
    """
    means = [torch.cat([g.flatten() for g in mean]) for mean in (found[1], truth[1])]
    pairs = ((found[0].double(), truth[0].double()), means)
    return max(float((own - right).norm() / right.norm()) for own, right in pairs)


def _reason(error: Exception) -> str:
    first = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {first if len(first) <= 220 else first[:217] + '...'}"


def _interleaved(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Seconds by name, one entry per round; slow methods drop out early."""
    left = {name: FEW_ROUNDS if seconds(run) > SLOW else rounds for name, run in runs.items()}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    order, shuffle = list(runs), random.Random(0).shuffle
    for index in range(rounds):
        shuffle(order)
        for name in order:
            if index < left[name]:
                taken[name].append(seconds(runs[name]))
    return taken


def seconds(run: Run) -> float:
    start = benchmark.timer()
    run()
    return benchmark.timer() - start


# memory ------------------------------------------------------------------------------------------


def memory(model: str, method: str, threads: int) -> Result:
    """Bytes of the peak above what was there before the first call, in a fresh process."""
    hidden = ["--worker", model, method, "--threads", str(threads)]
    answer = fresh([__file__, *hidden])
    return Result(value=answer["bytes"]) if "bytes" in answer else Result(**answer)


def fresh(command: Sequence[str]) -> dict[str, Any]:
    """What a script prints last, as JSON, in a process of its own."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return {"state": "–", "note": last}
    return json.loads(done.stdout.splitlines()[-1])


def work(model: str, method: str) -> dict[str, Any]:
    """Measure one method in this process."""
    task = make(model)
    with ExitStack() as stack:
        plain(replace(task, batch=select(task.batch, slice(0, 2))), stack).run()
        run = {"plain": plain, **METHODS}[method](task, stack).run
        return {"bytes": growth(run)}


def growth(run: Run) -> int:
    """Bytes by which the peak of this process exceeds what it held before a call."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # what earlier passes freed is not at hand for this one
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def resident(entry: str) -> int:
    """VmRSS or VmHWM, its peak, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{entry}:\s*(\d+)", status)[1])


# tables ------------------------------------------------------------------------------------------


class Notes:
    """Footnotes, each text once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        if not text:
            return ""
        if text not in self.texts:
            self.texts.append(text)
        return f" [{self.texts.index(text) + 1}]"


def rounded(value: float) -> str:
    """Three digits or all before the point."""
    return (
        f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"
        if 0 < value < 1e3
        else f"{value:,.0f}"
    )


def table(
    results: dict[str, dict[str, Result]], unit: str, scale: float, notes: Notes
) -> list[list[str]]:
    """Rows of methods, columns of models."""
    rows = [
        ["", *results],
        [f"plain, {unit}", *(rounded(r["plain"].value * scale) for r in results.values())],
    ]
    names = [name for name in next(iter(results.values())) if name != "plain"]
    for name in names:
        own = [found[name] for found in results.values()]
        rows.append([name, *((r.state or rounded(r.ratio)) + notes.mark(r.note) for r in own)])
    return rows


def show(title: str, rows: list[list[str]], markdown: bool) -> None:
    """Print a table whose first row is its head."""
    if markdown:
        rules = ["---"] + ["---:"] * (len(rows[0]) - 1)
        lines = ["| " + " | ".join(row) + " |" for row in (rows[0], rules, *rows[1:])]
        print(f"\n{title}\n", *lines, sep="\n")
        return
    grid = Table(title=title)
    for index, head in enumerate(rows[0]):
        grid.add_column(head, justify="right" if index else "left")
    for row in rows[1:]:
        grid.add_row(*row)
    Console(width=110, markup=False, highlight=False).print(grid)


def versions() -> str:
    """What was measured."""
    names = ("torch", "opacus", "backpack-for-pytorch", "transformers")
    return ", ".join(f"{name} {_version(name)}" for name in names)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


# the call ----------------------------------------------------------------------------------------


def all_times(models: list[str], methods: list[str], rounds: int) -> dict[str, dict[str, Result]]:
    found = {}
    for model in models:
        print(f"time: {model}", file=sys.stderr)
        found[model] = times(model, methods, rounds)
    return found


def all_memory(
    models: list[str], methods: list[str], threads: int, known: dict[str, dict[str, Result]]
) -> dict[str, dict[str, Result]]:
    """Of methods that are not known to fail."""
    found: dict[str, dict[str, Result]] = {}
    for model in models:
        print(f"memory: {model}", file=sys.stderr)
        unit = memory(model, "plain", threads)
        found[model] = {"plain": unit}
        for name in methods:
            before = known.get(model, {}).get(name, Result())
            result = before if before.state else memory(model, name, threads)
            found[model][name] = replace(result, ratio=result.value / unit.value)
    return found


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--tables", nargs="+", choices=("time", "memory"), default=["time", "memory"]
    )
    parser.add_argument("--rounds", type=int, default=15, help="of the time table")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--markdown", action="store_true", help="tables for GitHub")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    asked = parsed()
    warnings.filterwarnings("ignore")  # of the libraries, about hooks and fallbacks
    torch.set_num_threads(asked.threads)
    if asked.worker:
        print(json.dumps(work(*asked.worker)))
        return
    notes, found = Notes(), {}
    if "time" in asked.tables:
        found = all_times(asked.models, asked.methods, asked.rounds)
        spread = max(r.spread for results in found.values() for r in results.values())
        title = (
            f"time in plain passes, medians of {asked.rounds} interleaved rounds "
            f"(interquartile ranges up to {spread:.0%}), {asked.threads} threads"
        )
        show(title, table(found, "ms", 1e3, notes), asked.markdown)
    if "memory" in asked.tables:
        found = all_memory(asked.models, asked.methods, asked.threads, found)
        title = "growth of peak memory, fresh processes, in that of plain passes"
        show(title, table(found, "MiB", 1 / MIB, notes), asked.markdown)
    print(
        *(f"[{number}] {text}" for number, text in enumerate(notes.texts, 1)), versions(), sep="\n"
    )


if __name__ == "__main__":
    main()
