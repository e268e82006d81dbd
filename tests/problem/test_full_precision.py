"""Autocast around, in the model and in the loss has no effect on second derivatives."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.problem.full_precision import full_precision

CPU = torch.device("cpu")
HALF: dict[str, Any] = {"device_type": "cpu", "dtype": torch.bfloat16}


def is_on() -> bool:
    return torch.is_autocast_enabled("cpu")


def test_threads_that_overlap_leave_it_as_found() -> None:
    """The one that began first ends first: what it found is not what the other has to leave."""
    own, both = torch.autocast.__enter__, threading.Barrier(2, timeout=10)
    seen: list[bool] = []

    def first() -> None:
        with full_precision(CPU):
            both.wait()
        both.wait()

    def second() -> None:
        both.wait()
        with full_precision(CPU):
            both.wait()
            seen.append(torch.autocast(**HALF)(is_on)())

    def late() -> None:
        with full_precision(CPU):
            inside.set()
            end.wait(10)

    inside, end = threading.Event(), threading.Event()
    threads = [threading.Thread(target=target) for target in (late, first, second)]
    threads[0].start()
    inside.wait(10)
    for thread in threads[1:]:
        thread.start()
    assert torch.autocast(**HALF)(is_on)()  # here nothing is measured
    end.set()
    for thread in threads:
        thread.join()
    assert seen == [False]
    assert torch.autocast.__enter__ is own
    assert torch.autocast(**HALF)(is_on)()


def test_every_autocast_is_off_inside_and_as_found_afterwards() -> None:
    own = torch.autocast.__enter__
    given = torch.autocast(**HALF)
    with given, full_precision(CPU):
        assert not is_on()
        with torch.autocast(**HALF), full_precision(CPU):
            assert not is_on()
        assert not torch.autocast(**HALF)(is_on)()
        with given:
            assert not is_on()
        elsewhere: list[bool] = []
        thread = threading.Thread(target=lambda: elsewhere.append(torch.autocast(**HALF)(is_on)()))
        thread.start()
        thread.join()
        assert elsewhere == [True]
    assert torch.autocast.__enter__ is own
    with given:
        assert is_on()
    with pytest.raises(KeyError, match="inside"), full_precision(CPU):
        raise KeyError("inside")
    assert torch.autocast.__enter__ is own


class Autocasting(nn.Module):
    """As accelerate and Fabric hand models out."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(**HALF):
            return self.inner(x).float()


class ByHand(nn.Module):
    """Relies on autocast: its activations are in half precision, its weights are not."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(**HALF):
            return self.inner(x.bfloat16()).float()


def setting() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    return model, (torch.randn(64, 6), torch.randint(3, (64,)))


def in_half(model: nn.Module, batch: Any) -> Tensor:
    with torch.autocast(**HALF):
        return F.cross_entropy(model(batch[0]).float(), batch[1], reduction="none")


@pytest.mark.parametrize("hvp", ["auto", "kept", "fresh", "finite"])
def test_curvature_is_that_of_full_precision(hvp: str) -> None:
    model, batch = setting()
    plain = gn.sharpness(model, nn.CrossEntropyLoss(), batch).values
    for other, loss_fn in ((Autocasting(model), nn.CrossEntropyLoss()), (model, in_half)):
        found = gn.sharpness(other, loss_fn, batch, hvp=hvp)
        torch.testing.assert_close(found.values, plain, rtol=2e-3, atol=0)
    assert float(gn.profile(Autocasting(model), nn.CrossEntropyLoss(), batch).sharpness) > 0


def test_a_model_that_casts_by_hand_is_told_and_the_cures_work() -> None:
    model, batch = setting()
    plain = float(gn.sharpness(model, nn.CrossEntropyLoss(), batch).values)
    by_hand = ByHand(model)
    with pytest.raises(gn.CurvatureError, match="cannot compute in full precision"):
        gn.Hessian(by_hand, nn.CrossEntropyLoss(), batch, hvp="kept")
    p = gn.profile(by_hand, nn.CrossEntropyLoss(), batch)
    assert float(p.trace_cov) > 0
    assert any("curvature was not measured: the model cannot compute" in w for w in p.warnings)
    for cure in (Autocasting(model), model):
        found = float(gn.sharpness(cure, nn.CrossEntropyLoss(), batch).values)
        assert found == pytest.approx(plain, rel=2e-3)
