"""Measuring on several ranks: work and bytes of each, and what large models would cost.

    python benchmarks/ranks.py --markdown
    python benchmarks/ranks.py --tables exchanges --markdown

Everything is counted in processes that torchrun starts, with gloo. Floating point operations are
those of matrix products as torch dispatches them; work is what gradnoise tells (`Work`), in passes
of one sample, of which each is a forward and a backward pass, 6·P·T operations for T tokens. Sums
of b bytes over W ranks move 2(W - 1)/W·b bytes out of each, as in a ring. In every exchange each
rank gives a frame to the others, of 4096 bytes on up to 64 ranks; what is longer follows.

`scaling` keeps the samples of a rank: efficiency is the operations of one rank alone over those of
each of several, in the mean and of the one with most. `cost` counts work and exchanges of 4096
samples of a small GPT whose Krylov basis has room for nine vectors and whose graphs are not kept,
as those of a large model, and multiplies. Samples that are not there to be divided count: between
two sums of vectors of length P a rank that has any has one. Times leave out latencies, and
attention.
"""

from __future__ import annotations

import argparse
import collections
import copy
import datetime
import functools
import gc
import json
import statistics
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from calls import Trained, trained
from measure import Run, fresh, growth, rounded, seconds, show, versions
from tasks import gpt, make, mlp
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import gradnoise as gn
from gradnoise.linalg.iteration import rows_within
from gradnoise.linalg.operator import MEMORY_BUDGET
from gradnoise.problem import objective
from gradnoise.problem.work import BACKWARD, FORWARD, SECOND, Work
from gradnoise.ranks.frames import size_of
from gradnoise.ranks.ranks import Ranks
from gradnoise.tensors.trees import map_samples

TOTAL = 4096  # samples of each model
EACH = 512  # of a rank, where they grow with the ranks
MODELS: dict[str, Callable[[], Any]] = {
    "mlp": functools.partial(mlp, 784, 256),
    "gpt": functools.partial(gpt, 100, 8, 32, 1),
    "wide": functools.partial(mlp, 784, 1000),
    "wider": functools.partial(mlp, 784, 1600),  # what the peak grows by is vectors of length P
}
NAMES = {"mlp": "MLP 784-256-256-10", "gpt": "GPT 1×32, 8 tokens, 100 words"}
CALLS: dict[str, tuple[Callable[..., Any], str]] = {
    "moments": (gn.gradient_moments, "dataset"),
    "moments, intervals": (gn.gradient_moments, "distribution"),
    "sharpness": (gn.sharpness, "distribution"),
    "profile": (gn.profile, "distribution"),
}
ITERATED = ("sharpness", "profile")  # which have a Krylov basis
VECTORS = 9  # of the basis of a large model
SIZES, RANKS = (1e8, 1e9, 1e10, 1e11), (8, 64, 256, 1024)
FLOAT, DOUBLE = 4, 8  # bytes
PASS = FORWARD + BACKWARD
GIGA = 1e9
SHOWN = 12  # places that exchange
FLOPS_OFF, BYTES_OFF = 0.15, 0.01  # what predictions may be off by


