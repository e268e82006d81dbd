"""gn.advise: within its budget, what it names holds, and it says what it did."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.statistics.estimate import short
from gradnoise.training.record import Record, Run
from gradnoise.training.start import Start
from gradnoise.trials.advice import Choice
from gradnoise.trials.advise import (
    FARTHER,
    FIRST,
    LEAST_STEPS,
    _search,
    _towards_critical,
    least_rate,
    sizes_within,
)
from gradnoise.trials.branches import Branches
from gradnoise.trials.search import Length, search
from tests.starts import ended

SOURCE = torch.Generator().manual_seed(0)
X = torch.randn(2048, 6, generator=SOURCE)
Y = (X @ torch.randn(6, generator=SOURCE) + 0.3 * torch.randn(2048, generator=SOURCE))[:, None]


def setting(lr: float = 0.02) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(6, 1)
    return model, torch.optim.SGD(model.parameters(), lr=lr)


def advised(lr: float = 0.02, **options: object) -> gn.Advice:
    model, optimizer = setting(lr)
    chosen = {"batch_size": 16, "budget": 40_000, "vectorise": True, **options}
    return gn.advise(model, nn.MSELoss(), (X, Y), optimizer, **chosen)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def found() -> gn.Advice:
    return advised()


def test_the_pair_that_is_named_trains(found: gn.Advice) -> None:
    assert found.lr is not None
    assert found.batch_size is not None
    model, _ = setting()
    optimizer = torch.optim.SGD(model.parameters(), lr=found.lr)
    for seed in range(8):
        for rows in torch.randperm(2048, generator=torch.Generator().manual_seed(seed)).split(
            found.batch_size
        ):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(X[rows]), Y[rows]).backward()
            optimizer.step()
    assert float(nn.functional.mse_loss(model(X), Y).detach()) < 0.15  # noise alone is 0.09


@pytest.mark.parametrize("lr", [2e-4, 0.02, 0.5])
def test_a_rate_far_off_is_mended(lr: float) -> None:
    found = advised(lr, budget=200_000)
    assert found.lr is not None
    assert 2e-3 < found.lr < 0.45  # half of 2/λ


@pytest.mark.parametrize("budget", [1000, 3000, 10_000, 40_000, 100_000])
def test_no_more_than_the_budget_is_spent(budget: int) -> None:
    assert advised(budget=budget).samples <= budget


def test_the_default_budget_is_two_epochs() -> None:
    assert 0 < advised(budget=None, batch_size=4).samples <= 2 * 2048


def test_it_says_what_was_tried(found: gn.Advice) -> None:
    text = " ".join(str(found).split())
    assert text.startswith(f"What to do (confidence: {found.confidence}) - Batch size ")
    assert re.search(rf"tried {found.steps} steps from here on {found.seeds} seeds: holds", text)
    assert found.confidence in ("good", "rough")


def test_a_short_trial_is_rough_and_says_which_budget_is_enough() -> None:
    found = advised(budget=10_000)
    assert found.confidence == "rough"
    assert found.batch_size is not None
    enough = 16 * max(2048, 200 * found.batch_size)  # 2 seeds, 4 rates, and the other half
    epochs = f"{round(enough / 2048)} passes over the data"
    size = found.batch_size
    said = (
        f"the trial was short (for batch size {size}, `budget` = {enough}, {epochs}, is enough; it "
        f"may find another one)"
    )
    assert f"- This is rough, because {said}." in " ".join(str(found).split())


def test_a_trial_of_an_epoch_is_not_short() -> None:
    found = advised(batch_size=1, budget=60_000)
    assert found.batch_size is not None
    assert found.steps * found.batch_size >= max(2048, 200 * found.batch_size)
    assert "the trial was short" not in str(found)


def test_too_small_a_budget_is_said_with_what_is_enough() -> None:
    found = advised(budget=500)
    assert (found.batch_size, found.lr, found.confidence, found.samples) == (None, None, "none", 0)
    needed = re.search(r"Give `budget` = (\d+) or more", found.reasons[0])
    assert needed is not None
    assert advised(budget=int(needed[1])).lr is not None


def test_a_loss_that_always_diverges_has_no_advice() -> None:
    model, optimizer = setting(1e6)
    found = gn.advise(
        model, nn.MSELoss(), (X, Y), optimizer, batch_size=16, budget=40_000, vectorise=True
    )
    assert (found.lr, found.confidence) == (None, "none")
    assert found.reasons == ("No learning rate held: start from a smaller one.",)


def test_a_loss_that_nothing_changes_has_no_advice() -> None:
    model, optimizer = setting(0.1)
    found = gn.advise(
        model, lambda m, batch: 0 * m(batch[0])[:, 0] + 2, (X, Y), optimizer, batch_size=16,
        budget=5000, seeds=2, vectorise=True,
    )  # fmt: skip
    assert (found.lr, found.confidence) == (None, "none")
    assert "The loss is the same after all runs, whatever the learning rate" in str(found)


@pytest.mark.parametrize(
    ("budget", "sizes"),
    [(1e7, [16, 4, 64, 256]), (5e4, [16, 4, 64, 128]), (3e4, [16, 4, 64]), (1e4, [16, 4, 32]),
     (4e3, [16, 4]), (2.2e3, [16]), (2e3, [])],
)  # fmt: skip
def test_the_budget_decides_on_batch_sizes(budget: float, sizes: list[int]) -> None:
    """The one in use first, then others, as many as have 8 steps in a run."""
    found, samples = sizes_within(16, 2048, FIRST * budget)
    assert found == sizes
    assert all(samples >= LEAST_STEPS * size for size in found)


@pytest.mark.parametrize(
    ("most", "sizes", "samples"),
    [(2000, [16, 4, 64, 128], 2000), (600, [16, 4, 64], 600), (130, [16, 4], 130), (127, [], 0)],
)  # fmt: skip
def test_no_run_is_longer_than_the_training_ahead(
    most: int, sizes: list[int], samples: int
) -> None:
    assert sizes_within(16, 2048, 1e7, most) == (sizes, samples)


def test_what_is_meant_to_be_trained_is_tried() -> None:
    """With a budget for it as long, with a smaller one shorter; never longer."""
    for budget, least, most in ((200_000, 3500, 4000), (20_000, 100, 2000)):
        found = advised(budget=budget, samples=4000)
        assert found.batch_size is not None
        assert least < found.steps * found.batch_size <= most
        assert found.branches.samples_each <= 4000
        assert found.samples <= budget
    longer = advised(budget=200_000)
    assert longer.batch_size is not None
    assert longer.steps * longer.batch_size > 4000


def test_a_trial_as_long_as_the_training_ahead_is_neither_short_nor_of_another_length() -> None:
    text = " ".join(str(advised(1e-3, budget=60_000, samples=1000)).split())
    assert "steps from here, as long as the training ahead, on 2 seeds: holds" in text
    assert "trial was" not in text
    assert "more than halved" not in text
    assert "896 samples at a constant rate, as the trials had; the tr" not in text
    text = " ".join(str(advised(1e-3, budget=60_000)).split())
    assert "the trial was short" in text
    assert "more than halved" in text
    assert "training ahead" not in text


def test_a_trial_much_shorter_than_the_training_ahead_is_rough_and_says_what_is_enough() -> None:
    found = advised(1e-3, budget=60_000, samples=50_000)
    size, text = found.batch_size, " ".join(str(found).split())
    assert (
        f"the trial was less than half as long as the training ahead (for batch size {size}, "
        f"`budget` = 800000, 390 passes over the data, is enough; it may find another one)"
    ) in text
    assert "more than halved" in text
    assert "as the trials had; the training ahead has 50000: " in text
    almost = advised(1e-3, budget=60_000, samples=5000)
    assert almost.batch_size is not None
    assert 2500 < almost.steps * almost.batch_size < 5000
    assert "trial was" not in str(almost)


def test_a_whole_trial_may_lower_the_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short trials do not; one as long as the training ahead is none."""
    asked = []
    monkeypatch.setattr(
        "gradnoise.trials.advise.least_rate", lambda *_: asked.append(1) or 0.0
    )  # fmt: skip
    advised(budget=60_000, samples=1000)
    assert not asked
    advised(budget=60_000, samples=50_000)
    assert asked


