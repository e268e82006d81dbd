"""The loss of a LightningModule; a stand-in has the same attributes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradnoise import LossError, lightning, model_loss

X, Y = torch.randn(6, 3), torch.randint(2, (6,))
BATCH = (X, Y)


class Trainer:
    def __init__(self) -> None:
        self.logged: list[str] = []
        self.global_step = 7


class Lit(nn.Module):
    """What `lightning.LightningModule` has of this."""

    automatic_optimization = True

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 2)
        self._trainer: Trainer | None = None
        self.counter = Counter()

    @property
    def trainer(self) -> Trainer:
        if self._trainer is None:
            raise RuntimeError(f"{type(self).__qualname__} is not attached to a `Trainer`.")
        return self._trainer

    @property
    def global_step(self) -> int:
        return self._trainer.global_step if self._trainer else 0

    def log(self, name: str, value: Any, **_options: Any) -> None:
        self.trainer.logged.append(name)

    def log_dict(self, values: dict[str, Any], **_options: Any) -> None:
        for name in values:
            self.log(name, values[name])

    def print(self, *_args: Any) -> None:
        self.trainer.logged.append("print")

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("loss", loss, prog_bar=True)
        self.log_dict({"step": self.global_step, "index": batch_idx})
        self.print("a step")
        self.counter(y)
        return loss


class Counter(nn.Module):
    """As a metric of torchmetrics: its state is a tensor that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.total = torch.zeros(())

    def forward(self, y: Tensor) -> None:
        self.total += y.sum() + 1


class InMapping(Lit):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": super().training_step(batch, batch_idx), "predictions": batch[0]}


class BatchAlone(Lit):
    def training_step(self, batch: Any) -> Any:  # type: ignore[override]
        return super().training_step(batch, 0)


class SecondArgument(Lit):
    def training_step(self, batch: Any, _: int) -> Any:
        assert _ == 0
        return super().training_step(batch, 3)


class OfLoader(Lit):
    def training_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("kind", [Lit, InMapping, BatchAlone, SecondArgument, OfLoader])
def test_the_loss_is_that_of_the_modules_own_step(kind: Any, attached: bool) -> None:
    module = kind()
    module._trainer = Trainer() if attached else None
    loss = lightning(module)(module, BATCH)
    expected = F.cross_entropy(module.net(X), Y)
    assert loss.shape == ()
    assert torch.equal(loss, expected)
    ours, theirs = (torch.autograd.grad(item, module.net.weight)[0] for item in (loss, expected))
    assert torch.equal(ours, theirs)


def test_nothing_is_reported_and_everything_is_as_found() -> None:
    module = Lit()
    module._trainer = Trainer()
    module.counter.total += 5
    before, total = dict(vars(module)), module.counter.total
    lightning(module)(module, BATCH)
    assert vars(module) == before
    assert module._trainer.logged == []
    assert module.counter.total is total
    assert total == 5
    module.log("after", 1)
    assert module._trainer.logged == ["after"]


def test_a_log_of_the_users_own_is_put_back_also_after_an_error() -> None:
    module = Lit()
    own = lambda *_args, **_options: None  # noqa: E731
    module.log = own  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="not enough values"):
        lightning(module)(module, (X,))
    assert module.log is own
    assert "print" not in vars(module)


def test_copies_and_compiled_modules_are_measured_as_themselves() -> None:
    module = Lit()
    loss_fn = lightning(module)
    twin = copy.deepcopy(module)
    with torch.no_grad():
        twin.net.weight.zero_()
        twin.net.bias.zero_()
    torch.testing.assert_close(loss_fn(twin, BATCH), torch.tensor(2.0).log())
    compiled = torch.compile(twin, backend="eager")
    torch.testing.assert_close(loss_fn(compiled, BATCH), torch.tensor(2.0).log())  # type: ignore[arg-type]


class Manual(Lit):
    automatic_optimization = False


class NoLoss(Lit):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None


class NeedsTrainer(Lit):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * self.trainer.global_step


class SeveralOptimizers(Lit):
    def training_step(self, batch: Any, batch_idx: int, optimizer_idx: int) -> Any:  # type: ignore[override]
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            nn.Linear(3, 2),
            r"LightningModule with a training_step; got Linear\..*gn\.model_loss",
        ),
        (Manual(), r"Manual optimizes by itself \(automatic_optimization=False\).*Write a loss_fn"),
    ],
)
def test_what_is_no_module_with_a_loss_is_an_error(module: Any, message: str) -> None:
    with pytest.raises(LossError, match=message):
        lightning(module)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (NoLoss(), r"training_step of NoLoss returned NoneType: no loss"),
        (NeedsTrainer(), r"asks for its trainer, and there is none\. Measure the module while"),
        (SeveralOptimizers(), r"training_step\(batch.*optimizer_idx: 'int'\).*called with a batch"),
    ],
)
def test_a_step_without_a_loss_of_its_batch_is_an_error(module: Any, message: str) -> None:
    with pytest.raises(LossError, match=message):
        lightning(module)(module, BATCH)


def test_a_module_inside_is_not_what_is_measured() -> None:
    module = Lit()
    message = r"made for Lit, and the model.*is Linear: measure the LightningModule itself, gn"
    with pytest.raises(LossError, match=message):
        lightning(module)(module.net, BATCH)
    assert lightning(module)(module, BATCH).shape == ()


def test_the_cures_of_these_errors_work() -> None:
    attached = NeedsTrainer()
    attached._trainer = Trainer()
    assert lightning(attached)(attached, BATCH).shape == ()
    several, manual = SeveralOptimizers(), Manual()

    def first(model: Any, batch: Any) -> Tensor:
        return F.cross_entropy(model.net(batch[0]), batch[1])

    assert torch.equal(first(several, BATCH), F.cross_entropy(several.net(X), Y))
    assert torch.equal(first(manual, BATCH), F.cross_entropy(manual.net(X), Y))
    assert model_loss()(nn.L1Loss(), (X, X)) == 0