class Flops(TorchDispatchMode):
    """Operations of matrix products, as torch counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found, known = func(*args, **(kwargs or {})), flop_registry.get(func._overloadpacket)
        if known is not None:
            self.total += known(*args, **(kwargs or {}), out_val=found)
        return found


class Exchanges:
    """What this process exchanges, and its work in between."""

    def __init__(self, parameters: int) -> None:
        self._parameters = parameters
        self.frames = self.longer = 0
        self.sent = 0.0  # bytes
        self.tensors: dict[str, int] = collections.Counter()  # by entries and bytes of each
        self.places: dict[str, int] = collections.Counter()
        self.works: list[Work] = []
        self.steps: list[Work] = []  # between sums of vectors
        self.gathered = 0  # entries of parameters that are sharded

    @property
    def work(self) -> Work:
        return Work.together([Work(), *self.works])

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Exchanges in here are counted."""
        reduce, gather, whole = dist.all_reduce, Ranks._all_gather, DTensor.full_tensor
        new, size = objective.Work, dist.get_world_size()
        done = Work()

        def all_reduce(tensor: Tensor, *args: Any, **options: Any) -> Any:
            nonlocal done
            self.sent += 2 * (size - 1) / size * tensor.nbytes
            self.longer += 1
            self.tensors[f"{tensor.numel()} {tensor.element_size()}"] += 1
            if self._is_of_vectors(tensor):
                self.steps.append(self.work.since(done))
                done = self.work
            return reduce(tensor, *args, **options)

        def all_gather(ranks: Ranks, own: bytes, *args: Any) -> Any:
            is_frame = len(own) == size_of(size)
            self.frames += is_frame
            self.longer += not is_frame
            self.places[place()] += is_frame
            self.sent += (size - 1) * len(own)
            return gather(ranks, own, *args)

        def full_tensor(tensor: DTensor, **options: Any) -> Tensor:
            self.gathered += tensor.numel()
            return whole(tensor, **options)

        def made() -> Work:
            self.works.append(Work())
            return self.works[-1]

        dist.all_reduce, Ranks._all_gather = all_reduce, all_gather  # type: ignore[method-assign]
        DTensor.full_tensor, objective.Work = full_tensor, made
        try:
            yield
        finally:
            dist.all_reduce, Ranks._all_gather = reduce, gather  # type: ignore[method-assign]
            DTensor.full_tensor, objective.Work = whole, new

    def _is_of_vectors(self, tensor: Tensor) -> bool:
        return tensor.is_floating_point() and not tensor.numel() % self._parameters


def place() -> str:
    """The function that asks for an exchange, and the one that calls it."""
    own = [f for f in traceback.extract_stack() if "/gradnoise/" in f.filename]
    own = [f for f in own if "/ranks/" not in f.filename and f.name not in ("sum", "rows")]
    names = [f"{f.filename.split('/gradnoise/')[-1]}:{f.name}" for f in own]
    return " < ".join(name for name in names[:-3:-1] if "<" not in name)


def in_passes(work: Work) -> float:
    """Of one sample."""
    return work.passes(1)


def of_rank(model: str, each: int, budgeted: bool) -> tuple[Trained, dict[str, Any]]:
    """A model, the samples of this rank, and the options of what iterates.

    Args:
        model: of MODELS.
        each: samples of a rank.
        budgeted: whether the basis has the room that it has for a large model.
    """
    whole, rank = trained(make(MODELS[model]), TOTAL, 256), dist.get_rank()
    own = map_samples(lambda leaf: leaf[each * rank : each * (rank + 1)].clone(), whole.batch)
    size = sum(p.numel() for p in whole.model.parameters())
    problem = Trained(whole.model, whole.losses, own, whole.micro_batch, whole.optimizer)
    return problem, {"memory_budget": VECTORS * FLOAT * size} if budgeted else {}


def runner(problem: Trained, name: str, options: dict[str, Any], shard: bool = False) -> Run:
    """A call on a model that no call has seen."""
    call, population = CALLS[name]
    model = copy.deepcopy(problem.model)
    if shard:
        fully_shard(model)
    more = options if name in ITERATED else {"gather": "model"}
    return lambda: call(
        model, problem.losses, problem.batch,
        population=population, process_group=dist.group.WORLD, **more,
    )  # fmt: skip


def counts(run: Run, parameters: int) -> dict[str, Any]:
    """What one call computes and exchanges, on this rank."""
    found, flops = Exchanges(parameters), Flops()
    with found.counted(), flops:
        run()
    return {
        "flops": flops.total,
        "passes": in_passes(found.work),
        "frames": found.frames,
        "messages": found.frames + found.longer,
        "sent": found.sent,
        "tensors": found.tensors,
        "places": found.places,
        "gathered": found.gathered,
        "steps": [(s.forward, s.gradients, s.products) for s in found.steps],
    }


