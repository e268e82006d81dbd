"""How the cost of a measurement grows with samples, width, depth and the length of sequences.

    python benchmarks/growth.py --axes samples width --calls gn.profile --markdown

Processor seconds in those of a plain forward and backward pass over the same samples, as in
cost.py, for an MLP 784-512-512-10 of which one number changes and for a decoder of two layers. All
samples are measured (`max_samples=None`). The exponent is that of the seconds.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable

import torch
from calls import CALLS, Trained, trained
from cost import in_passes, processor_seconds
from measure import rounded, show, versions
from scaling import exponent
from tasks import gpt, make, mlp

Made = Callable[[int], Trained]


def on_samples(count: int) -> Trained:
    return trained(make(mlp), count, 256)


def of_width(width: int) -> Trained:
    return trained(make(functools.partial(mlp, width=width)), 1024, 256)


def of_depth(layers: int) -> Trained:
    return trained(make(functools.partial(mlp, width=256, hidden=layers)), 1024, 256)


def of_tokens(tokens: int) -> Trained:
    return trained(make(functools.partial(gpt, tokens=tokens, layers=2)), 64, 32)


AXES: dict[str, tuple[str, Made, tuple[int, ...]]] = {
    "samples": ("samples of the MLP", on_samples, (256, 1024, 4096, 16384)),
    "width": ("width of the MLP, 1024 samples", of_width, (128, 256, 512, 1024, 2048)),
    "depth": ("layers of 256 in the MLP, 1024 samples", of_depth, (1, 2, 4, 8, 16)),
    "tokens": ("tokens of the decoder, 64 samples", of_tokens, (16, 32, 64, 128, 256)),
}


def table(axis: str, calls: list[str], rounds: int) -> list[list[str]]:
    """Rows of calls, columns of sizes."""
    title, made, sizes = AXES[axis]
    problems = [made(size) for size in sizes]
    for problem in problems:
        problem.plain()
    plain = [min(processor_seconds(p.plain) for _ in range(3)) for p in problems]
    parameters = [sum(p.numel() for p in problem.model.parameters()) for problem in problems]
    rows = [[title, *map(str, sizes), "exponent"]]
    rows.append(["parameters", *(f"{count:,}" for count in parameters), ""])
    rows.append(["plain, ms", *(rounded(1e3 * s) for s in plain), f"{exponent(sizes, plain):.2f}"])
    for name in calls:
        ratios = []
        for size, problem in zip(sizes, problems, strict=True):
            print(f"{axis} {size}: {name}", file=sys.stderr)
            run = functools.partial(problem.call, name, max_samples=None)
            ratios.append(in_passes(problem, run, rounds)[0])
        seconds = [ratio * unit for ratio, unit in zip(ratios, plain, strict=True)]
        rows.append([name, *map(rounded, ratios), f"{exponent(sizes, seconds):.2f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument(
        "--calls",
        nargs="+",
        choices=CALLS,
        default=["gn.profile", "gn.noise_scale", "gn.sharpness", "gn.gradient_moments"],
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--markdown", action="store_true", help="tables for GitHub")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for axis in asked.axes:
        title = f"in plain passes, medians of {asked.rounds}, one thread"
        show(title, table(axis, asked.calls, asked.rounds), asked.markdown)
    print(versions())


if __name__ == "__main__":
    main()
