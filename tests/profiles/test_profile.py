"""One call, the whole way; the person's objects as they were."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gradnoise as gn
from tests import oracles
from tests.cases import CASES, CORE, Case, labelled, named
from tests.reports import toy_profile


@pytest.mark.parametrize("case", CASES, ids=named)
def test_any_model_gets_a_report(case: Case) -> None:
    model, loss_fn, batch = case.build()
    profile = gn.profile(model, loss_fn, batch, probes=4)
    truth = oracles.dense(model, loss_fn, batch, second=False)
    assert float(profile.loss) == pytest.approx(float(truth.losses.mean()))
    assert float(profile.trace_cov) == pytest.approx(oracles.trace_cov(truth.gradients), rel=1e-8)
    assert model.__class__.__name__ in str(profile)


FORMS = {
    "one batch": lambda x, y: (x, y),
    "uneven batches": lambda x, y: [(x[:5], y[:5]), (x[5:], y[5:])],
    "data set": lambda x, y: TensorDataset(x, y),
    "loader": lambda x, y: DataLoader(TensorDataset(x, y), batch_size=4),
    "shuffled loader": lambda x, y: DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_the_data_does_not_change_the_numbers(form: str) -> None:
    model, loss_fn, (x, y) = CORE[0].build()
    profile = gn.profile(model, loss_fn, FORMS[form](x, y), tol=1e-9, probes=2)
    truth = oracles.dense(model, loss_fn, (x, y))
    g = truth.gradients.mean(0)
    assert float(profile.grad_sq_norm) == pytest.approx(float(g @ g), rel=1e-9)
    assert float(profile.grad_curvature) == pytest.approx(float(g @ truth.hessian @ g), rel=1e-9)
    top = float(torch.linalg.eigvalsh(truth.hessian)[-1])
    assert float(profile.sharpness) == pytest.approx(top, rel=1e-8)
    assert profile.batch_size == (4 if "loader" in form else None)


def everything(model: nn.Module) -> Any:
    return (
        [module.training for module in model.modules()],
        [(id(b), b.tolist()) for b in model.buffers()],
        [
            (id(p), p.tolist(), p.requires_grad, id(p.grad), p.grad.tolist())
            for p in model.parameters()
        ],
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
        random.getstate(),
        len(model._forward_hooks),
    )


class Interrupt(KeyboardInterrupt):
    pass


@pytest.mark.parametrize("stop_after", [None, 1, 4, 9, 14])
def test_the_model_is_as_found_even_when_interrupted(stop_after: int | None) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 3))
    inputs, labels = labelled()
    model.eval()
    model[0].train()
    model(inputs.float()).sum().backward()
    model.register_forward_hook(lambda *_: None)
    calls = 0

    def loss(model: nn.Module, batch: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == stop_after:
            raise Interrupt
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    before = everything(model)
    try:
        gn.profile(model, loss, (inputs.float(), labels), probes=2)
        assert stop_after is None
    except Interrupt:
        assert stop_after is not None
    assert everything(model) == before


BAD_DATA: dict[str, tuple[Callable[[Tensor, Tensor], Any], str]] = {
    "empty": (lambda x, y: (x[:0], y[:0]), "got no samples"),
    "one sample": (lambda x, y: (x[:1], y[:1]), "got 1 sample"),
    "a one-shot generator": (lambda x, y: iter([(x, y)]), "one-shot"),
    "counts that differ": (lambda x, y: (x, y[:4]), "agree on the number of samples"),
    "a NaN in the inputs": (lambda x, y: (x / 0, y), "the loss is not finite"),
    "labels out of range": (lambda x, y: (x, y + 5), "out of bounds"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_leaves_the_model_as_found(name: str) -> None:
    spoil, message = BAD_DATA[name]
    x, y = torch.randn(6, 4), torch.randint(3, (6,))
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5).eval(), nn.Linear(5, 3))
    model(x).sum().backward()
    model.register_forward_hook(lambda *_: None)
    before = everything(model)
    with pytest.raises((gn.GradNoiseError, IndexError), match=message):
        gn.profile(model, nn.CrossEntropyLoss(), spoil(x, y))
    assert everything(model) == before


def test_in_the_middle_of_a_training_step_nothing_is_disturbed() -> None:
    model, loss_fn, (x, y) = CORE[0].build()
    loss = loss_fn(model(x), y)
    gn.profile(model, loss_fn, (x, y), probes=2)
    loss.backward()
    twin, _, _ = CORE[0].build()
    loss_fn(twin(x), y).backward()
    assert torch.equal(model[0].weight.grad, twin[0].weight.grad)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_off(context: Any) -> None:
    case = CORE[0].build()
    outside = gn.profile(*case, probes=2)
    with context():
        assert gn.profile(*case, probes=2) == outside


def test_the_same_seed_gives_the_same_profile() -> None:
    options = {"max_samples": 50, "seed": 3}
    assert toy_profile(**options) == toy_profile(**options)
    assert toy_profile(**options) != toy_profile(max_samples=50, seed=4)


def test_the_optimizer_is_read_and_not_touched() -> None:
    model, loss_fn, batch = CORE[0].build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.8, 0.99))
    p = gn.profile(model, loss_fn, batch, optimizer=optimizer, batch_size=2, probes=2)
    assert (p.optimizer.name, p.optimizer.lr, p.optimizer.momentum) == ("AdamW", 3e-3, 0.8)
    assert (p.setting.batch_size, p.setting.lr) == (2, None)  # no rate of plain SGD to compare
    assert optimizer.state == {}
    assert any("not of AdamW" in warning for warning in p.warnings)
    assert any("weight decay of 0.01" in warning for warning in p.warnings)


def test_bfloat16_gives_the_same_report_with_fewer_digits() -> None:
    torch.manual_seed(1)
    model = nn.Linear(4, 3)
    x, y = torch.randn(200, 4), torch.randint(3, (200,))
    exact = gn.profile(model, nn.CrossEntropyLoss(), (x, y))
    rough = gn.profile(model.bfloat16(), nn.CrossEntropyLoss(), (x.bfloat16(), y), tol=0.02)
    for name in ("loss", "trace_cov", "sharpness", "simple_noise_scale"):
        assert float(getattr(rough, name)) == pytest.approx(float(getattr(exact, name)), rel=0.06)
    assert any("2 to 3 significant digits" in warning for warning in rough.warnings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": 1}, r"`probes` must be a whole number from 2 on; got 1"),
        ({"level": 1.5}, r"`level` is a coverage.*got 1.5"),
        ({"optimizer": "sgd"}, r"`optimizer` must be a torch.optim.Optimizer; got str"),
        ({"batch_size": -1}, r"`batch_size` must be a whole number from 1 on; got -1"),
        ({"seed": 1.5}, r"`seed` must be a whole number from 0 on; got 1.5"),
        ({"tol": -1.0}, r"`tol` must be positive"),
        ({"max_samples": 0}, r"`max_samples` must be a whole number from 2"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        toy_profile(**options)


def test_a_profile_is_silent_by_default(capfd: pytest.CaptureFixture[str]) -> None:
    toy_profile(probes=4)
    assert capfd.readouterr() == ("", "")


def test_saved_and_loaded_it_is_the_same(tmp_path: Any) -> None:
    p = toy_profile(max_samples=50)
    p.save(tmp_path / "p.json")
    assert gn.Profile.load(tmp_path / "p.json") == p


def test_whole_numbers_of_numpy_are_whole_numbers(tmp_path: Any) -> None:
    own = {"population": 1000, "batch_size": 8, "max_samples": 50, "seed": 1, "probes": 4}
    p = toy_profile(**{name: np.int64(value) for name, value in own.items()}, tol=np.float32(1e-3))
    assert p == toy_profile(**own, tol=1e-3)
    p.save(tmp_path / "p.json")
    assert gn.Profile.load(tmp_path / "p.json") == p


def larger_batches(**options: Any) -> gn.Profile:
    """64 samples in a loader of batches of 128."""
    torch.manual_seed(0)
    model, data = nn.Linear(4, 3), TensorDataset(torch.randn(64, 4), torch.randint(0, 3, (64,)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    loader = DataLoader(data, batch_size=128, shuffle=True)
    return gn.profile(model, nn.CrossEntropyLoss(), loader, optimizer=optimizer, **options)


def test_a_batch_larger_than_the_data_is_all_of_it() -> None:
    p = toy_profile(batch_size=16)
    for momentum in (0.0, 0.9):
        assert repr(p.mean_square_lr(1000, momentum)) == repr(p.mean_square_lr(200, momentum))
        assert p.limits(1000, momentum).batch_size == 200
    assert p.regime(1000) == p.regime(200)
    assert float(p.mean_square_lr(1000)) == pytest.approx(float(p.stable_lr()))
    assert p.temperature(0.1, 1000) == p.temperature(0.1, 200) == 0
    # formulas with 1/B, as published, go on to the limit of no noise
    for call in (p.max_lr, p.greedy_lr):
        assert float(call(10**12)) > float(call(200))
    assert p.limits(1000).reading.startswith("At B = 200")
    with pytest.raises(gn.ArgumentError, match="`batch_size` must be a positive number; got -1"):
        p.regime(-1)


@pytest.mark.parametrize("given", [None, 100])
def test_a_loader_of_larger_batches_than_the_data_is_reported_on(
    given: int | None, tmp_path: Any
) -> None:
    p = larger_batches(batch_size=given)
    notes = [text for text in p.warnings if "is larger than the data" in text]
    assert notes == [
        f"batch size {given or 128} is larger than the data: this report is about batches of all "
        f"64 samples"
    ]
    assert (p.batch_size, p.setting.batch_size) == (64, 64)
    assert str(p).count("larger than the data") == 1
    assert "Your batch size 64 is" in str(p.recommend())
    p.plot(tmp_path / "p.png")
    older = replace(p, batch_size=128)  # as a file of an earlier version may say
    assert str(older) == str(p)


def test_a_distribution_has_no_batch_that_is_all_of_it() -> None:
    p = larger_batches(population="distribution")
    assert p.batch_size == 128
    assert not any("larger than the data" in text for text in p.warnings)


@pytest.mark.cuda
def test_on_a_cuda_device_the_numbers_are_those_of_the_cpu() -> None:
    model, loss_fn, batch = CORE[0].build()
    here = gn.profile(model, loss_fn, batch, tol=1e-9, probes=4)
    there = gn.profile(model.cuda(), loss_fn, batch, tol=1e-9, probes=4)
    for name, estimate in here.estimates.items():
        assert float(there.estimates[name]) == pytest.approx(float(estimate), rel=1e-6, nan_ok=True)


def test_in_a_session_it_is_a_line_and_in_a_notebook_its_report() -> None:
    p = toy_profile(probes=4)
    assert repr(p).startswith("<Profile of ")
    assert f"noise_scale={p.noise_scale}, sharpness={p.sharpness}>" in repr(p)
    odd = replace(p, model="A<b>")
    assert "A&lt;b&gt;" in odd._repr_html_()
    assert odd._repr_html_().startswith("<pre>What to do")