def work(asked: dict[str, Any]) -> Any:
    """What torchrun starts on every rank; the first prints what all of them have found."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=datetime.timedelta(minutes=5))
    try:
        problem, options = of_rank(asked["model"], asked["each"], asked["budgeted"])
        size = sum(p.numel() for p in problem.model.parameters())
        own: dict[str, Any] = {"parameters": size, "tensors": len([*problem.model.parameters()])}
        for name in asked["calls"]:
            start = functools.partial(runner, problem, name, options)
            if asked["peak"]:
                runner(of_rank("gpt", 256, True)[0], name, {})()  # libraries are loaded
                own[name] = {"peak": growth(start())}
                continue
            own[name] = counts(start(shard=asked["shard"]), size)
            own[name]["seconds"] = [seconds_of(start()) for _ in range(asked["rounds"])]
        found: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(found, own)
        if dist.get_rank() == 0:
            print(json.dumps({"ranks": found}), flush=True)
    finally:
        gc.collect()  # torch aborts at exit where something still holds the group
        dist.destroy_process_group()


def seconds_of(run: Run) -> float:
    dist.barrier()
    return seconds(run)


def launched(
    size: int,
    model: str,
    each: int,
    *names: str,
    rounds: int = 0,
    budgeted: bool = False,
    peak: bool = False,
    shard: bool = False,
) -> list[dict[str, Any]]:
    """What each of so many ranks has found.

    Raises:
        RuntimeError: one has failed.
    """
    print(f"{size} ranks: {model}, {', '.join(names)}", file=sys.stderr)
    asked = {"model": model, "each": each, "calls": names, "rounds": rounds}
    asked |= {"budgeted": budgeted, "peak": peak, "shard": shard}
    program = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    found = fresh([*program, __file__, "--worker", json.dumps(asked)])
    if "ranks" not in found:
        raise RuntimeError(f"{size} ranks of {model}: {found['note']}")
    return found["ranks"]


def over(ranks: list[dict[str, Any]], name: str, key: str) -> list[float]:
    """A number of every rank."""
    return [own[name][key] for own in ranks]


def scaling(asked: argparse.Namespace) -> None:
    names = ("moments, intervals", "profile")
    for model, title in NAMES.items():
        found = {
            size: launched(size, model, EACH, *names, rounds=asked.rounds) for size in asked.ranks
        }
        for name in names:
            rows = [["ranks", "samples", "passes", "GFLOP of each", "efficiency", "of the one with "
                     "most", "messages", "MB sent by each", "seconds"]]  # fmt: skip
            unit = statistics.mean(over(found[asked.ranks[0]], name, "flops"))
            for size, ranks in found.items():
                flops = over(ranks, name, "flops")
                passes = sum(over(ranks, name, "passes")) / (size * EACH)
                taken = map(max, zip(*(own[name]["seconds"] for own in ranks), strict=True))
                rows.append([
                    str(size), str(size * EACH), f"{passes:.2f}",
                    rounded(statistics.mean(flops) / GIGA),
                    f"{unit / statistics.mean(flops):.3f}", f"{unit / max(flops):.3f}",
                    str(ranks[0][name]["messages"]),
                    rounded(statistics.mean(over(ranks, name, "sent")) / 1e6),
                    rounded(statistics.median(taken)),
                ])  # fmt: skip
            count = found[asked.ranks[0]][0]["parameters"]
            show(f"gn.{described(name)}: {title}, {count:,} parameters", rows, asked.markdown)
    print(
        f"\nseconds are medians of {asked.rounds}, of the slowest rank; the machine has two cores. "
        f"The operations of a profile grow less than the samples: λ and others are from a part of "
        f"them, whose size is fixed"
    )


def described(name: str) -> str:
    call, population = CALLS[name]
    return f'{call.__name__}, population="{population}"'


class Counted:
    """What a call takes on any number of ranks, of n samples, from runs on one, two and four."""

    def __init__(self, name: str, runs: dict[int, list[dict[str, Any]]], gathered: float) -> None:
        self.name, self._runs, self._gathered = name, runs, gathered
        alone, two = (sum(over(runs[size], name, "passes")) for size in (1, 2))
        self.fixed = max(0.0, two - alone)  # of every rank
        self.fixed_of_four = (sum(over(runs[4], name, "passes")) - alone) / 3
        self.shared = alone - self.fixed
        self._steps = [
            tuple(map(sum, zip(*of_all, strict=True)))
            for of_all in zip(*over(runs[2], name, "steps"), strict=True)
        ]
        self.vectors = vectors(runs[2][0], name)

    def passes(self, size: int) -> float:
        """Of one sample, by a rank that has as many as any in every step."""
        weights, short = (FORWARD, BACKWARD, SECOND), 0.0
        for step in self._steps:
            least = sum(w for w, count in zip(weights, step, strict=True) if count)
            total = sum(w * count for w, count in zip(weights, step, strict=True))
            short += max(0.0, least - total / size) / PASS
        return self.fixed + self.shared / size + short

    def sent(self, parameters: float, size: int, *, sharded: bool = True) -> float:
        """Bytes out of each rank, for vectors alone."""
        own = sum(bytes_ * count for bytes_, count in self.vectors.items())
        whole = FLOAT * self._gathered if sharded else 0.0
        return (size - 1) / size * parameters * (2 * own + whole)

    def seconds(self, parameters: float, size: int, asked: argparse.Namespace) -> tuple[float, ...]:
        """Of computing, and of exchanging."""
        flops = 2 * PASS * parameters * asked.tokens * self.passes(size)
        sent = self.sent(parameters, size)
        return flops / (asked.rate * 1e12), sent / (asked.bandwidth * GIGA)


def vectors(own: dict[str, Any], name: str) -> dict[int, int]:
    """How many vectors of length P are summed, by the bytes of their entries."""
    found: dict[int, int] = {FLOAT: 0, DOUBLE: 0}
    for text, count in own[name]["tensors"].items():
        entries, size = map(int, text.split())
        if not entries % own["parameters"]:
            found[size] += count * entries // own["parameters"]
    return found


def cost(asked: argparse.Namespace) -> None:
    names = tuple(CALLS)
    runs = {k: launched(k, "gpt", TOTAL // k, *names, budgeted=True) for k in (1, 2, 4)}
    sharded = launched(2, "gpt", TOTAL // 2, "moments", shard=True)[0]
    gathered = sharded["moments"]["gathered"] / sharded["parameters"]
    found = [Counted(name, runs, gathered) for name in names]
    copies = {name: peak(name) for name in asked.peaks}
    rows = [["", "passes over all samples", "passes of one sample that each rank repeats",
             "the same, from 1 and 4 ranks", "float32 vectors summed", "float64 vectors",
             "messages"]]  # fmt: skip
    for own in found:
        rows.append([
            own.name, f"{(own.shared + own.fixed) / TOTAL:.2f}", f"{own.fixed:.1f}",
            f"{own.fixed_of_four:.1f}",
            str(own.vectors[FLOAT]), str(own.vectors[DOUBLE]),
            str(runs[2][0][own.name]["messages"]),
        ])  # fmt: skip
    title = (
        f"counted on 2 ranks: {NAMES['gpt']}, {TOTAL} samples; sharded: {gathered:.2f} P gathered"
    )
    show(title, rows, asked.markdown)
    checks(runs, found, asked)
    memory(copies, asked)
    times(found, copies, asked)


def peak(name: str) -> float:
    """By how much the peak of a rank grows with the parameters, in copies of them in float32."""
    found = []
    for model in ("wide", "wider"):
        ranks = launched(2, model, 256, name, budgeted=True, peak=True)
        found.append((FLOAT * ranks[0]["parameters"], max(over(ranks, name, "peak"))))
    (small, low), (large, high) = found
    return (high - low) / (large - small)


def checks(
    runs: dict[int, list[dict[str, Any]]], found: list[Counted], asked: argparse.Namespace
) -> None:
    rows = [["", "ranks", "GFLOP of all, predicted", "counted", "off by", "MB of each, predicted",
             "counted", "off by"]]  # fmt: skip
    tokens, other = MODELS["gpt"].args[1], launched(2, "mlp", EACH, "moments", "moments, intervals")
    worst = [0.0, 0.0]

    def add(label: str, size: int, pairs: list[tuple[float, float] | None]) -> None:
        row = [label, str(size)]
        for k, pair in enumerate(pairs):
            if pair is None:
                row += ["", "", ""]
                continue
            predicted, counted = pair
            off = predicted / counted - 1
            worst[k] = max(worst[k], abs(off))
            row += [rounded(predicted), rounded(counted), f"{100 * off:+.2f} %"]
        rows.append(row)

    for own in found:
        for size in (2, 4):
            ranks = runs[size]
            all_of_them = own.shared + size * own.fixed
            flops = 2 * PASS * ranks[0]["parameters"] * tokens * all_of_them
            counted = sum(over(ranks, own.name, "flops"))
            pairs = [(flops / GIGA, counted / GIGA)]
            sent = statistics.mean(over(ranks, own.name, "sent"))
            add(own.name, size, [*pairs, (of_model(own, runs[2], ranks, TOTAL) / 1e6, sent / 1e6)])
        if own.name in other[0]:
            sent = statistics.mean(over(other, own.name, "sent"))
            predicted = of_model(own, runs[2], other, 2 * EACH)
            add(f"{own.name}: MLP", 2, [None, (predicted / 1e6, sent / 1e6)])
    show("what these counts predict, and what is counted", rows, asked.markdown)
    print(
        f"\noperations are off by {100 * worst[0]:.1f} % at most (allowed: "
        f"{100 * FLOPS_OFF:.0f} %, those of attention and of norms of single samples), bytes by "
        f"{100 * worst[1]:.2f} % (allowed: {100 * BYTES_OFF:.0f} %): "
        f"{'they agree' if agree(worst) else 'THEY DO NOT AGREE'}"
    )


def agree(worst: list[float]) -> bool:
    return worst[0] <= FLOPS_OFF and worst[1] <= BYTES_OFF


def of_model(
    own: Counted, known: list[dict[str, Any]], other: list[dict[str, Any]], samples: int
) -> float:
    """Bytes that each rank sends for another model or on more ranks.

    Sums are of vectors of length P, of numbers of every sample for every parameter or for none, of
    a number for every parameter, or of what has nothing to do with the model.
    """
    here, there = known[0], other[0]
    units = [
        (here["parameters"], there["parameters"]),
        (here["tensors"] * TOTAL, there["tensors"] * samples),
        (TOTAL, samples),
        (here["tensors"], there["tensors"]),
    ]
    total, size = 0, len(other)
    for text, count in here[own.name]["tensors"].items():
        entries, bytes_ = map(int, text.split())
        unit = next((pair for pair in units if not entries % pair[0]), (1, 1))
        total += entries // unit[0] * unit[1] * bytes_ * count
    return 2 * (size - 1) / size * total + (size - 1) * size_of(size) * here[own.name]["frames"]


def basis(parameters: float, name: str) -> int:
    """Vectors that a Krylov basis has room for."""
    if name not in ITERATED:
        return 0
    matrix: Any = SimpleNamespace(
        shape=(int(parameters),) * 2,
        dtype=torch.float32,
        space=SimpleNamespace(largest_local_size=int(parameters)),
    )
    return rows_within(matrix, 1, MEMORY_BUDGET)


def memory(copies: dict[str, float], asked: argparse.Namespace) -> None:
    rows = [["parameters, call", "weights, GB", "float64 sums, GB", "vectors of the basis",
             "basis, GB", "together, GB", "peak, GB", f"fits {asked.gpu:g} GB"]]  # fmt: skip
    for size in SIZES:
        for name in CALLS:
            parts = replica(size, name)
            rows.append([
                f"{size:.0e}, {name}", *(rounded(part / GIGA) for part in parts[:2]),
                str(basis(size, name)), rounded(parts[2] / GIGA), rounded(sum(parts) / GIGA),
                peak_cell(size, name, copies), fits(size, name, copies, asked),
            ])  # fmt: skip
    show("memory of a rank, whatever their number, activations left out", rows, asked.markdown)
    grown = ", ".join(f"{name} {own:.1f}" for name, own in copies.items())
    print(
        f"\nthe peak is one copy of the weights and what a call adds, in copies of them, as it "
        f"grows on 2 ranks from an MLP of 1.8 to one of 3.8 M parameters: {grown}. Calls without a "
        f"peak here need more than the sum: products, directions, checks"
    )


def replica(parameters: float, name: str) -> list[float]:
    """Bytes of the weights, of the sums, and of the basis."""
    vectors_of_all = basis(parameters, name)
    sums = 0 if name == "sharpness" else DOUBLE * parameters
    return [FLOAT * parameters, sums, FLOAT * parameters * vectors_of_all]


def peak_bytes(parameters: float, name: str, copies: dict[str, float]) -> float:
    return FLOAT * parameters * (1 + copies[name])


def peak_cell(size: float, name: str, copies: dict[str, float]) -> str:
    return rounded(peak_bytes(size, name, copies) / GIGA) if name in copies else "–"


def fits(size: float, name: str, copies: dict[str, float], asked: argparse.Namespace) -> str:
    room = asked.gpu * GIGA
    if sum(replica(size, name)) > room:
        return "no"
    if name not in copies:
        return "by the sum"
    return "yes" if peak_bytes(size, name, copies) <= room else "not with its peak"


def times(found: list[Counted], copies: dict[str, float], asked: argparse.Namespace) -> None:
    head = [f"{size} ranks" for size in RANKS]
    rows = [["parameters, call", "GB sent by each", *head, f"fits {asked.gpu:g} GB"]]
    for size in SIZES:
        for own in found:
            cells = []
            for ranks in RANKS:
                computing, exchanging = own.seconds(size, ranks, asked)
                whole = computing + exchanging
                cells.append(f"{rounded(whole)} ({100 * exchanging / whole:.0f} %)")
            sent = rounded(own.sent(size, RANKS[-1]) / GIGA)
            fit = fits(size, own.name, copies, asked)
            rows.append([f"{size:.0e}, {own.name}", sent, *cells, fit])
    title = (
        f"seconds (part that is exchanging) of {TOTAL} samples of {asked.tokens} tokens, "
        f"{asked.rate:g} TFLOP/s and {asked.bandwidth:g} GB/s per rank"
    )
    show(title, rows, asked.markdown)
    limit = {own.name: asked.gpu * 1e18 / sum(replica(GIGA, own.name)) for own in found}
    largest = ", ".join(f"{name} {size:.1e}" for name, size in limit.items())
    least = sum(replica(1e10, "profile")) / 64 / GIGA
    print(
        f"\nEvery rank holds a whole replica. Weights, sums and basis alone fill {asked.gpu:g} GB "
        f"at (parameters): {largest}. Of 1e10 in float32 the weights are 40 GB and the sums 80 GB, "
        f"which does not fit, and no number of ranks helps. One layer at a time weights, sums and "
        f"basis stay divided: {least:.1f} GB of each of 64 ranks for that profile (benchmarks/"
        f"layers.py)."
    )


def exchanges(asked: argparse.Namespace) -> None:
    for model, title in NAMES.items():
        own = launched(2, model, EACH, "profile")[0]["profile"]
        largest = sorted(own["places"].items(), key=lambda pair: -pair[1])[:SHOWN]
        rows = [["asked for by", "exchanges"], *([name, str(count)] for name, count in largest)]
        rows.append(["all, and messages", f"{own['frames']}, {own['messages']}"])
        show(f"exchanges of gn.profile on 2 ranks: {title}", rows, asked.markdown)


TABLES = {"scaling": scaling, "cost": cost, "exchanges": exchanges}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=["scaling", "cost"])
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 2, 4], help="of `scaling`")
    parser.add_argument("--rounds", type=int, default=3, help="that are timed")
    parser.add_argument("--peaks", nargs="*", choices=CALLS, default=list(CALLS)[:2], help="seen")
    parser.add_argument("--tokens", type=int, default=2048, help="of a sample")
    parser.add_argument("--rate", type=float, default=100.0, help="TFLOP/s of a rank")
    parser.add_argument("--bandwidth", type=float, default=50.0, help="GB/s out of a rank")
    parser.add_argument("--gpu", type=float, default=80.0, help="GB of memory of a rank")
    parser.add_argument("--markdown", action="store_true", help="tables for GitHub")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(json.loads(asked.worker))
        return
    for name in asked.tables:
        TABLES[name](asked)
    print(versions())


if __name__ == "__main__":
    main()
