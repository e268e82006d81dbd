"""What is the same for all runs: samples in one batch, and the loss at the start."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

import gradnoise as gn
from gradnoise.training.plan import collated, mean_over
from tests.small_runs import COUNTED, DATA, INPUTS, LABELS, TEST, counted, plan_of, small, swept
from tests.starts import plan_at, trained


@pytest.mark.parametrize(("vectorise", "models"), [("auto", 2 + 2 + 2 * 2), (False, 2 + 2 + 8)])
def test_the_loss_at_the_start_is_computed_once_for_every_seed(
    vectorise: bool | str, models: int
) -> None:
    made = []
    COUNTED.clear()

    def make() -> nn.Module:
        made.append(small())
        return made[-1]

    assert len(swept(make, counted, vectorise=vectorise).records) == 8
    assert len(COUNTED) == 2 + 8  # both seeds before, all runs after
    assert len(made) <= models


def test_no_samples_at_all_are_refused() -> None:
    with pytest.raises(gn.DataError, match=r"got no samples; at least 1 needed\. Pass"):
        gn.sweep(
            small, nn.CrossEntropyLoss(), (INPUTS[:0], LABELS[:0]), batch_sizes=[1], lrs=[1.0],
            epochs=1,
        )  # fmt: skip


def test_samples_that_do_not_fit_into_one_tensor_are_refused() -> None:
    ragged = [(torch.randn(2, 3), torch.zeros(2)), (torch.randn(2, 4), torch.zeros(2))]
    with pytest.raises(gn.DataError, match="the batches of `train_data` do not fit into one"):
        gn.sweep(small, nn.CrossEntropyLoss(), ragged, batch_sizes=[1], lrs=[1.0], epochs=1)


def test_losses_and_metrics_are_one_per_sample() -> None:
    with pytest.raises(gn.LossError, match="`loss_fn` must return one number per sample"):
        gn.sweep(small, lambda m, b: m(b[0]), DATA, batch_sizes=[8], lrs=[1.0], epochs=1)
    with pytest.raises(gn.LossError, match="a metric must return one number per sample"):
        swept(test_data=TEST, metrics={"all": lambda model, batch: model(batch[0]).sum()})


def test_one_number_for_a_batch_is_trained_as_the_mean_that_it_is() -> None:
    def mean_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    whole, each = (
        gn.sweep(small, loss, DATA, batch_sizes=[8], lrs=[0.1], epochs=1, seeds=1).records[0]
        for loss in (mean_loss, nn.CrossEntropyLoss())
    )
    assert whole.train_loss == pytest.approx(each.train_loss, rel=1e-6)


def test_a_loss_that_is_not_finite_from_the_start_is_said() -> None:
    with pytest.raises(gn.LossError, match="the loss of a fresh model is not finite"):
        gn.sweep(
            small, nn.CrossEntropyLoss(), (math.nan * DATA[0], DATA[1]), batch_sizes=[8],
            lrs=[1.0], epochs=1,
        )  # fmt: skip


def test_a_fresh_model_is_decided_by_the_seed_and_the_random_state_is_left() -> None:
    plan, state = plan_of(), torch.get_rng_state()
    first, again, other = (
        parameters_to_vector(plan.model(seed).parameters()) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_batches_are_collated_in_order() -> None:
    batches = [(INPUTS[:5], LABELS[:5]), (INPUTS[5:8], LABELS[5:8])]
    inputs, labels = collated(batches, "train_data")
    assert torch.equal(inputs, INPUTS[:8])
    assert torch.equal(labels, LABELS[:8])


def test_a_mean_is_over_all_samples_whatever_the_parts() -> None:
    values = torch.arange(10.0)
    for rows in (1, 3, 10, 4096):
        assert mean_over(lambda part: part, values, rows=rows) == 4.5
    assert mean_over(lambda part: part / 0, values[1:]) == math.inf


def test_a_plan_with_a_start_copies_its_model_for_every_seed() -> None:
    model, optimizer = trained()
    plan = plan_at(model, optimizer)
    for seed in (0, 1):
        copied = plan.model(seed)
        assert copied is not model
        assert torch.equal(
            parameters_to_vector(copied.parameters()), parameters_to_vector(model.parameters())
        )


def test_losses_are_taken_on_the_judged_samples() -> None:
    model, optimizer = trained()
    few = (DATA[0][:4], DATA[1][:4])
    plan = plan_at(model, optimizer, judged=few)
    expected = nn.functional.cross_entropy(model(few[0]), few[1]).item()
    assert plan.start_loss(0) == pytest.approx(expected, rel=1e-12)
    assert plan.count == 32


def test_a_loss_that_is_not_finite_where_runs_start_is_said() -> None:
    model, optimizer = trained()
    plan = plan_at(model, optimizer, data=(math.nan * DATA[0], DATA[1]))
    with pytest.raises(gn.LossError, match="the loss of the model is not finite"):
        plan.start_loss(0)


def test_runs_from_one_start_share_one_copy_of_the_model() -> None:
    model, optimizer = trained()
    copies = plan_at(model, optimizer).models([3, 4])
    assert copies[3] is copies[4] is not model
    fresh = plan_of(small).models([3, 4])
    weights = [parameters_to_vector(fresh[seed].parameters()) for seed in (3, 4)]
    assert not torch.equal(*weights)
