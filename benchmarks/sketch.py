"""Would a random sketch of each layer's gradients be a source of its own?

    python benchmarks/sketch.py --markdown

s_i = R g_i S with signs over √r, the same for all samples of a step (R is r×p, S is q×r), has
E‖s_i‖² = ‖g_i‖². Per model and r: the mean over sketches of Σ‖s_i‖²/Σ‖g_i‖² and of
‖Σs_i‖²/‖Σg_i‖², and their standard deviations. Beside it the alternative at a like price, exact
norms of a few samples: the standard deviation of their mean over that of all. Times are of what is
done beyond the ordinary backward pass, on the factors that a linear layer has, in parts of its
weight gradient.
"""

from __future__ import annotations

import argparse
import statistics

import measure
import torch
from tasks import make
from torch import Tensor

import gradnoise as gn
from gradnoise.per_sample.hooks.factored import NOTHING
from gradnoise.per_sample.hooks.outer_products import SummedOuterProducts

RANKS = (4, 8, 16, 32)
SOME = (2, 4, 8, 16)
SKETCHES = 64
NORMS = NOTHING._replace(total=False)
MODELS = ("mlp", "gpt", "resnet")


def signs(*shape: int) -> Tensor:
    return torch.randint(0, 2, shape).float().mul_(2).sub_(1)


def sketched(gradients: dict[str, Tensor], rank: int) -> tuple[float, float]:
    """Σ‖s_i‖² and ‖Σs_i‖²; vectors, which are small, as they are."""
    own = total = 0.0
    for g in gradients.values():
        if g.ndim > 2:
            rows = g.reshape(len(g), g.shape[1], -1)
            left, right = signs(rank, rows.shape[1]), signs(rows.shape[2], rank)
            g = (left @ rows @ right) / rank
        own += float(g.square().sum())
        total += float(g.sum(0).square().sum())
    return own, total


def spreads(name: str, samples: int) -> list[list[str]]:
    task = make(name)
    batch = tuple(t[:samples] for t in task.batch)
    gradients = gn.per_sample_gradients(task.model, task.losses, batch)
    norms = sum(g.flatten(1).square().sum(1) for g in gradients.values())
    exact = float(norms.sum()), float(sum(g.sum(0).square().sum() for g in gradients.values()))
    rows = []
    for rank in RANKS:
        found = [sketched(gradients, rank) for _ in range(SKETCHES)]
        columns = [[own[k] / exact[k] for own in found] for k in (0, 1)]
        told = [
            f"{statistics.mean(c):.3f} ± {statistics.stdev(c) / SKETCHES**0.5:.3f} | "
            f"{statistics.stdev(c):.3f}"
            for c in columns
        ]
        rows.append([f"{name}, sketch r = {rank}", *" | ".join(told).split(" | ")])
    for some in SOME:
        share = (1 - some / samples) ** 0.5  # drawn without replacement
        spread = float(norms.std() / norms.mean()) / some**0.5 * share
        rows.append([f"{name}, {some} of {samples} samples", "1", f"{spread:.3f}", "1", "0"])
    return rows


def seconds_beyond(rounds: int) -> list[list[str]]:
    """Beyond the weight gradient of a linear layer, 32 samples."""
    rows = []
    for positions, p, q in ((1, 512, 784), (64, 128, 128), (64, 512, 128), (256, 768, 768)):
        left, right = torch.randn(32, 1, positions, p), torch.randn(32, 1, positions, q)
        shape = torch.Size([p, q])

        def weight(left: Tensor = left, right: Tensor = right, p: int = p, q: int = q) -> Tensor:
            return left.reshape(-1, p).T @ right.reshape(-1, q)

        def norms(some: int, left: Tensor = left, right: Tensor = right, s: torch.Size = shape):
            return SummedOuterProducts(left[:: 32 // some], right[:: 32 // some], s).measure(NORMS)

        def sketch(rank: int, left: Tensor = left, right: Tensor = right) -> Tensor:
            own = (left[:, 0] @ signs(left.shape[3], rank)).transpose(1, 2)
            return (own @ (right[:, 0] @ signs(right.shape[3], rank))).square().sum((1, 2))

        runs = {"weight": weight}
        runs |= {f"sketch {r}": (lambda r=r: sketch(r)) for r in (4, 8, 32)}
        runs |= {f"{k} samples": (lambda k=k: norms(k)) for k in (4, 8, 32)}
        taken = measure.interleaved(runs, rounds)
        plain = statistics.median(taken.pop("weight"))
        rows.append(
            [f"{positions} × ({p} + {q})"]
            + [f"{statistics.median(own) / plain:.2f}" for own in taken.values()]
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    head = ["", "Σ‖s_i‖², mean", "s.d.", "‖Σs_i‖², mean", "s.d."]
    rows = [row for name in options.models for row in spreads(name, options.samples)]
    measure.show("relative to the exact numbers", [head, *rows], options.markdown)
    head = ["positions × (outputs + inputs)", *(f"sketch {r}" for r in (4, 8, 32))]
    head += [f"{k} samples" for k in (4, 8, 32)]
    measure.show(
        "time in weight gradients", [head, *seconds_beyond(options.rounds)], options.markdown
    )


if __name__ == "__main__":
    main()
