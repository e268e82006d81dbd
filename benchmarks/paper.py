"""The claims of Smith, Elsen and De 2020 (arXiv:2006.15081) on small data, and what was predicted.

    python benchmarks/paper.py            # all parts, about 25 minutes on two cores
    python benchmarks/paper.py stability  # or one of: stability, epochs, steps, budgets

Sweeps are kept in out/paper and go on where they were stopped; pictures go to docs/images. Numbers
and verdicts are printed as the tables of docs/paper.md.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.show.axes import finish
from gradnoise.sweeps.grid import make_plan
from gradnoise.training.record import Run
from gradnoise.training.run import train

OUT, IMAGES = Path("out/paper"), Path("docs/images")
CRITERION = nn.CrossEntropyLoss()
Data = tuple[Tensor, Tensor]


def digits(noise: float = 0.0) -> tuple[Data, Data]:
    """1024 training and 500 test images; a share of the training labels drawn at random."""
    bunch = load_digits()
    inputs = torch.as_tensor(bunch.data, dtype=torch.float32) / 16
    return parted(inputs, torch.as_tensor(bunch.target), 1024, 500, noise)


def cancer() -> tuple[Data, Data]:
    """384 training and 185 test patients, features standardised."""
    bunch = load_breast_cancer()
    inputs = torch.as_tensor(bunch.data, dtype=torch.float32)
    inputs = (inputs - inputs.mean(0)) / inputs.std(0)
    return parted(inputs, torch.as_tensor(bunch.target), 384, 185, 0.0)


def parted(inputs: Tensor, labels: Tensor, train_count: int, test_count: int, noise: float) -> Any:
    source = torch.Generator().manual_seed(0)
    order = torch.randperm(len(inputs), generator=source)
    inputs, labels = inputs[order], labels[order]
    ours = labels[:train_count].clone()
    wrong = torch.rand(train_count, generator=source) < noise
    ours[wrong] = torch.randint(int(labels.max()) + 1, (int(wrong.sum()),), generator=source)
    rest = slice(train_count, train_count + test_count)
    return (inputs[:train_count], ours), (inputs[rest], labels[rest])


def mlp(pixels: int = 64, hidden: int = 64, classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2),
        nn.ReLU(), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def accuracy(model: nn.Module, batch: Data) -> Tensor:
    return (model(batch[0]).argmax(-1) == batch[1]).float()


def halving(fraction: float) -> float:
    """Constant for half of the budget, then halved every twentieth of it."""
    return 1.0 if fraction < 0.5 else 0.5 ** (1 + math.floor((fraction - 0.5) * 20))


def powers(low: float, high: float, per_octave: int = 1) -> list[float]:
    count = round((high - low) * per_octave) + 1
    return [2.0 ** (low + k / per_octave) for k in range(count)]


def swept(name: str, model: Any, data: tuple[Data, Data], **options: Any) -> gn.Sweep:
    OUT.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    found = gn.sweep(
        model, CRITERION, data[0], test_data=data[1], metrics={"accuracy": accuracy},
        path=OUT / f"{name}.jsonl", **options,
    )  # fmt: skip
    print(f"\n### {name}: {time.perf_counter() - start:.0f} s\n\n```text\n{found}\n```", flush=True)
    return found


# ---- where runs begin to diverge, and what measurements of the same runs predict


PROBLEMS = {
    "digits MLP": (mlp, digits, 10, 0.0, (-6, 4)),
    "digits MLP, momentum 0.9": (mlp, digits, 10, 0.9, (-10, 4)),
    "digits CNN": (cnn, digits, 10, 0.0, (-7, 3)),
    "breast cancer MLP": (partial(mlp, 30, 32, 2), cancer, 8, 0.0, (-4, 6)),
}
STEPS, SETTLED = 400, (100, 200, 400)


def stability() -> None:
    """Largest stable rates at constant ε and 400 steps; λ, B_curv, B_noise where runs settle."""
    rows, details = [], []
    for name, (model, data, top, momentum, (low, high)) in PROBLEMS.items():
        sets = data()
        sizes = [2**k for k in range(top + 1) if 2**k <= len(sets[0][0])]
        slug = name.replace(" ", "_").replace(",", "")
        found = swept(
            f"stability_{slug}", model, sets, batch_sizes=sizes, lrs=powers(low, high, 2),
            momentum=momentum, steps=STEPS, seeds=3,
        )  # fmt: skip
        knee, runs = found.fit(), measured(model, sets[0], found, momentum)
        settled = {size: typical(own, momentum, size) for size, own in runs.items()}
        rows.append(compared(knee, settled))
        details += [(name, size, *cells) for size, cells in described(settled).items()]
        picture(name, found, settled, float(rows[-1]["by the mean-square limit"]))
    print(
        "\n"
        + table(
            ["problem", *rows[0]], [[n, *r.values()] for n, r in zip(PROBLEMS, rows, strict=True)]
        )
    )
    head = [
        "problem",
        "B",
        "ε",
        "loss",
        "full batch",
        "B_curv",
        "mean square",
        "doubling",
        "B_noise",
    ]
    print("\n" + table([*head, "rule", "one step"], details))


def picture(name: str, found: gn.Sweep, settled: dict[int, dict[str, float]], knee: float) -> None:
    """The runs, the knee through them, and what was measured in them."""
    figure = found.plot(best=None)
    axes = figure.axes[0]
    for key, look, label in (
        ("mean_square", "D", "mean-square limit, measured in these runs"),
        ("rule", "v", "noise-scale rule, measured in these runs"),
    ):
        values = [own[key] for own in settled.values()]
        axes.plot(list(settled), values, look, color="#222222", ms=5, label=label)
    axes.axvline(knee, color="#222222", ls="--", lw=1, label=f"knee predicted: {knee:.1f}")
    finish(axes, f"{name}, {STEPS} steps")
    figure.savefig(IMAGES / f"paper_{name.replace(' ', '_').replace(',', '')}.png", dpi=110)


def measured(model: Any, data: Data, found: gn.Sweep, momentum: float) -> dict[int, list[Any]]:
    """Profiles of three runs at the largest stable rate, after 100, 200 and 400 steps."""
    plan = make_plan(model, CRITERION, data, None, None, "sgd", momentum, 0.0, None)
    settled: dict[int, list[Any]] = {}
    for size, lr in found.largest_stable().items():
        for seed, steps in itertools.product(range(3) if lr else (), SETTLED):
            # constant rates: a run of fewer steps is the beginning of a longer one
            record, trained = train(plan, Run(size, lr, seed, "steps", steps))
            if record.diverged or record.train_loss > 0.9 * record.start_loss:
                continue  # not yet, or not any more, in training
            profile = gn.profile(trained, CRITERION, data, probes=8)
            if profile.sharpness.low > 0:
                own = {"lr": lr, "loss": record.train_loss, "profile": profile}
                settled.setdefault(size, []).append(own)
    return settled


def typical(runs: list[Any], momentum: float, size: int) -> dict[str, float]:
    """Geometric means over the runs of one batch size."""

    def mean(of: Any) -> float:
        values = [float(of(run["profile"].landscape(momentum))) for run in runs]
        known = [value for value in values if 0 < value < math.inf]
        return statistics.geometric_mean(known) if known else math.nan

    return {
        "lr": runs[0]["lr"],
        "loss": statistics.fmean(run["loss"] for run in runs),
        "stable": mean(lambda land: land.stable_lr),
        "spread": mean(lambda land: land.curvature_noise_scale),
        "mean_square": mean(lambda land: land.mean_square_lr(size)),
        "doubling": mean(lambda land: land.doubling_lr(size)),
        "noise_scale": mean(lambda land: land.noise_scale),
        "rule": mean(lambda land: land.max_lr(size)),
        "step": mean(lambda land: land.limits(size).one_step),
    }


def compared(knee: gn.Knee, settled: dict[int, dict[str, float]]) -> dict[str, str]:
    """Saturation and knee: found, and by each of the rules."""
    sizes = np.array(list(settled))
    large = [s for s in settled if s >= 4 * float(knee.batch_size)] or [max(settled)]
    level = statistics.geometric_mean(settled[s]["stable"] for s in large)
    found = {
        name: log_fit(sizes, np.array([settled[s][name] for s in settled]), level)
        for name in ("mean_square", "doubling", "rule", "step")
    }
    return {
        "ε_∞ found": interval(knee.saturation),
        "full-batch limit at large B": f"{level:.2f}",
        "ratio": f"{float(knee.saturation) / level:.2f}",
        "B_c found": interval(knee.batch_size),
        "by the mean-square limit": f"{found['mean_square']:.1f}",
        "ratio of knees": f"{float(knee.batch_size) / found['mean_square']:.2f}",
        "by the rate at which noise doubles the loss": f"{found['doubling']:.1f}",
        "by the noise-scale rule": f"{found['rule']:.0f}",
        "by the one-step limit": f"{found['step']:.0f}",
    }


def log_fit(sizes: Any, values: Any, level: float) -> float:
    """The knee of level/(1 + B_c/B) through values, by least squares of logarithms."""
    knees = np.geomspace(1e-2, 1e5, 4000)
    curves = np.log(level) - np.log1p(knees[:, None] / sizes)
    usable = np.isfinite(values) & (values > 0)
    misfit = np.square(curves[:, usable] - np.log(values[usable])).sum(1)
    return float(knees[misfit.argmin()])


def described(settled: dict[int, dict[str, float]]) -> dict[int, tuple[str, ...]]:
    return {size: tuple(f"{value:.3g}" for value in own.values()) for size, own in settled.items()}


# ---- equal epochs: linear scaling, saturation, momentum, temperature


def epochs() -> None:
    """Best rates with and without momentum at 40 epochs, nine seeds."""
    data, sizes = digits(), [2**k for k in range(11)]
    options: dict[str, Any] = {"batch_sizes": sizes, "epochs": 40, "schedule": halving, "seeds": 9}
    plain = swept("epochs", mlp, data, lrs=powers(-7, 3), **options)
    ball = swept("epochs_momentum", mlp, data, lrs=powers(-11, 2), momentum=0.9, **options)
    for by in ("test_loss", "accuracy"):
        print(f"\nbest learning rates by {by}\n\n" + verdicts(judged(plain, ball, sizes, by)))
    epochs_picture(plain, ball)


def judged(
    plain: gn.Sweep, ball: gn.Sweep, sizes: list[int], by: str
) -> list[tuple[str, str, bool]]:
    """Four claims at the rates that are best by the test loss or by the accuracy."""
    best, moved = plain.best(by), ball.best(by)
    rates = {size: best[size].lr for size in sizes}
    scores = {size: 100 * statistics.fmean(accuracies(plain, size, rates[size])) for size in sizes}
    knee = min(size for size in sizes if rates[size] == max(rates.values()))
    below, past = [s for s in sizes if s < knee], [s for s in sizes if s >= knee]
    slope = float(np.polyfit(np.log(below), np.log([rates[s] for s in below]), 1)[0])
    spread = max(scores[s] for s in below) - min(scores[s] for s in below)
    falls = [scores[s] for s in past]
    cells = [accuracies(plain, s, rates[s]) for s in past]
    temperatures = [rates[s] / s for s in below]
    ratios = {s: moved[s].lr / (1 - 0.9) / rates[s] for s in sizes}
    at_512 = 100 * statistics.fmean(accuracies(ball, 512, moved[512].lr))
    same = all(0.25 <= ratios[s] <= 4 for s in sizes if s <= 32)
    more = all(ratios[s] >= 3 for s in sizes if s >= 512)
    flat = max(rates[s] for s in past) <= 2 * min(rates[s] for s in past)
    return [
        ("linear scaling", f"slope {slope:.2f} for B = 1 to {below[-1]}, accuracy within "
         f"{spread:.1f} points",
         0.6 <= slope <= 1.2 and spread <= 0.6),
        ("saturation", f"best ε {min(rates[s] for s in past):g} to {max(rates.values()):g} from "
         f"B = {knee} on, accuracy {', '.join(f'{value:.1f}' for value in falls)}",
         flat and falling(cells)),
        ("momentum", "ε/(1 - m) over ε of SGD "
         + ", ".join(f"{s}: {ratio:.2g}" for s, ratio in ratios.items())
         + f"; accuracy at 512: {at_512:.1f} and {scores[512]:.1f}", same and more),
        ("temperature", f"T* = {', '.join(f'{t:.3g}' for t in temperatures)}",
         max(temperatures) <= 3 * min(temperatures)),
    ]  # fmt: skip


def falling(cells: list[list[float]]) -> bool:
    """Whether no mean is above the one before by more than two standard errors of the gap."""
    means, errors = zip(*((statistics.fmean(c), standard_error(c)) for c in cells), strict=True)
    steps = zip(itertools.pairwise(means), itertools.pairwise(errors), strict=True)
    return means[-1] < means[0] and all(b - a <= 2 * math.hypot(*e) for (a, b), e in steps)


def standard_error(values: list[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values))


def accuracies(found: gn.Sweep, size: int, lr: float) -> list[float]:
    """Of the seeds of one cell."""
    return [
        record.metrics["accuracy"]
        for record in found.records
        if (record.run.batch_size, record.run.lr) == (size, lr)
    ]


def epochs_picture(plain: gn.Sweep, ball: gn.Sweep) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2))
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for found, momentum, look in ((plain, 0.0, "o-"), (ball, 0.9, "s--")):
        best = found.best("test_loss")
        sizes = list(best)
        effective = [best[s].lr / (1 - momentum) for s in sizes]
        name = f"momentum {momentum:g}" if momentum else "SGD"
        left.plot(sizes, effective, look, label=f"{name}: best ε/(1 - m)")
        cells = [accuracies(found, s, best[s].lr) for s in sizes]
        values = [100 * statistics.fmean(cell) for cell in cells]
        errors = [100 * standard_error(cell) for cell in cells]
        right.errorbar(sizes, values, errors, fmt=look, capsize=3, label=name)
    left.plot(sizes, [best_line(plain) * s for s in sizes], ":", color="grey", label="linear in B")
    left.set(xscale="log", yscale="log", xlabel="batch size B", ylabel="effective learning rate")
    left.set_ylim(top=40)
    right.set(xscale="log", xlabel="batch size B", ylabel="test accuracy in %, ± s.e.")
    for axes in (left, right):
        axes.legend(fontsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.suptitle("digits, 40 epochs for every batch size, nine seeds", fontsize=10)
    figure.tight_layout()
    figure.savefig(IMAGES / "paper_epochs.png", dpi=110)


def best_line(found: gn.Sweep) -> float:
    """The median temperature of the smaller batches."""
    best = found.best("test_loss")
    return statistics.median(best[s].lr / s for s in list(best)[:5])


# ---- equal steps: generalisation


def steps() -> None:
    """Label noise of 20 %, 2000 steps for every batch size."""
    data, sizes = digits(noise=0.2), [8, 16, 32, 64, 128, 256, 512, 1024]
    found = swept(
        "steps_label_noise", mlp, data, batch_sizes=sizes, lrs=powers(-6, 1), steps=2000,
        schedule=halving, seeds=5,
    )  # fmt: skip
    rows = []
    for by, said in (("accuracy", "test best"), ("train_loss", "train best")):
        best = found.best(by)
        cells = {size: accuracies(found, size, best[size].lr) for size in sizes}
        mean = {size: 100 * statistics.fmean(cells[size]) for size in sizes}
        error = {size: 100 * standard_error(cells[size]) for size in sizes}
        loss = {size: train_loss(found, size, best[size].lr) for size in sizes}
        small = max(sizes, key=lambda size: mean[size])
        gap, unsure = mean[small] - mean[1024], math.hypot(error[small], error[1024])
        seen = (
            f"test {mean[small]:.1f} ± {error[small]:.1f} % at B = {small} (ε = "
            f"{best[small].lr:g}), {mean[1024]:.1f} ± {error[1024]:.1f} % at 1024 (ε = "
            f"{best[1024].lr:g}), train loss {loss[small]:.3g} and {loss[1024]:.3g}"
        )
        holds = gap >= 1 and gap > 3 * unsure and loss[1024] < loss[small]
        rows.append((f"generalisation, rates that {said}", seen, holds))
    print("\n" + verdicts(rows))


def train_loss(found: gn.Sweep, size: int, lr: float) -> float:
    """Mean over the seeds of one cell."""
    return statistics.fmean(
        record.train_loss
        for record in found.records
        if (record.run.batch_size, record.run.lr) == (size, lr)
    )


# ---- growing budgets: longer training


def budgets() -> None:
    """B = 64 for 5 to 320 epochs, with and without label noise."""
    for noise in (0.0, 0.2):
        rows = []
        for length in (5, 20, 80, 320):
            found = swept(
                f"budget_{length}_{noise:g}", mlp, digits(noise), batch_sizes=[64],
                lrs=powers(-6, 2), epochs=length, schedule=halving, seeds=5,
            )  # fmt: skip
            test, own = found.best("accuracy")[64], found.best()[64]
            rows.append((length, f"{test.lr:g}", f"{own.lr:g}", f"{100 * test.value:.1f}"))
        head = ["epochs", "best ε by test", "by train loss", "test accuracy"]
        print(f"\nlonger training, label noise {noise:.0%}\n\n" + table(head, rows))


# ---- tables


def interval(estimate: gn.Estimate) -> str:
    return f"{float(estimate):.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def verdicts(rows: list[tuple[str, str, bool]]) -> str:
    said = [
        (claim, seen, "reproduced" if holds else "not reproduced") for claim, seen, holds in rows
    ]
    return table(["claim", "measured", "verdict"], said)


def table(head: list[str], rows: Any) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


PARTS = {"stability": stability, "epochs": epochs, "steps": steps, "budgets": budgets}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    for part in parser.parse_args().parts or PARTS:
        PARTS[part]()


if __name__ == "__main__":
    main()