def test_what_the_last_trial_does_not_need_is_for_the_search() -> None:
    """30 times the training ahead pays for all of it at four batch sizes."""
    found = advised(budget=30 * 4000, samples=4000)
    assert found.branches.samples_each >= 3840  # whole steps of the largest batch
    assert len(found.branches.batch_sizes) == 4
    assert found.batch_size is not None
    assert found.steps == 4000 // found.batch_size


@pytest.mark.parametrize(("samples", "first", "further"), [(1000, 52_000, 3), (9000, 30_000, 1)])
def test_the_last_trial_keeps_what_it_needs_and_goes_further_where_it_is_whole(
    samples: int, first: int, further: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four rates on two seeds: 8000 of 60 000 samples. Of longer runs half is kept."""
    given: dict[str, Any] = {}

    def within(base: int, count: int, budget: float, most: float) -> tuple[list[int], int]:
        given["first"] = budget
        return sizes_within(base, count, budget, most)

    def last(*arguments: Any) -> list[Record]:
        given["further"] = arguments[-1]
        return search(*arguments)

    monkeypatch.setattr("gradnoise.trials.advise.sizes_within", within)
    monkeypatch.setattr("gradnoise.trials.advise.search", last)
    advised(budget=60_000, samples=samples)
    assert given == {"first": first, "further": further}


def test_a_file_for_another_training_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "advice.jsonl"
    first = advised(budget=5000, samples=np.int64(1000), path=path)
    assert advised(budget=5000, samples=1000, path=path).lr == first.lr
    with pytest.raises(gn.SweepFileError, match="samples of the training ahead"):
        advised(budget=5000, samples=1001, path=path)


def test_no_batch_is_larger_than_the_data() -> None:
    found, _ = sizes_within(16, 50, 1e7)
    assert max(found) <= 50


@pytest.mark.parametrize("budget", [3_000, 10_000, 40_000])
def test_the_batch_size_in_use_is_always_tried(budget: int) -> None:
    assert 16 in advised(budget=budget).branches.batch_sizes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"extra": 0.0}, r"`extra` must be positive; got 0\.0"),
        ({"extra": math.inf}, "`extra` must be positive; got inf"),
        ({"extra": None}, "`extra` must be a number; got None"),
        ({"level": 1.0}, "`level` is a coverage between 0 and 1"),
        ({"budget": 0}, "`budget`"),
        ({"seeds": 0}, "`seeds`"),
        ({"samples": 127}, "enough for 8 steps at batch size 16, at least 128; got 127"),
        ({"samples": 31, "batch_size": 4}, "enough for 8 steps at batch size 4, at least 32"),
        ({"samples": 1000.0}, "`samples` must be a whole number"),
        ({"batch_size": None}, "`batch_size` is needed"),
        ({"batch_size": 2049, "budget": 10**9}, "`batch_size` = 2049 is more than the 2048 samp"),
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        advised(**options)


def test_one_seed_is_told_in_the_singular_and_is_not_sure() -> None:
    found = advised(seeds=1)
    assert "on 1 seed: holds" in found.reasons[0]
    assert found.confidence == "rough"


@pytest.mark.parametrize(("steps", "budget"), [(5, 15_000), (5, 60_000), (1001, 15_000)])
def test_second_moments_that_do_not_settle_in_the_trial_are_told(steps: int, budget: int) -> None:
    model, _ = setting()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        rows = torch.arange(16) + 16 * (step % 128)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(X[rows]), Y[rows]).backward()
        optimizer.step()
    found = gn.advise(
        model, nn.MSELoss(), (X, Y), optimizer, batch_size=4, budget=budget, vectorise=True
    )
    told = "AdamW has taken 5 steps, and its second moments settle after about 1000"
    assert (found.steps + steps < 1000) is (budget == 15_000 and steps == 5)
    assert (told in " ".join(found.reasons)) is (found.steps + steps < 1000)


def test_the_search_has_one_order_of_the_samples_and_the_last_trial_others() -> None:
    found = advised(budget=10_000, seeds=3)
    assert (found.seeds, found.confidence) == (3, "rough")
    assert found.branches.settings["seeds of the last trial"] == 3
    assert {record.run.seed for record in found.branches.records} == {0}
    assert found.batch_size is not None
    enough = 24 * max(2048, 200 * found.batch_size)
    assert f"(for batch size {found.batch_size}, `budget` = {enough}, " in " ".join(found.reasons)


@pytest.mark.parametrize("budget", [6_000, 40_000])
def test_a_short_trial_does_not_lower_the_temperature(budget: int) -> None:
    """At the noise of the steps every smaller rate looks better, whatever it costs later."""
    found = where_it_is_stationary(0.1, budget)
    assert found.lr is not None
    assert found.batch_size is not None
    assert found.lr >= 0.99 * 0.1 * found.batch_size / 16


def test_a_rate_in_use_that_hardly_holds_is_no_bound() -> None:
    """2/λ is about 0.9 here: at batch size 64 the temperature in use needs a rate of 1.2."""
    found = where_it_is_stationary(0.3, 300_000)
    assert found.batch_size is not None
    assert found.batch_size >= 64
    assert found.lr is not None
    assert found.lr < 0.6


@pytest.mark.parametrize(
    ("diverged", "size", "stable", "sgd", "adam"),
    [
        ([], 16, 0.1, 0.1, 0.1),
        ([], 4, 0.1, 0.025, 0.05),
        ([], 64, 0.1, 0.1, 0.1),  # more than in use has not been seen to hold
        ([], 64, 0.3, 0.3, 0.2),
        ([(16, 0.2)], 16, 0.1, 0.0, 0.0),
        ([(16, 0.21)], 16, 0.1, 0.1, 0.1),
        ([(64, 0.2)], 16, 0.1, 0.0, 0.0),  # a smaller batch does not bear more
        ([(4, 0.05)], 16, 0.1, 0.0, 0.0),  # nor a larger one more noise
        ([(4, 0.06)], 16, 0.1, 0.1, 0.0),
        ([(4, 0.11)], 16, 0.1, 0.1, 0.1),
    ],
)
def test_the_rate_in_use_is_a_bound_unless_twice_of_it_diverges(
    diverged: list[tuple[int, float]], size: int, stable: float, sgd: float, adam: float
) -> None:
    records = tuple(
        Record(Run(each, lr, 0, "samples", 9), True, None, 1.0, math.inf) for each, lr in diverged
    )
    found = gn.Branches(records, {}, lr=0.1, batch_size=16)
    choice = Choice(size, 0.01, 0.01, stable, False)
    model = nn.Linear(1, 1)
    for kind, expected in ((torch.optim.SGD, sgd), (torch.optim.Adam, adam)):
        trials: Any = SimpleNamespace(start=Start(model, kind(model.parameters(), lr=0.1)))
        assert least_rate(trials, found, choice) == pytest.approx(expected)


def where_it_is_stationary(lr: float, budget: int) -> gn.Advice:
    """Advice after 20 epochs with batches of 16."""
    model, optimizer = setting(lr)
    for seed in range(20):
        for rows in torch.randperm(2048, generator=torch.Generator().manual_seed(seed)).split(16):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(X[rows]), Y[rows]).backward()
            optimizer.step()
    return gn.advise(
        model, nn.MSELoss(), (X, Y), optimizer, batch_size=16, budget=budget, vectorise=True
    )


def test_where_a_part_of_the_data_is_drawn_nothing_is_said_of_passes() -> None:
    """8192 samples, of which 4096 are drawn: 200 steps at B are asked for, whatever is drawn."""
    many = (X.repeat(4, 1), Y.repeat(4, 1))
    model, optimizer = setting()
    found = gn.advise(model, nn.MSELoss(), many, optimizer, batch_size=16, budget=4000)
    assert found.batch_size is not None
    needed = 16 * 1000 * found.batch_size  # 2 seeds, 4 rates, the other half; 1000 steps
    assert f"`budget` = {needed} is enough" in " ".join(found.reasons)
    assert "passes" not in str(found)
    tiny = gn.advise(model, nn.MSELoss(), many, optimizer, batch_size=5000, budget=4000)
    assert tiny.lr is None
    assert "too small for runs of 8 steps at batch size 5000" in tiny.reasons[0]
    assert "passes" not in tiny.reasons[0]


@pytest.mark.parametrize("seeds", [1, 3, 10, 30, 100])
@pytest.mark.parametrize("budget", [2200, 4148, 10_000])
def test_many_seeds_do_not_spend_more_and_leave_runs_of_some_steps(budget: int, seeds: int) -> None:
    found = advised(budget=budget, seeds=seeds)
    assert found.samples <= budget
    assert found.seeds <= seeds
    assert found.steps >= LEAST_STEPS
    assert found.batch_size is not None
    enough = 8 * seeds * max(2048, 200 * found.batch_size)  # of all that were asked for
    assert f"`budget` = {enough}, " in " ".join(found.reasons)


def test_single_samples_are_not_tried_unless_they_are_in_use() -> None:
    assert sizes_within(4, 2048, 1e5)[0] == [4, 2, 16, 64]
    assert sizes_within(2, 2048, 1e5)[0] == [2, 8, 32]
    assert sizes_within(1, 2048, 1e5)[0] == [1, 4, 16]


def test_with_gradients_that_are_cut_only_the_samples_tell_the_critical_batch_size() -> None:
    assert advised(budget=10_000).branches.trace_cov is not None
    assert advised(budget=10_000, max_grad_norm=1.0).branches.trace_cov is None


def branches_at(
    critical: float, sizes: tuple[int, ...] = (8, 32, 128), base: int = 32, fall: float = 0.1
) -> Branches:
    """Losses that fall by 0.1 for every e-fold of the samples, of which B needs (1 + B/B_crit)."""

    def loss(size: int, share: float = 1.0) -> tuple[float]:
        effective = share * (1 + sizes[0] / critical) / (1 + size / critical)
        return (1.0 - fall * math.log(effective),)

    records = [record for size in sizes for record in ended(size, 0.1, loss(size), samples=1024)]
    records = [replace(record, start_loss=20.0) for record in records]
    parts = [
        record
        for share in (2, 4, 8)
        for record in ended(sizes[0], 0.1, loss(sizes[0], 1 / share), budget=f"1/{share}",
                            samples=1024 // share)
    ]  # fmt: skip
    return Branches(tuple(records), {"schedule": "linear"}, parts=tuple(parts), batch_size=base)


@pytest.mark.parametrize(
    ("critical", "size"),
    [(2.0, 2), (6.0, 2), (11.0, None), (100.0, None), (140.0, 512), (1e9, 512)],
)
def test_the_next_batch_size_is_towards_the_critical_one(critical: float, size: int | None) -> None:
    assert _towards_critical(branches_at(critical), Length(8192, (0,)), 8192) == size


@pytest.mark.parametrize(
    ("samples", "count", "size"),
    [(4096, 512, 512), (4095, 512, None), (4096, 511, None), (4608, 512, 512), (4600, 512, None)],
)
def test_a_larger_batch_size_has_eight_whole_steps_and_enough_samples(
    samples: int, count: int, size: int | None
) -> None:
    assert _towards_critical(branches_at(1e9), Length(samples, (0,)), count) == size


@pytest.mark.parametrize(
    ("sizes", "base", "size"),
    [((8, 32, 128), 32, 2), ((8, 32, 128), 128, 8), ((4, 16, 64), 16, 2), ((2, 8, 32), 8, None),
     ((8, 32, 128), 256, None)],
)  # fmt: skip
def test_a_smaller_batch_size_is_no_single_sample_and_a_sixteenth_at_least(
    sizes: tuple[int, ...], base: int, size: int | None
) -> None:
    found = _towards_critical(branches_at(0.5, sizes, base), Length(8192, (0,)), 8192)
    assert found == (None if size == sizes[0] else size)


def test_a_smaller_batch_size_is_tried_where_it_is_likely_to_end_lower() -> None:
    """B = 2 in place of 8 saves 30 % of the samples where B_crit is 12."""
    length = Length(8192, (0,))
    for fall, size in ((0.1, None), (0.7, 2)):
        assert _towards_critical(branches_at(12.0, fall=fall), length, 8192) == size


def test_a_batch_size_without_a_rate_that_held_is_none_to_go_down_from() -> None:
    found = branches_at(0.5)
    lost = [replace(r, diverged=True) if r.run.batch_size == 8 else r for r in found.records]
    assert _towards_critical(replace(found, records=tuple(lost)), Length(8192, (0,)), 8192) is None


def test_one_batch_size_tells_no_direction() -> None:
    alone = Branches(tuple(ended(8, 0.1, (0.5,))), {}, batch_size=8)
    assert _towards_critical(alone, Length(8192, (0,)), 8192) is None


def test_where_everything_diverged_there_is_no_next_batch_size() -> None:
    lost = Branches(tuple(ended(8, 0.1, (math.inf,))), {})
    assert _towards_critical(lost, Length(8192, (0,)), 8192) is None


@pytest.mark.parametrize(
    ("critical", "order"),
    [(50.0, [16, 4, "parts", 64, 256]), (1e9, [16, 4, "parts", 64, 256, 1024]),
     (1.0, [16, 4, "parts", 64, 2, "parts"])],
)  # fmt: skip
def test_batch_sizes_are_tried_towards_the_critical_one(critical: float, order: list[Any]) -> None:
    """At the smallest one with parts of the samples; the largest unless it is far from there."""
    asked: list[Any] = []

    def branches() -> Branches:
        sizes = tuple(sorted(size for size in asked if size != "parts"))
        return branches_at(critical, sizes, 16)

    further: list[Any] = []

    def add(size: int, *beyond: int) -> None:
        asked.append(size)
        further.append(beyond)

    searched: Any = SimpleNamespace(
        add=add, can_add=lambda size: True, take_parts=lambda: asked.append("parts")
    )
    _search(searched, [16, 4, 64, 256], Length(8192, (0,)), 8192, branches)
    assert asked == order
    assert further[0] == (FARTHER,)  # the rate in use may be far off
    assert not any(further[1:])
    asked.clear()
    searched.can_add = lambda size: size == 256  # the one that is wanted cannot be paid
    _search(searched, [16, 4, 64, 256], Length(8192, (0,)), 8192, branches)
    assert asked == [16, 4, "parts", 64, 256]
    asked.clear()
    searched.can_add = lambda size: False
    _search(searched, [16, 4, 64, 256], Length(8192, (0,)), 8192, branches)
    assert asked == [16, 4, "parts", 64]


def test_of_few_batch_sizes_none_is_added() -> None:
    asked: list[Any] = []
    searched: Any = SimpleNamespace(
        add=lambda size, *_: asked.append(size), take_parts=lambda: None
    )
    _search(searched, [16, 4], Length(8192, (0,)), 8192, lambda: branches_at(1e9))
    assert asked == [16, 4]


def test_what_is_named_is_what_is_printed_and_was_tried() -> None:
    """Also where the trial is whole, and the best constant rate is not that at averaged weights."""
    apart = 0
    for lr in (0.02, 0.2):
        for samples in (1000, 2048, None):
            found = advised(lr, budget=60_000, samples=samples)
            assert found.lr is not None
            assert found.lr_range is not None
            constant, averaged = found.lr_range
            whole = "as long as the training ahead" in found.reasons[0]
            assert found.lr == (constant if whole else averaged)
            named = f"Batch size {found.batch_size}, learning rate {short(found.lr)}: tried"
            assert found.reasons[0].startswith(named)
            apart += whole and constant != averaged
            each = {r.run.steps * r.run.batch_size for r in found.branches.records}
            assert len(each) == 1
    assert apart


def test_a_doubt_of_the_last_trial_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradnoise.trials.advise.lower_elsewhere", lambda *_: ("of this doubt",))
    found = advised(budget=20_000)
    assert "This is rough, because of this doubt." in found.reasons
    assert found.confidence == "rough"


def test_only_runs_at_a_constant_rate_keep_the_temperature_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a short trial; the least rate is put far above the best one."""
    monkeypatch.setattr("gradnoise.trials.advise.least_rate", lambda *_: 10.0)
    constant, falling = (advised(budget=10_000, schedule=s) for s in (None, "linear"))
    assert constant.lr is None or constant.lr > 1
    assert falling.lr is not None
    assert falling.lr < 1


def test_with_a_schedule_the_pair_was_tried_with_it() -> None:
    """No smaller temperature than in use is for runs with a constant rate."""
    found = advised(0.02, schedule="linear", samples=2048, budget=100_000)
    assert found.branches.schedule == "linear"
    assert found.lr_range is not None
    assert found.lr_range[0] == found.lr_range[1] == found.lr
    assert "changed by the schedule (linear): tried" in str(found).replace("\n  ", " ")
    with pytest.raises(gn.ArgumentError, match="`schedule` must be 'linear' or 'cosine'"):
        advised(schedule="falling")


@pytest.mark.parametrize(("samples", "whole"), [(512, True), (9000, False)])
def test_whole_runs_are_judged_by_the_losses_of_a_constant_rate(
    samples: int, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch size is, and the last trial is around the best constant rate."""
    given: dict[str, Any] = {}

    def choose(branches: Branches, extra: float, by_constant: bool) -> Choice:
        given["whole"] = by_constant
        return Choice(16, 0.01, 0.04, 0.1, False)

    def last(trials: Any, size: int, lrs: list[float], *others: Any) -> list[Record]:
        given["lrs"] = lrs
        return search(trials, size, lrs, *others)

    monkeypatch.setattr("gradnoise.trials.advise.chosen", choose)
    monkeypatch.setattr("gradnoise.trials.advise.search", last)
    advised(1e-4, budget=30_000, samples=samples)
    centre = 0.01 if whole else 0.02
    assert given == {"whole": whole, "lrs": pytest.approx([centre / 2, centre, 2 * centre])}
