"""What is read off torch's optimizers, and what is refused."""

import copy
import dataclasses

import pytest
import torch
from torch import optim

import gradnoise as gn
from gradnoise.problem.optimizer_settings import OptimizerSettings, read_optimizer

OTHER = "are those of plain SGD at the same point, not of Adam"
DECAY = "without the optimizer's weight decay of 0.01"
SEVERAL = "several learning rates; the first group's is reported"
HELD, INSIDE, ALONE = "second moments held", "in gradient and curvature", "in the sharpness alone"


def weights():
    return [torch.zeros(2, requires_grad=True)]


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (optim.SGD(weights(), lr=0.1), OptimizerSettings("SGD", 0.1)),
        (optim.SGD(weights(), lr=0.1, momentum=0.9), OptimizerSettings("SGD", 0.1, 0.9)),
        (
            optim.SGD(weights(), lr=0.1, momentum=0.9, nesterov=True),
            OptimizerSettings("SGD", 0.1, 0.9, nesterov=True, kind="nesterov"),
        ),
        (
            optim.SGD(weights(), lr=0.1, weight_decay=0.01),
            OptimizerSettings("SGD", 0.1, weight_decay=0.01),
        ),
        (
            optim.Adam(weights(), lr=0.1, betas=(0.8, 0.9)),
            OptimizerSettings("Adam", 0.1, 0.8, kind="adam", settled_after=100),
        ),
        (
            optim.AdamW(weights(), lr=0.1, weight_decay=0.01),
            OptimizerSettings(
                "AdamW", 0.1, 0.9, weight_decay=0.01, kind="adam", settled_after=1000
            ),
        ),
        (
            optim.RMSprop(weights(), lr=0.1, momentum=0.5, alpha=0.999),
            OptimizerSettings("RMSprop", 0.1, 0.5, settled_after=1000),
        ),
        (optim.Adagrad(weights(), lr=0.1), OptimizerSettings("Adagrad", 0.1)),
        (
            optim.Adam(weights(), lr=torch.tensor(0.5), betas=(0.8, 0.9)),
            OptimizerSettings("Adam", 0.5, 0.8, kind="adam", settled_after=100),
        ),
    ],
)
def test_its_settings_are_read(optimizer, expected):
    found = read_optimizer(optimizer)

    assert {**vars(found), "notes": ()} == vars(expected)


@pytest.mark.parametrize(
    ("optimizer", "notes", "of_its_metric"),
    [
        (optim.SGD(weights(), lr=0.1, momentum=0.9), [], []),
        (optim.SGD(weights(), lr=0.1, weight_decay=0.01), [DECAY], [INSIDE]),
        (optim.Adam(weights(), lr=0.1), [OTHER], [HELD]),
        (optim.AdamW(weights(), lr=0.1, weight_decay=0.01), [OTHER, DECAY], [HELD, ALONE]),
        (
            optim.SGD([{"params": weights()}, {"params": weights(), "lr": 0.2}], lr=0.1),
            [SEVERAL],
            ["others in proportion"],
        ),
        (
            optim.Adafactor(weights(), lr=0.1),
            ["those of plain SGD"],
            ["second moments held", "clipping of its steps is left out"],
        ),
        (optim.SGD([{"params": weights()}, {"params": weights()}], lr=0.1), [], []),
    ],
)
def test_what_it_changes_about_the_numbers_is_noted(optimizer, notes, of_its_metric):
    for metric, expected in (("euclidean", notes), ("optimizer", of_its_metric)):
        found = read_optimizer(optimizer, metric).notes
        assert len(found) == len(expected)
        assert all(note in text for note, text in zip(expected, found, strict=True))


def stepped(optimizer, steps):
    for _ in range(steps):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("name", ["Adam", "AdamW", "NAdam", "RMSprop"])
def test_the_steps_of_the_second_moments_are_read(name):
    optimizer = stepped(getattr(optim, name)(weights(), lr=0.1), 3)
    optimizer.add_param_group({"params": weights()})
    assert read_optimizer(optimizer).steps == 3
    assert read_optimizer(stepped(optimizer, 2)).steps == 2  # of the group that came later


def test_an_optimizer_without_second_moments_has_no_such_steps():
    found = read_optimizer(stepped(optim.SGD(weights(), lr=0.1, momentum=0.9), 3))
    assert (found.steps, found.settled_after, found.is_settled) == (None, None, True)


@pytest.mark.parametrize(
    ("beta", "steps", "settled"),
    [
        (0.999, 2, False),
        (0.999, 999, False),
        (0.999, 1000, True),
        (0.95, 20, False),  # an average of 20 steps: λ is off by a factor 12 there
        (0.95, 100, True),
        (1.0, 100, True),
        (0.999, None, True),
    ],
)
def test_second_moments_settle_over_their_average_and_the_early_phase(beta, steps, settled):
    group = optim.Adam(weights(), lr=0.1, betas=(0.9, 0.999))
    group.param_groups[0]["betas"] = (0.9, beta)
    found = dataclasses.replace(read_optimizer(group), steps=steps)
    assert found.is_settled is settled


def test_a_subclass_is_known_by_what_it_is_derived_from():
    mine = type("Mine", (optim.SGD,), {})(weights(), lr=0.1)
    found = read_optimizer(mine)
    assert (found.name, found.base, found.family, found.is_plain) == ("Mine", "SGD", "SGD", True)
    assert found.notes == ()
    assert read_optimizer(optim.AdamW(weights())).base == ""
    assert read_optimizer(optim.Adagrad(weights())).family == "Adagrad"


def test_several_learning_rates_give_the_first():
    groups = [{"params": weights()}, {"params": weights(), "lr": 0.2}]

    assert read_optimizer(optim.SGD(groups, lr=0.1)).lr == 0.1


def test_it_is_only_read():
    optimizer = optim.Adam(weights(), lr=0.1)
    before = copy.deepcopy(optimizer.state_dict())

    read_optimizer(optimizer)

    assert optimizer.state_dict() == before


def test_no_optimizer_has_no_settings():
    assert read_optimizer(None) is None


@pytest.mark.parametrize(
    ("given", "name"), [(0.1, "float"), ("SGD", "str"), (optim.SGD, "type"), ({}, "dict")]
)
def test_what_is_no_optimizer_is_refused(given, name):
    with pytest.raises(gn.ArgumentError, match=rf"torch.optim.Optimizer; got {name}"):
        read_optimizer(given)
