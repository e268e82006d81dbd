"""Labels that count, per sample: tokens, pixels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.problem.labels import labels_per_sample
from gradnoise.problem.options import Options
from gradnoise.problem.problem import Problem
from gradnoise.statistics.estimate import short
from tests.language import PADDED, Bigram

X = torch.randn(12, 3, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(48).reshape(12, 4) % 3
FEW = torch.where(torch.arange(4) < torch.arange(12)[:, None] % 3, Y, -100)  # 0, 1 or 2 of four
CE = nn.CrossEntropyLoss()


def counted(model: nn.Module, loss_fn: Any, data: Any, **options: Any) -> float | None:
    return labels_per_sample(Problem.open(model, loss_fn, data, Options(**options)))


def positions(*more: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv1d(3, 3, 1), *more)


@pytest.mark.parametrize(("targets", "mean"), [(Y, 4), (FEW, 1)], ids=["all", "few"])
def test_labels_that_count_are_counted(targets: torch.Tensor, mean: float) -> None:
    assert counted(positions(), CE, (X, targets)) == mean
    assert counted(positions(), nn.CrossEntropyLoss(reduction="sum"), (X, targets)) == mean
    for more in (nn.Dropout(0.5), nn.BatchNorm1d(3)):  # replayed draws; groups
        assert counted(positions(more), CE, (X, targets), group_size=4) == mean


def test_one_label_for_each_sample_is_nothing_to_tell() -> None:
    flat, y = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), Y[:, 0]
    assert counted(flat, CE, (X, y)) is None
    assert counted(flat, nn.MSELoss(), (X, torch.zeros(12, 3))) is None
    assert counted(flat, lambda m, b: m(b[0]).sum(1), (X, y)) is None
    assert counted(flat, CE, (X, torch.where(torch.arange(12) < 3, y, -100))) == 0.25


def test_tokens_of_a_language_model() -> None:
    assert counted(Bigram(11), gn.causal_lm(), PADDED) == 3
    assert counted(Bigram(11), gn.causal_lm(weights="equal"), PADDED) == 3


def test_samples_of_a_list_are_put_together_first() -> None:
    pairs = [(x[:, : 1 + k % 3], y[: 1 + k % 3]) for k, (x, y) in enumerate(zip(X, Y, strict=True))]

    def collate(samples: Any) -> Any:
        x = torch.zeros(len(samples), 3, 4)
        y = torch.full((len(samples), 4), -100)
        for k, (own, labels) in enumerate(samples):
            x[k, :, : own.shape[1]], y[k, : len(labels)] = own, labels
        return x, y

    loader = torch.utils.data.DataLoader(pairs, 4, collate_fn=collate)  # type: ignore[arg-type]
    assert counted(positions(), CE, loader) == 2
    assert counted(positions(nn.BatchNorm1d(3)), CE, loader) == 2


def test_the_report_tells_batch_sizes_in_labels() -> None:
    p = gn.profile(positions(), CE, (X, FEW), population="distribution")
    assert p.labels_per_sample == 1
    p = gn.profile(positions(), CE, (X, Y))
    assert p.labels_per_sample == 4
    report = " ".join(str(p).split())
    assert "a sample has 4.00 labels that count (tokens, pixels), on average" in report
    advice = p.recommend()
    assert advice.critical is not None
    assert "In labels (tokens, pixels; 4.00 per sample): the critical batch size is about" in report
    assert (
        f"a batch of {advice.batch_size} samples has {short(4 * (advice.batch_size or 0))}"
        in report
    )
