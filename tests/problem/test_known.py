"""What is kept about a model between calls, and everything that makes it be found out anew."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from math import sqrt
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import cross_entropy

import gradnoise as gn
from gradnoise.problem import known as module
from gradnoise.problem.known import KEPT, known
from gradnoise.problem.objective import Objective
from gradnoise.problem.unit import Unit
from gradnoise.tensors.ragged import Items, Ragged
from gradnoise.tensors.sums import without_autocast
from tests.counting import SAMPLES, counted, small_data

TIMES_TWO = False


class Net(nn.Module):
    """Two layers, with whatever may change between two calls."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.drop, self.last = nn.Linear(4, 5), nn.Dropout(0.0), nn.Linear(5, 3)
        self.centres, self.activation = False, torch.tanh
        self.config = SimpleNamespace(centres=False)
        self.deep = [{"flags": SimpleNamespace(centres=False)}]
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.activation(self.first(x)))
        if self.centres or self.config.centres or self.deep[0]["flags"].centres:
            x = x - x.mean(0)
        return self.last(2 * x if TIMES_TWO else x)


def loss(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def norms(model: nn.Module, data: Any = None, loss_fn: Any = loss) -> Tensor:
    found = gn.per_sample_sq_norms(model, loss_fn, small_data() if data is None else data)
    assert isinstance(found, Tensor)
    return found


def drops(model: Net) -> None:
    model.drop.p = 0.5


def drops_by_a_hook(model: Net) -> None:
    model.first.register_forward_hook(lambda _m, _i, out: F.dropout(out, 0.5))


def attribute(model: Net) -> None:
    model.centres = True


def of_an_object(model: Net) -> None:
    model.config.centres = True


def another_layer(model: Net) -> None:
    model.drop = nn.BatchNorm1d(5).double()  # type: ignore[assignment]


def its_forward(model: Net) -> None:
    model.forward = lambda x: model.last(model.first(x) * x.mean())  # type: ignore[method-assign]


@pytest.mark.parametrize("call", [gn.per_sample_sq_norms, gn.gradient_moments])
def test_a_second_call_evaluates_the_samples_once_and_a_few_of_them(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, counts = Net(), counted(monkeypatch)
    call(model, loss, small_data())
    assert sum(counts) > SAMPLES
    counts.clear()
    call(model, loss, small_data())
    assert counts == [SAMPLES, 2]  # all, and two of them alone


def test_calls_that_need_one_sample_and_two_share_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net()
    for call in (norms, gn.gradient_moments):
        call(model, loss_fn=loss, data=small_data())
    counts = counted(monkeypatch)
    for call in (norms, gn.gradient_moments):
        call(model, loss_fn=loss, data=small_data())
    assert counts == 2 * [SAMPLES, 2]


def test_operations_that_depend_on_the_data_cost_no_pass_more_in_the_next_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One operation for each sample: five in the plan, forty in the batch."""

    class Looped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(4, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(torch.stack([2 * row for row in x]))

    model, counts, whole = Looped(), counted(monkeypatch), []
    for _ in range(3):
        counts.clear()
        norms(model)
        whole.append(counts.count(SAMPLES))
    assert whole == [1, 1, 1]


def test_the_numbers_are_the_same() -> None:
    model = Net()
    assert torch.equal(norms(model), norms(model))
    with torch.no_grad():
        model.first.weight.mul_(2)
    torch.testing.assert_close(norms(model), norms(copy.deepcopy(model)), rtol=1e-12, atol=0)


@pytest.mark.parametrize("change", [drops, drops_by_a_hook, attribute, of_an_object, another_layer])
def test_what_a_module_holds_is_noticed(change: Callable[[Net], None]) -> None:
    """Losses that become random or coupled are measured as those of a model never seen before."""
    model = Net()
    gn.gradient_moments(model, loss, small_data())
    change(model)
    found = gn.gradient_moments(model, loss, small_data())
    fresh = gn.gradient_moments(copy.deepcopy(model), loss, small_data())
    assert found.group_size == fresh.group_size
    assert float(found.trace_cov) == float(fresh.trace_cov)
    assert found.population == fresh.population
    assert found.group_size > 1 or found.population == float("inf")  # coupled, or random


def test_a_layer_in_training_mode_is_noticed() -> None:
    model = Net()
    another_layer(model)
    model.eval()
    assert gn.gradient_moments(model, loss, small_data()).group_size == 1
    model.train()
    assert gn.gradient_moments(model, loss, small_data()).group_size > 1


def test_another_forward_is_noticed() -> None:
    model = Net()
    norms(model)
    its_forward(model)
    with pytest.raises(gn.GradNoiseError):
        norms(model)


def test_frozen_parameters_are_noticed() -> None:
    model = Net()
    before = norms(model)
    model.first.requires_grad_(False)
    alone = torch.stack(
        [
            torch.cat(
                [g.flatten() for g in torch.autograd.grad(one, list(model.last.parameters()))]
            )
            for one in (
                loss(model, [t[k : k + 1] for t in small_data()]).sum() for k in range(len(before))
            )
        ]
    )
    torch.testing.assert_close(norms(model), alone.square().sum(1), rtol=1e-12, atol=0)


def test_a_number_that_the_code_reads_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, objective = Net(), Objective(Net(), loss)
    before = norms(model)
    first = known(objective, small_data())
    monkeypatch.setitem(globals(), "TIMES_TWO", True)
    assert known(objective, small_data()) is not first
    assert not torch.equal(norms(model), before)


def test_closures_of_the_same_code_are_told_apart() -> None:
    def dividing(by_batch: bool) -> Any:
        def own(model: nn.Module, batch: Any) -> Tensor:
            return loss(model, batch) / (len(batch[1]) if by_batch else 1)

        return own

    model = Net()
    norms(model, loss_fn=dividing(False))
    with pytest.raises(gn.CoupledSamplesError):
        norms(model, loss_fn=dividing(True))


def test_the_same_closure_made_again_is_known() -> None:
    objectives = [Objective(model, lambda m, b: loss(m, b)) for model in [Net()] * 2]
    first, second = (known(objective, small_data()) for objective in objectives)
    assert first is second
    criteria = [gn.supervised(nn.CrossEntropyLoss()) for _ in range(2)]
    first, second = (known(Objective(objectives[0].model, c), small_data()) for c in criteria)
    assert first is second


INPUTS, LABELS = small_data()


@pytest.mark.parametrize(
    "batch",
    [
        (INPUTS[:, None], LABELS),
        (INPUTS.float(), LABELS),
        [INPUTS, LABELS],
        (INPUTS[:3], LABELS[:3]),
        (INPUTS, torch.zeros_like(LABELS)),
    ],
    ids=["dimensions", "dtype", "nesting", "few samples", "equal labels"],
)
def test_findings_hold_for_batches_of_one_kind(batch: Any) -> None:
    objective = Objective(Net(), loss)
    assert known(objective, (INPUTS + 1, LABELS)) is known(objective, (INPUTS, LABELS))
    assert known(objective, batch) is not known(objective, (INPUTS, LABELS))


@pytest.mark.parametrize(
    "unit", [Unit("group"), Unit(size=2), Unit(is_replayed=True)], ids=["kind", "size", "replayed"]
)
def test_findings_hold_for_one_unit(unit: Unit) -> None:
    model = Net()
    of_samples = known(Objective(model, loss), small_data())
    assert known(Objective(model, loss, unit), small_data()) is not of_samples


def test_findings_hold_for_one_precision_and_for_the_parameters_that_are_trained() -> None:
    model = Net()
    objective = Objective(model, loss)
    first = known(objective, small_data())
    with torch.autocast("cpu", torch.bfloat16):
        assert known(objective, small_data()) is not first
    model.first.requires_grad_(False)
    assert known(objective, small_data()) is not first


def test_nothing_is_kept_where_a_collate_function_puts_samples_together() -> None:
    objective, batch = Objective(Net(), loss), Ragged(torch.arange(2), Items([0, 1], list))
    known(objective, batch)["number"] = 1
    assert known(objective, batch) == {}


def test_whole_numbers_of_every_kind_are_read() -> None:
    """torch has no extremes of most kinds without a sign."""
    data, labels = torch.arange(12).view(6, 2), torch.zeros(6).long()

    def own(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0].double()), batch[1], reduction="none")

    model = nn.Linear(2, 3).double()
    plain = norms(model, (data, labels), own)
    for dtype in (torch.uint8, torch.int16, torch.uint16, torch.uint32, torch.uint64):
        assert torch.equal(norms(model, (data.to(dtype), labels), own), plain)


def test_functions_of_torch_and_of_math_are_not_looked_into() -> None:
    """They name hundreds of others, and these name others again."""

    def own(model: nn.Module, batch: Any) -> Tensor:
        return sqrt(4) * cross_entropy(model(batch[0]), batch[1], reduction="none")

    assert len(repr(module._of(own, module.OF_LOSS))) < 1000


def test_functions_of_this_package_are_looked_into_where_they_hold_something() -> None:
    def losses(model: nn.Module, batch: Any) -> Tensor:
        return loss(model, batch)

    assert module._of(known, module.OF_LOSS) == id(known)
    assert module._of(losses, module.OF_LOSS) != id(losses)
    holding = without_autocast(losses)  # a closure made in this package
    assert module._of(holding, module.OF_LOSS) != id(holding)


def test_labels_that_do_not_count_are_another_kind_of_batch() -> None:
    """A loss over the count of labels is coupled only where some do not count."""

    def own(model: nn.Module, batch: Any) -> Tensor:
        counted = (batch[1] >= 0).double().mean()
        return F.cross_entropy(model(batch[0]), batch[1], reduction="none") / counted

    model, (inputs, labels) = Net(), small_data()
    norms(model, loss_fn=own)
    ignored = labels.masked_fill(torch.arange(len(labels)) % 3 == 0, -100)
    with pytest.raises(gn.CoupledSamplesError):
        norms(model, (inputs, ignored), own)


def test_what_no_signature_tells_of_is_noticed_by_the_losses() -> None:
    model = Net()
    norms(model)
    gn.sharpness(model, loss, small_data())
    model.deep[0]["flags"].centres = True  # deeper than is looked into
    with pytest.raises(gn.CoupledSamplesError, match=r"differ from the same samples' losses"):
        norms(model)
    assert gn.gradient_moments(model, loss, small_data()).group_size > 1
    found, fresh = (
        float(gn.sharpness(own, loss, small_data()).values[0])
        for own in (model, copy.deepcopy(model))
    )
    assert found == fresh
    model.deep[0]["flags"].centres = False
    assert torch.equal(norms(model), norms(copy.deepcopy(model)))


class Gated(nn.Module):
    """Samples are coupled through a gate that is closed at first."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)
        self.drop, self.gate = nn.Dropout(0.0), nn.Parameter(torch.zeros(5))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(torch.tanh(self.first(x)))
        return self.last(x + self.gate * (x - x.mean(0)))


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_a_parameter_that_couples_the_samples_is_noticed(rate: float) -> None:
    """Also where the losses are random."""
    model = Gated()
    model.drop.p = rate
    assert gn.gradient_moments(model, loss, small_data()).group_size == 1
    nn.init.constant_(model.gate, 0.7)
    found, fresh = (
        gn.gradient_moments(own, loss, small_data()) for own in (model, copy.deepcopy(model))
    )
    assert found.group_size == fresh.group_size > 1
    assert float(found.trace_cov) == float(fresh.trace_cov)


@pytest.mark.parametrize("couple", ["before", "behind", "flipped"])
def test_samples_may_depend_on_any_others(couple: str) -> None:
    others = {
        "before": lambda x: x.cumsum(0) - x,
        "behind": lambda x: x.flip(0).cumsum(0).flip(0) - x,
        "flipped": lambda x: x.flip(0),
    }[couple]
    strength = torch.zeros((), dtype=torch.float64)

    def own(model: nn.Module, batch: Any) -> Tensor:
        return loss(model, (batch[0] + strength * others(batch[0]), batch[1]))

    model = Net()
    norms(model, loss_fn=own)
    strength.fill_(0.3)
    with pytest.raises(gn.CoupledSamplesError):
        norms(model, loss_fn=own)


def test_random_numbers_that_no_signature_tells_of_are_noticed() -> None:
    state: list[Any] = [{"more": [{"drops": False}]}]

    def own(model: nn.Module, batch: Any) -> Tensor:
        outputs = model(batch[0])
        if state[0]["more"][0]["drops"]:
            outputs = F.dropout(outputs, 0.5)
        return F.cross_entropy(outputs, batch[1], reduction="none")

    model = Net()
    assert gn.gradient_moments(model, own, small_data()).population == SAMPLES
    state[0]["more"][0]["drops"] = True
    assert gn.gradient_moments(model, own, small_data()).population == float("inf")


def test_a_plan_of_other_operations_is_made_anew() -> None:
    """Time first or samples first, by a flag that no signature tells of."""

    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.lstm, self.deep = nn.LSTM(3, 4), [{"flags": SimpleNamespace(turned=False)}]
            self.double()

        def forward(self, x: Tensor) -> Tensor:
            if self.deep[0]["flags"].turned:
                return self.lstm(x.transpose(0, 1).flip(0))[0].transpose(0, 1).mean(1)
            return self.lstm(x.transpose(0, 1))[0].transpose(0, 1).mean(1)

    data = torch.randn(12, 12, 3).double(), torch.zeros(12).long()
    model = Turned()
    norms(model, data)
    model.deep[0]["flags"].turned = True
    torch.testing.assert_close(norms(model, data), norms(copy.deepcopy(model), data))


def test_draws_that_cannot_be_set_back_are_noticed() -> None:
    model, source = Net(), np.random.default_rng(0)
    drops(model)
    state: list[Any] = [{"more": [{"scales": False}]}]

    def own(model: nn.Module, batch: Any) -> Tensor:
        losses = loss(model, batch)
        return losses * source.random() if state[0]["more"][0]["scales"] else losses

    gn.gradient_moments(model, own, small_data())
    state[0]["more"][0]["scales"] = True
    with pytest.raises(gn.RandomLossError, match=r"from the same random state gave different"):
        gn.gradient_moments(model, own, small_data())


class Routed(nn.Module):
    """Experts that are called only where a sample goes to them: other operations in each batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.experts = nn.ModuleList(nn.Linear(4, 3) for _ in range(3)).double()

    def forward(self, x: Tensor) -> Tensor:
        chosen = (x[:, 0] > 0).long() + (x[:, 0] > 1).long()
        out = x.new_zeros(len(x), 3)
        for k, expert in enumerate(self.experts):
            where = (chosen == k).nonzero().flatten()
            if len(where):
                out = out.index_add(0, where, expert(x[where]))
        return out


def test_models_whose_operations_depend_on_the_data_are_measured_all_the_same() -> None:
    model, (inputs, labels) = Routed(), small_data()
    for part in (slice(0, 40), slice(0, 7), slice(5, 30), slice(0, 40)):
        batch = inputs[part], labels[part]
        one = [
            loss(model, (batch[0][k : k + 1], batch[1][k : k + 1])).sum()
            for k in range(len(batch[1]))
        ]
        truth = []
        for own in one:
            found = torch.autograd.grad(own, list(model.parameters()), allow_unused=True)
            truth.append(sum(float(g.square().sum()) for g in found if g is not None))
        torch.testing.assert_close(norms(model, batch), torch.tensor(truth).double())


def test_a_model_is_not_kept_alive() -> None:
    model = Net()
    held = [model]
    norms(model, loss_fn=lambda m, b: loss(m, b) * len(held))
    gone = weakref.ref(model)
    held.clear()
    del model
    gc.collect()
    assert gone() is None


def test_few_kinds_are_kept_of_a_model() -> None:
    objective = Objective(Net(), loss)
    for k in range(2 * KEPT):
        objective.model.centres = k  # type: ignore[assignment]
        known(objective, small_data())["number"] = k
    kept = module._MODELS[objective.model]
    assert sorted(found["number"] for found in kept.values()) == list(range(KEPT, 2 * KEPT))


def test_those_in_use_are_kept() -> None:
    objective = Objective(Net(), loss)
    first = known(objective, small_data())
    for k in range(2 * KEPT):
        objective.model.centres = k + 2  # type: ignore[assignment]
        known(objective, small_data())
        objective.model.centres = False  # type: ignore[assignment]
        assert known(objective, small_data()) is first


def test_containers_that_hold_themselves_end() -> None:
    model = Net()
    own: list[Any] = [model]
    own.append(own)
    model.deep.append({"own": own})  # type: ignore[dict-item]
    assert torch.equal(norms(model), norms(model))


def test_a_layer_that_holds_the_whole_model_is_measured() -> None:
    model = Net()
    before = norms(model)
    object.__setattr__(model.first, "parent", model)
    assert torch.equal(norms(model), before)


class Raises:
    """Nothing of it can be looked at."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def test_nothing_is_kept_with_objects_that_cannot_be_looked_into() -> None:
    model = Net()
    before = norms(model)
    model.deep = Raises()  # type: ignore[assignment]
    model.forward = lambda x: model.last(model.first(x).tanh())  # type: ignore[method-assign]
    assert known(Objective(model, loss), small_data()) == {}
    assert torch.equal(norms(model), before)


def test_scripted_models_are_measured_again_and_again() -> None:
    model = torch.jit.script(nn.Sequential(nn.Linear(4, 3)).double())
    assert torch.equal(norms(model), norms(model))
