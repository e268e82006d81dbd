"""Preconditioned operators against their formula, and against real steps."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from tests.cases import CASES, features, labelled, mlp
from tests.dense import dense

OPTIMIZERS: dict[str, Any] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.3),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.3),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.3),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, weight_decay=0.3),
    "centred": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_preconditioned_operator_has_the_eigenvalues_of_its_formula(name: str) -> None:
    model = mlp().double()
    loss_fn, batch = nn.CrossEntropyLoss(), labelled()
    optimizer = OPTIMIZERS[name](model.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        loss_fn(model(batch[0]), batch[1]).backward()
        optimizer.step()
    matrix = gn.Preconditioned(gn.Hessian(model, loss_fn, batch), optimizer)
    h = dense(gn.Hessian(model, loss_fn, batch))
    scale = []
    for p in model.parameters():
        state = optimizer.state[p]
        if "exp_avg_sq" in state:
            v = state["max_exp_avg_sq"] if name == "amsgrad" else state["exp_avg_sq"]
            scale.append((v / (1 - 0.999**3)).sqrt() + 1e-8)
        elif "square_avg" in state:
            v = state["square_avg"] - (state["grad_avg"] ** 2 if name == "centred" else 0)
            scale.append(v.sqrt() + 1e-8)
        else:
            scale.append(torch.ones_like(p))
    scale = torch.cat([s.detach().flatten() for s in scale])
    eye = torch.eye(43, dtype=torch.float64)
    inside = 0.3 if name in ("SGD", "Adam", "RMSprop") else 0.0
    outside = 0.3 if name == "AdamW" else 0.0
    truth = torch.diag(1 / scale) @ (h + inside * eye) + outside * eye  # not symmetric
    own = torch.linalg.eigvals(truth).real.sort().values
    torch.testing.assert_close(torch.linalg.eigvalsh(dense(matrix)), own, rtol=1e-6, atol=1e-6)
    assert matrix.T is matrix


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_contract_as_the_preconditioned_operator_says(name: str, parts: int) -> None:
    """Two steps from points δ apart, the averages held, differ by δ - lr(P⁻¹(H + D) + E)δ."""
    model, loss_fn, batch = mlp().double(), nn.CrossEntropyLoss(), labelled()

    def optimizer_of(net: nn.Module) -> Any:
        parameters = list(net.parameters())
        if parts == 1:
            return OPTIMIZERS[name](parameters)
        return OPTIMIZERS[name](
            [{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.03}]
        )

    optimizer = optimizer_of(model)
    for _ in range(3):
        optimizer.zero_grad()
        loss_fn(model(batch[0]), batch[1]).backward()
        optimizer.step()
    held = {"betas": (0.0, 1 - 1e-15), "alpha": 1.0}
    for group in optimizer.param_groups:
        if "betas" in group:  # v/(1 - β₂ᵗ) as it is, for steps to come
            correction = 1 - group["betas"][1] ** 3
            for state in optimizer.state.values():
                for key in {"exp_avg_sq", "max_exp_avg_sq"} & state.keys():
                    state[key].div_(correction)
                state["step"].fill_(10.0**17)
        group.update({key: value for key, value in held.items() if key in group})
    matrix = gn.Preconditioned(gn.Hessian(model, loss_fn, batch), optimizer)
    point = nn.utils.parameters_to_vector(model.parameters()).detach()
    delta = 1e-5 * torch.randn(43, dtype=torch.float64)

    def stepped(start: Tensor) -> Tensor:
        twin, memory = copy.deepcopy(model), copy.deepcopy(optimizer.state_dict())
        nn.utils.vector_to_parameters(start, twin.parameters())
        own = optimizer_of(twin)
        own.load_state_dict(memory)
        loss_fn(twin(batch[0]), batch[1]).backward()
        own.step()
        return nn.utils.parameters_to_vector(twin.parameters()).detach()

    forward, backward = stepped(point + delta), stepped(point - delta)
    turned = (2 * delta - (forward - backward)) / (2 * optimizer.param_groups[0]["lr"])
    # P^½ (P⁻¹(H + D) + E) δ is the operator on P^½ δ
    root = matrix._preconditioner.flat(matrix._preconditioner.root, delta).reciprocal()
    torch.testing.assert_close(root * turned, matrix @ (root * delta), rtol=1e-4, atol=1e-10)


def test_what_cannot_be_preconditioned_is_said() -> None:
    model, loss_fn, batch = CASES[0].build()
    hessian = gn.Hessian(model, loss_fn, batch)
    fresh = torch.optim.Adam(model.parameters())
    with pytest.raises(gn.ArgumentError, match=r"holds no state for '0\.weight' yet: take a step"):
        gn.Preconditioned(hessian, fresh)
    with pytest.raises(gn.ArgumentError, match="preconditioner of Adadelta is not known"):
        gn.Preconditioned(hessian, torch.optim.Adadelta(model.parameters()))
    with pytest.raises(gn.ArgumentError, match=r"does not hold parameter '0\.weight'"):
        gn.Preconditioned(hessian, torch.optim.SGD(model[2].parameters()))
    groups = [{"params": model[0].parameters(), "lr": 0.0}, {"params": model[2].parameters()}]
    with pytest.raises(gn.ArgumentError, match=r"unit of the others and must not be 0.*0\.1"):
        gn.Preconditioned(hessian, torch.optim.SGD(groups, lr=0.1))
    with pytest.raises(gn.ArgumentError, match="maximize=True, but limits of the"):
        gn.Preconditioned(hessian, torch.optim.SGD(model.parameters(), maximize=True))


def test_rows_that_are_samples_are_no_parameters() -> None:
    model = nn.Linear(5, 1).double()
    rows = gn.PerSampleGradients(model, nn.MSELoss(), (features(5), features(1)))
    assert rows.shape == (6, 6)
    assert isinstance(
        rows @ {name: torch.ones_like(p) for name, p in model.named_parameters()}, Tensor
    )
    with pytest.raises(gn.OperatorError, match="square in parameters"):
        rows.restrict(["weight"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for other in (rows, 2 * gn.Hessian(model, nn.MSELoss(), (features(5), features(1)))):
        with pytest.raises(gn.OperatorError, match="must be a Hessian or GaussNewton"):
            gn.Preconditioned(other, optimizer)


def test_a_centred_average_below_its_mean_squared_is_rounding() -> None:
    model, loss_fn, batch = CASES[0].build()
    optimizer = torch.optim.RMSprop(model.parameters(), centered=True, eps=1e-4)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    for state in optimizer.state.values():
        state["square_avg"].fill_(1 - 1e-12)
        state["grad_avg"].fill_(1.0)
    hessian = gn.Hessian(model, loss_fn, batch)
    found = dense(gn.Preconditioned(hessian, optimizer))
    torch.testing.assert_close(found, dense(hessian) / 1e-4)
