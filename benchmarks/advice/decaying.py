"""The same question with a learning rate that falls to zero, as most people train."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks import measure

from .fit import fitted, lowest, reached
from .problems import Problem
from .search import SHARES, Search, budget_of
from .store import KEPT, LEAST, RESULTS, Store, origin
from .train import restored, train
from .truth import SHARES_OF_GAIN, short, starting_loss, summary

PARTS = (0.125, 0.25, 0.5, 1.0)  # of the samples; a run of its own for each, with its own decay
LOWEST = -40  # doublings of the reference rate
Losses = dict[float, float]  # by rate


class Decaying:
    """Runs from the checkpoints of a problem, with rates a factor of 2 apart; kept in a file.

    Args:
        seeds: of the reference run and of the order of the samples.
    """

    def __init__(self, problem: Problem, seeds: Sequence[int] = (0, 1)) -> None:
        self.problem, self.seeds, self.store = problem, seeds, Store(problem)
        self.path = RESULTS / "decaying" / f"{problem.name}.json"
        self.losses: dict[str, list[float | None]] = {}
        if self.path.exists():
            self.losses = json.loads(self.path.read_text())["losses"]
        self.untrained = self.store.facts["untrained"]

    def everything(self) -> None:
        """From every checkpoint the best rate of every batch size and length."""
        search = Search(self.problem, self.store, self.seeds)
        for share in SHARES:
            rates = summary(self.problem, self.store, share)["rates"]
            for size in self.problem.batch_sizes:
                lr = rates[size]["best"] or self.problem.reference[1]
                for samples in self.lengths(share, size):
                    lr = self._ladder(search, share, size, samples, lr)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in self.losses.items())
            head = json.dumps(origin(), indent=1)[:-2]
            self.path.write_text(f'{head},\n "losses": {{\n{lines}\n}}}}\n')

    def lengths(self, share: float, batch_size: int) -> list[int]:
        """Samples of a run: also more than the budget, where large batches need them."""
        budget = budget_of(self.problem, share)
        most = min(self.problem.stretch, max(1, batch_size // 16))
        every = sorted({*PARTS, *(p * most for p in PARTS)})
        samples = [round(part * budget) for part in every if most / 8 <= part <= most]
        return [n for n in samples if n % batch_size == 0]

    def _ladder(
        self, search: Search, share: float, batch_size: int, samples: int, guess: float
    ) -> float:
        """The best rate, with its neighbours."""
        anchor = self.problem.reference[1]
        best = round(math.log2(guess / anchor))
        while True:
            near = {
                step: self._look(search, share, batch_size, samples, anchor * 2.0**step)
                for step in (best, best - 1, best + 1)
            }
            around = min(near, key=lambda step: near[step])
            if around == best and math.isfinite(near[best]):
                return anchor * 2.0**best
            best = around if around != best else best - 2
            assert best > LOWEST, "no rate trains"

    def _look(
        self, search: Search, share: float, batch_size: int, samples: int, lr: float
    ) -> float:
        key = _name(share, batch_size, samples, lr)
        known = self.losses.setdefault(key, [])
        for seed in self.seeds[len(known) :]:
            known.append(_run(search, share, batch_size, samples, lr, seed))
        return self.mean(known)

    def mean(self, losses: Sequence[float | None]) -> float:
        """Geometric; infinite where one of them is not below 0.9 of the untrained loss."""
        if any(loss is None or not loss < KEPT * self.untrained for loss in losses):
            return math.inf
        return statistics.geometric_mean(max(loss or 0.0, LEAST) for loss in losses)

    def of(self, share: float, batch_size: int, samples: int) -> Losses:
        """Mean losses by rate, in increasing order."""
        start = _name(share, batch_size, samples, "")
        found = {
            float(key.split()[-1]): self.mean(losses)
            for key, losses in self.losses.items()
            if key.startswith(start)
        }
        return dict(sorted(found.items()))

    def best_pairs(self, share: float, count: int) -> list[tuple[int, float]]:
        """The pairs with the lowest losses after the budget."""
        budget, pairs = budget_of(self.problem, share), {}
        for size in self.problem.batch_sizes:
            for lr, loss in self.of(share, size, budget).items():
                pairs[size, lr] = loss
        return sorted((p for p in pairs if math.isfinite(pairs[p])), key=lambda p: pairs[p])[:count]

    def critical(self, share: float) -> tuple[float, list[float]]:
        """B_crit of E(B) = E_min(1 + B/B_crit), of all targets and of each."""
        start = starting_loss(self.store, share)
        curves = {}
        for size in self.problem.batch_sizes:
            lengths = self.lengths(share, size)
            best = []
            for samples in lengths:
                own = self.of(share, size, samples)
                best.append(lowest(list(own), list(own.values())))
            curves[size] = (lengths, np.array(best))
        budget = budget_of(self.problem, share)
        ends = [
            np.log(best[lengths.index(budget)])
            for size, (lengths, best) in curves.items()
            if size <= 64
        ]
        gained = math.log(start) - float(np.mean(ends))
        targets = [start * math.exp(-part * gained) for part in SHARES_OF_GAIN]
        needed = np.array(
            [[reached(*curves[size], target) for size in curves] for target in targets]
        )
        sizes, limits = list(curves), [curves[size][0][-1] for size in curves]
        alone = [fitted(sizes, row[None], limits)[0] for row in needed]
        return fitted(sizes, needed, limits)[0], alone


def _run(
    search: Search, share: float, batch_size: int, samples: int, lr: float, seed: int
) -> float | None:
    """The loss at the end, None where it diverged."""
    state = restored(search.problem, search.checkpoint(share, seed), lr)
    end = state.seen + samples
    found = train(
        search.problem, state, search.data, batch_size, [end], search.untrained, decays=True
    )
    return float(f"{found.losses[-1]:.5g}") if found.losses else None


def _name(share: float, batch_size: int, samples: int, lr: float | str) -> str:
    rate = lr if isinstance(lr, str) else f"{lr:.5g}"
    return f"from {share:g} B {batch_size} samples {samples} lr {rate}"


def show(problems: Sequence[Problem], markdown: bool) -> None:
    """Best pairs and critical batch sizes, beside those at a constant rate."""
    table = [["problem", "from", "B_crit", "of each target", "constant", "best pair", "constant"]]
    for problem in problems:
        table.extend(_rows(problem))
    measure.show("training with a rate that falls to zero", table, markdown)


def _rows(problem: Problem) -> Iterator[list[str]]:
    found = Decaying(problem)
    for share in SHARES:
        value, alone = found.critical(share)
        constant = summary(problem, found.store, share)
        size, lr = found.best_pairs(share, 1)[0]
        least = min(
            (rate["loss"], size, rate["best"])
            for size, rate in constant["rates"].items()
            if rate["loss"]
        )
        yield [
            problem.name, f"{share:g}", short(value), ", ".join(map(short, alone)),
            short(constant["critical"]["value"]), f"{size}, {lr:.3g}",
            f"{least[1]}, {least[2]:.3g}",
        ]  # fmt: skip
