"""Operators against the matrices they stand for."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.linalg.convert import as_operator
from gradnoise.linalg.operator import Operator
from gradnoise.operators import hessian as graphs_module
from gradnoise.operators import products as hvp_module
from gradnoise.operators.hessian import MODES
from tests import oracles
from tests.cases import CASES, Case, features, labelled, mlp, named

CLOSE = {"rtol": 1e-9, "atol": 1e-11}


def dense(operator: Operator) -> Tensor:
    return operator @ torch.eye(operator.shape[1], dtype=torch.float64)


@pytest.mark.parametrize("hvp", ["kept", "fresh"])
@pytest.mark.parametrize("case", CASES, ids=named)
def test_the_hessian_is_the_dense_one(case: Case, hvp: str) -> None:
    model, loss_fn, batch = case.build()
    hessian = gn.Hessian(model, loss_fn, batch, hvp=hvp, micro_batch=4)
    truth = oracles.dense(model, loss_fn, batch).hessian
    assert hessian.shape == truth.shape
    torch.testing.assert_close(dense(hessian), truth, **CLOSE)
    torch.testing.assert_close(dense(hessian), truth, **CLOSE)  # again, through what was kept
    assert hessian.T is hessian
    assert hessian.hvp == hvp


@pytest.mark.parametrize("hvp", MODES)
def test_an_empty_parameter_is_no_obstacle_to_any_products(hvp: str) -> None:
    model, loss_fn, batch = CASES[0].build()
    truth = oracles.dense(model, loss_fn, batch).hessian
    model.register_parameter("nothing", nn.Parameter(torch.zeros(0, 3, dtype=torch.float64)))
    found = dense(gn.Hessian(model, loss_fn, batch, hvp=hvp))
    torch.testing.assert_close(found, truth, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 2.0, np.float32(2), np.int64(2)])
def test_any_real_number_scales_an_operator(factor: Any) -> None:
    matrix = as_operator(torch.eye(2, dtype=torch.float64))
    assert (matrix * factor @ torch.ones(2)).tolist() == [2, 2]


@pytest.mark.parametrize("case", CASES[:3], ids=named)
def test_torch_func_says_the_same(case: Case) -> None:
    model, loss_fn, batch = case.build()
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]

    def loss(vector: Tensor) -> Tensor:
        parts = vector.split([shape.numel() for shape in shapes])
        named = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        outputs = torch.func.functional_call(model, named, (batch[0],))
        return loss_fn(outputs, batch[1])

    point = torch.cat([p.detach().flatten() for p in model.parameters()])
    truth = torch.func.hessian(loss)(point)
    torch.testing.assert_close(dense(gn.Hessian(model, loss_fn, batch)), truth, **CLOSE)


FORWARD = [case for case in CASES if case.name not in ("scripted", "sparse embedding")]


@pytest.mark.parametrize("case", FORWARD, ids=named)
def test_forward_mode_gives_the_same(case: Case) -> None:
    model, loss_fn, batch = case.build()
    hessian = gn.Hessian(model, loss_fn, batch, hvp="forward", micro_batch=4)
    truth = oracles.dense(model, loss_fn, batch).hessian
    torch.testing.assert_close(dense(hessian), truth, **CLOSE)


@pytest.mark.parametrize("case", CASES, ids=named)
def test_finite_differences_give_nearly_the_same(case: Case) -> None:
    model, loss_fn, batch = case.build()
    hessian = gn.Hessian(model, loss_fn, batch, hvp="finite", micro_batch=4)
    truth = oracles.dense(model, loss_fn, batch).hessian
    before = [p.detach().clone() for p in model.parameters()]
    off = (dense(hessian) - truth).norm() / truth.norm()
    assert float(off) < 1e-8
    assert all(map(torch.equal, before, model.parameters()))


def test_differences_say_how_far_they_can_be_trusted() -> None:
    inputs, labels = torch.randn(512, 10), torch.randint(3, (512,))
    for activation, fine in ((nn.Tanh(), True), (nn.ReLU(), False)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(10, 50), activation, nn.Linear(50, 3))
        hessian = gn.Hessian(model, nn.CrossEntropyLoss(), (inputs, labels), hvp="finite")
        v = torch.randn(703)
        exact = gn.Hessian(model, nn.CrossEntropyLoss(), (inputs, labels)) @ v
        off = float((hessian @ v - exact).norm() / exact.norm())
        assert (hessian.resolution < 1e-3) is fine
        assert off < 3 * hessian.resolution
        if fine:
            assert gn.lanczos(hessian, tol=1e-2, max_iterations=30).converged
        else:
            with pytest.raises(gn.OperatorError, match=r"are uncertain by .*kinks"):
                gn.lanczos(hessian)


def no_outputs(case: Case) -> bool:
    return case.name in ("layer norm and unused parameters", "scripted")


@pytest.mark.parametrize("case", [c for c in CASES if not no_outputs(c)], ids=named)
def test_the_gauss_newton_matrix_is_the_dense_one(case: Case) -> None:
    model, loss_fn, batch = case.build()
    matrix = gn.GaussNewton(model, loss_fn, batch, micro_batch=4)
    truth = oracles.gauss_newton(model, loss_fn, batch)
    torch.testing.assert_close(dense(matrix), truth, **CLOSE)
    assert float(torch.linalg.eigvalsh(truth).min()) > -1e-12
    assert matrix.T is matrix


@pytest.mark.parametrize("loss", [nn.BCEWithLogitsLoss(), nn.HuberLoss(), nn.CrossEntropyLoss()])
def test_gauss_newton_and_hessian_agree_where_outputs_are_linear(loss: nn.Module) -> None:
    model = nn.Linear(4, 3).double()
    batch = features(), features(3).sigmoid()
    matrix, hessian = (kind(model, loss, batch) for kind in (gn.GaussNewton, gn.Hessian))
    torch.testing.assert_close(dense(matrix), dense(hessian), **CLOSE)


def test_gauss_newton_needs_the_models_outputs() -> None:
    for case in filter(no_outputs, CASES):
        matrix = gn.GaussNewton(*case.build())
        with pytest.raises(
            gn.CurvatureError, match=r"the model's outputs|outputs of a scripted model"
        ):
            matrix @ torch.ones(matrix.shape[1])
    model, x = mlp().double(), features()
    beside = gn.GaussNewton(model, lambda m, b: m(b).sum(1) * m[0].bias.sum(), x)
    with pytest.raises(gn.CurvatureError, match="use no parameter outside"):
        beside @ torch.ones(beside.shape[1])


@pytest.mark.parametrize("case", CASES, ids=named)
def test_the_rows_are_the_per_sample_gradients_and_sigma_their_covariance(case: Case) -> None:
    model, loss_fn, batch = case.build()
    rows = gn.PerSampleGradients(model, loss_fn, batch, micro_batch=4)
    truth = oracles.dense(model, loss_fn, batch, second=False)
    assert rows.shape == truth.gradients.shape
    assert rows.T.shape == truth.gradients.T.shape
    assert rows.T.T is rows
    torch.testing.assert_close(dense(rows), truth.gradients, **CLOSE)
    torch.testing.assert_close(dense(rows.T), truth.gradients.T, **CLOSE)
    sigma = gn.GradientCovariance(model, loss_fn, batch, micro_batch=4)
    torch.testing.assert_close(dense(sigma), truth.covariance, **CLOSE)
    assert sigma.T is sigma


def test_uneven_batches_weigh_by_their_samples() -> None:
    model, loss_fn, (x, y) = CASES[0].build()
    parts = [(x[:1], y[:1]), (x[1:], y[1:])]
    for kind in (gn.Hessian, gn.GaussNewton, gn.GradientCovariance):
        whole = dense(kind(model, loss_fn, (x, y)))
        torch.testing.assert_close(dense(kind(model, loss_fn, parts)), whole)


def test_products_leave_the_model_as_found() -> None:
    model, loss_fn, batch = CASES[0].build()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    for kind in (gn.Hessian, gn.GaussNewton, gn.GradientCovariance):
        kind(model, loss_fn, batch) @ torch.ones(43)
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert model[0].bias.grad is None
    assert not model._forward_hooks


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (torch.ones(42), r"vectors of length 43; got 42"),
        (torch.ones(43, 1, 1), r"a block of vectors or a dict; got \(43, 1, 1\)"),
        ([1.0], r"got list"),
        ({"0.weight": torch.ones(5, 4)}, r"a tensor for each of 0.weight, 0.bias, 2.weight"),
    ],
)
def test_what_does_not_fit_is_an_error(other: object, message: str) -> None:
    with pytest.raises(gn.OperatorError, match=message):
        gn.Hessian(*CASES[0].build()) @ other


def test_vectors_of_parameters_can_be_dicts() -> None:
    model, loss_fn, batch = CASES[0].build()
    named = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    flat = torch.cat([t.reshape(-1) for t in named.values()])
    hessian = gn.Hessian(model, loss_fn, batch)
    product = hessian @ dict(reversed(named.items()))
    assert {name: t.shape for name, t in product.items()} == {n: t.shape for n, t in named.items()}
    torch.testing.assert_close(torch.cat([t.reshape(-1) for t in product.values()]), hessian @ flat)
    rows = gn.PerSampleGradients(model, loss_fn, batch)
    torch.testing.assert_close(rows @ named, rows @ flat)
    with pytest.raises(gn.OperatorError, match="are not a model's parameters"):
        rows.T @ named


def test_an_unknown_mode_is_an_error() -> None:
    assert set(MODES) == {"auto", "kept", "fresh", "forward", "finite"}
    with pytest.raises(gn.ArgumentError, match="`hvp` must be one of auto, kept"):
        gn.Hessian(*CASES[0].build(), hvp="exact")


class OnceOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (1 - x.tanh() ** 2)


def test_without_second_derivatives_auto_takes_differences() -> None:
    model, _, (x, _) = CASES[0].build()
    loss = lambda m, b: OnceOnly.apply(m(b)).square().sum(1)  # noqa: E731
    smooth = lambda m, b: m(b).tanh().square().sum(1)  # noqa: E731
    hessian = gn.Hessian(model, loss, x)
    assert hessian.hvp == "finite"
    assert hessian.reason.startswith("no second derivatives: some operation of the model has no")
    truth = oracles.dense(model, smooth, x).hessian
    torch.testing.assert_close(dense(hessian), truth, rtol=1e-6, atol=1e-8)
    top = gn.sharpness(model, loss, x)
    assert float(top.values) == pytest.approx(float(torch.linalg.eigvalsh(truth)[-1]), rel=1e-4)
    with pytest.raises(gn.CurvatureError, match="no second derivative"):
        gn.Hessian(model, loss, x, hvp="kept")


def test_graphs_are_kept_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    model, loss_fn, batch = CASES[0].build()
    built: list[int] = []
    kind = graphs_module.HessianGraph
    start = kind.__init__

    def counted(self: Any, objective: Any, part: Any) -> None:
        built.append(len(part[0]))
        start(self, objective, part)

    monkeypatch.setattr(kind, "__init__", counted)
    vector = torch.ones(43)
    for budget, later in ((2**30, []), (0, [2, 2, 2]), (1800, [2])):
        hessian = gn.Hessian(model, loss_fn, batch, hvp="kept", memory_budget=budget, micro_batch=2)
        first = hessian @ vector
        built.clear()
        torch.testing.assert_close(hessian @ vector, first)
        assert built == later, budget


def test_kept_graphs_do_not_outlive_the_parameters() -> None:
    model, loss_fn, batch = CASES[0].build()
    hessian, vector = gn.Hessian(model, loss_fn, batch), torch.ones(43)
    hessian @ vector
    with torch.no_grad():
        model[0].weight.mul_(2)
    truth = oracles.dense(model, loss_fn, batch).hessian
    torch.testing.assert_close(dense(hessian), truth, **CLOSE)
    model[2].weight.data = model[2].weight.data * 3
    truth = oracles.dense(model, loss_fn, batch).hessian
    torch.testing.assert_close(dense(hessian), truth, **CLOSE)


def test_sums_scalings_and_blocks() -> None:
    model, loss_fn, batch = CASES[0].build()
    hessian, sigma = gn.Hessian(model, loss_fn, batch), gn.GradientCovariance(model, loss_fn, batch)
    h, s = dense(hessian), dense(sigma)
    torch.testing.assert_close(dense(2 * hessian - sigma * 3), 2 * h - 3 * s)
    torch.testing.assert_close(dense((-hessian + sigma).T), s - h)
    sizes = [20, 5, 15, 3]
    kept = torch.cat([torch.full((n,), i in (0, 3)) for i, n in enumerate(sizes)])
    block = hessian.restrict(["0.weight", "2.bias"])
    torch.testing.assert_close(dense(block), h[kept][:, kept])
    assert list(block.parameters or {}) == ["0.weight", "2.bias"]
    torch.testing.assert_close(dense(hessian.restrict(["2"]).T), h[25:, 25:])
    rows = gn.PerSampleGradients(model, loss_fn, batch)
    with pytest.raises(gn.OperatorError, match=r"no trainable parameter or module '1\.weight'"):
        hessian.restrict(["1.weight"])
    with pytest.raises(gn.OperatorError, match="square in parameters"):
        rows.restrict(["2"])
    with pytest.raises(gn.OperatorError, match="operators of one shape"):
        hessian + rows


def equal_layers() -> tuple[nn.Module, nn.Module, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False))
    return model.double(), nn.MSELoss(), (torch.randn(18, 3).double(), torch.randn(18, 3).double())


def test_blocks_of_different_parameters_do_not_add_up() -> None:
    hessian = gn.Hessian(*equal_layers())
    first, second = hessian.restrict(["0"]), hessian.restrict(["2"])
    match = r"same parameters in the same order; got one of 0\.weight and one of 2\.weight"
    for sum_of in (
        lambda: first + second,
        lambda: first - second,
        lambda: 2 * first + (-second),
        lambda: first.T + second.T,
        lambda: (first + first) + second,
    ):
        with pytest.raises(gn.OperatorError, match=match):
            sum_of()
    with pytest.raises(gn.OperatorError, match="a dict must hold"):
        (first + first) @ {"2.weight": torch.ones(3, 3)}


def test_models_of_other_parameter_names_or_orders_do_not_add_up() -> None:
    hessian = gn.Hessian(*equal_layers())
    model, loss_fn, batch = equal_layers()
    named = gn.Hessian(nn.Sequential(model), loss_fn, batch)
    with pytest.raises(gn.OperatorError, match=r"one of 0\.weight, 2\.weight and one of 0\.0"):
        hessian + named
    turned = nn.ModuleDict({"2": nn.Linear(3, 3, bias=False), "0": nn.Linear(3, 3, bias=False)})
    other = gn.Hessian(
        turned.double(), lambda m, b: (m["0"](b[0]) * m["2"](b[0]) - b[1]).square().mean(1), batch
    )
    with pytest.raises(gn.OperatorError, match=r"and one of 2\.weight, 0\.weight"):
        hessian + other


def test_rows_that_are_samples_do_not_add_to_rows_that_are_parameters() -> None:
    model, loss_fn, batch = equal_layers()  # as many samples as parameters
    hessian, rows = gn.Hessian(model, loss_fn, batch), gn.PerSampleGradients(model, loss_fn, batch)
    assert hessian.shape == rows.shape
    with pytest.raises(gn.OperatorError, match="weight with other rows"):
        hessian + rows


def test_operators_of_the_same_parameters_add_up() -> None:
    model, loss_fn, batch = equal_layers()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    loss_fn(model(batch[0]), batch[1]).backward()
    optimizer.step()
    hessian, h = gn.Hessian(model, loss_fn, batch), dense(gn.Hessian(model, loss_fn, batch))
    others: list[Any] = [
        gn.GradientCovariance(model, loss_fn, batch),
        gn.GaussNewton(model, loss_fn, batch),
        gn.Preconditioned(hessian, optimizer),
        gn.Hessian(copy.deepcopy(model), loss_fn, batch),
        as_operator(h),
        as_operator(hessian.to_scipy()),
        hessian + as_operator(h),
    ]
    vector = {"0.weight": torch.ones(3, 3).double(), "2.weight": torch.zeros(3, 3).double()}
    for other in others:
        for total in (hessian + other, other + hessian, (hessian + other).T):
            torch.testing.assert_close(dense(total), h + dense(other))
            product = total @ vector
            assert list(product) == ["0.weight", "2.weight"]
            block = total.restrict(["2"])
            torch.testing.assert_close(dense(block), dense(total)[9:, 9:])
    rows = gn.PerSampleGradients(model, loss_fn, batch)
    torch.testing.assert_close(dense(rows - 2 * rows), -dense(rows))
    torch.testing.assert_close(dense(rows.T + rows.T), 2 * dense(rows).T)


def test_scipy_and_back() -> None:
    model, loss_fn, batch = CASES[0].build()
    hessian = gn.Hessian(model, loss_fn, batch)
    truth = dense(hessian)
    top = float(torch.linalg.eigvalsh(truth)[-1])
    values = eigsh(hessian.to_scipy(), k=1, which="LA", return_eigenvectors=False)
    assert values[0] == pytest.approx(top, rel=1e-10)
    rows = gn.PerSampleGradients(model, loss_fn, batch)
    weights = np.linspace(0, 1, 6)
    np.testing.assert_allclose(rows.to_scipy().rmatvec(weights), dense(rows).T.numpy() @ weights)
    for foreign in (hessian.to_scipy(), truth, truth.numpy()):
        matrix = as_operator(foreign)
        torch.testing.assert_close(dense(matrix), truth)
        torch.testing.assert_close(dense(matrix.T), truth)
        assert float(gn.lanczos(foreign).values) == pytest.approx(top, rel=1e-6)
    assert as_operator(hessian) is hessian
    with pytest.raises(gn.OperatorError, match=r"needs `shape` \(rows, columns\) and `@` or `m"):
        gn.lanczos("hessian")


TRIANGLE = torch.tensor([[2.0, 1.0, 0.0], [1.0, 3.0, 4.0], [0.0, 4.0, -1.0]], dtype=torch.float64)


class VectorsOnly:
    """Refuses blocks, as `view` or an assertion on the number of dimensions do."""

    shape, calls = (3, 3), 0

    def __matmul__(self, vector: Tensor) -> Tensor:
        self.calls += 1
        return TRIANGLE @ vector.view(3)


class Flattens(VectorsOnly):
    def __matmul__(self, vector: Tensor) -> Tensor:
        self.calls += 1
        return (TRIANGLE @ vector).reshape(-1)


class MatvecOnly:
    shape, dtype = (3, 3), np.dtype("float64")

    def matvec(self, vector: np.ndarray) -> np.ndarray:
        assert isinstance(vector, np.ndarray)
        assert vector.ndim == 1
        return TRIANGLE.numpy() @ vector


@pytest.mark.parametrize("foreign", [VectorsOnly, Flattens, MatvecOnly])
def test_what_takes_vectors_alone_is_given_them_one_by_one(foreign: Any) -> None:
    matrix = foreign()
    torch.testing.assert_close(dense(as_operator(matrix)), TRIANGLE)
    assert float(gn.trace(matrix)) == 4.0
    assert (as_operator(matrix) @ torch.ones(3, 0, dtype=torch.float64)).shape == (3, 0)
    assert getattr(matrix, "calls", 0) <= 3 + 1 + 3 + 1 + 1  # blocks are tried once per operator


def test_a_product_that_fails_says_why() -> None:
    class Broken(VectorsOnly):
        def __matmul__(self, vector: Tensor) -> Tensor:
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        gn.trace(Broken())


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
    with pytest.raises(gn.ArgumentError, match="preconditioner of Adagrad is not known"):
        gn.Preconditioned(hessian, torch.optim.Adagrad(model.parameters()))
    with pytest.raises(gn.ArgumentError, match=r"does not hold parameter '0\.weight'"):
        gn.Preconditioned(hessian, torch.optim.SGD(model[2].parameters()))
    groups = [{"params": model[0].parameters(), "lr": 0.0}, {"params": model[2].parameters()}]
    with pytest.raises(gn.ArgumentError, match=r"unit and must not be 0 beside others.*0\.1"):
        gn.Preconditioned(hessian, torch.optim.SGD(groups, lr=0.1))
    with pytest.raises(gn.ArgumentError, match="maximizes"):
        gn.Preconditioned(hessian, torch.optim.SGD(model.parameters(), maximize=True))


def test_half_precision_is_handed_over_in_float32() -> None:
    model, loss_fn, (x, y) = CASES[0].build()
    truth = dense(gn.Hessian(model, loss_fn, (x, y)))
    half = gn.Hessian(model.bfloat16(), loss_fn, (x.bfloat16(), y))
    assert half.dtype == torch.float32
    assert half.resolution == torch.finfo(torch.bfloat16).eps
    off = float((dense(half) - truth).norm() / truth.norm())
    assert off < 0.05
    assert math.isclose(
        float(gn.lanczos(half, tol=0.1).values),
        float(torch.linalg.eigvalsh(truth)[-1]),
        rel_tol=0.1,
    )


MOVES: dict[str, Any] = {
    "a fused optimizer": lambda m: torch.optim.AdamW(m.parameters(), lr=0.1, fused=True).step(),
    "data in place": lambda m: [p.data.mul_(1.5) for p in m.parameters()],
    "NumPy": lambda m: [
        np.multiply(p.detach().numpy(), 2, p.detach().numpy()) for p in m.parameters()
    ],
}


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("kind", [gn.Hessian, gn.GaussNewton])
def test_kept_graphs_follow_parameters_that_move_unseen(kind: Any, name: str) -> None:
    model, loss_fn, batch = CASES[0].build()
    matrix = kind(model, loss_fn, batch)
    matrix @ torch.ones(43)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    MOVES[name](model)
    torch.testing.assert_close(dense(matrix), dense(kind(model, loss_fn, batch)), **CLOSE)


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_second_derivatives_that_contradict_each_other_are_not_believed(norm: Any) -> None:
    model = nn.Sequential(norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3)).double()
    loss_fn, batch = nn.CrossEntropyLoss(), labelled()
    with pytest.raises(gn.CurvatureError, match="contradict each other"):
        gn.Hessian(model, loss_fn, batch, hvp="kept")
    hessian = gn.Hessian(model, loss_fn, batch)
    assert hessian.hvp == "finite"
    found = dense(hessian)
    torch.testing.assert_close(found, found.T, rtol=1e-6, atol=1e-8)


def test_forward_mode_is_held_to_the_gradient() -> None:
    model, _, (x, y) = CASES[0].build()
    captured = list(model.parameters())

    def penalised(m: nn.Module, batch: Any) -> Tensor:
        losses = nn.functional.cross_entropy(m(batch[0]), batch[1], reduction="none")
        return losses + sum(p.pow(4).sum() for p in captured)

    assert gn.Hessian(model, penalised, (x, y)).hvp == "kept"
    with pytest.raises(gn.CurvatureError, match="does not reach all uses"):
        gn.Hessian(model, penalised, (x, y), hvp="forward")


def test_a_model_given_its_own_outputs_has_no_known_gauss_newton_matrix() -> None:
    model = nn.Linear(4, 4).double()
    matrix = gn.GaussNewton(model, lambda m, x: m(m(x).tanh()).square().sum(1), features())
    with pytest.raises(gn.CurvatureError, match="given its own outputs"):
        matrix @ torch.ones(20)
    with pytest.raises(gn.CurvatureError, match="no second derivative"):
        gn.GaussNewton(model, lambda m, x: OnceOnly.apply(m(x)).square().sum(1), features())
    inputs = features()
    changed = gn.GaussNewton(model, lambda m, x: m(x).sub_(1).square().sum(1), inputs)
    plain = gn.Hessian(model, lambda m, x: m(x).sub(1).square().sum(1), inputs)  # m is linear
    torch.testing.assert_close(dense(changed), dense(plain), **CLOSE)


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


def test_what_is_no_real_matrix_is_refused() -> None:
    hermitian = torch.tensor([[2, 1j], [-1j, 2]])
    for matrix in (hermitian, hermitian.numpy()):
        with pytest.raises(gn.OperatorError, match="a matrix of real numbers"):
            gn.lanczos(matrix)

    class Flat:
        shape = (3, 3)

        def __matmul__(self, other: Tensor) -> Tensor:
            return torch.ones(1, 6)

    with pytest.raises(gn.OperatorError, match=r"must have shape \(3,\); got \(1, 6\)"):
        gn.lanczos(Flat())
    hessian = gn.Hessian(*CASES[0].build())
    with pytest.raises(TypeError):
        hessian + torch.ones(43, 43)
    with torch.inference_mode():
        assert torch.isfinite(hessian @ torch.ones(43)).all()


@pytest.mark.parametrize("hvp", MODES)
def test_a_product_that_is_interrupted_leaves_everything_as_found(
    hvp: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, loss_fn, batch = CASES[0].build()
    hessian = gn.Hessian(model, loss_fn, batch, hvp=hvp, micro_batch=2)
    before = [p.detach().clone() for p in model.parameters()]
    truth = hessian @ torch.ones(43)
    add, calls = hvp_module._add, []

    def interrupted(*parts: Any) -> None:
        calls.append(parts)
        if len(calls) == 2:
            raise KeyboardInterrupt
        add(*parts)

    monkeypatch.setattr(hvp_module, "_add", interrupted)
    with pytest.raises(KeyboardInterrupt) as held:
        hessian @ torch.ones(43)
    assert held.value is not None  # with its traceback, and the frames in it
    assert all(map(torch.equal, before, model.parameters()))
    torch.testing.assert_close(hessian @ torch.ones(43), truth)


def test_differences_are_taken_outside_of_an_autocast_around_the_call() -> None:
    model, loss_fn, (x, y) = CASES[0].build()
    hessian = gn.Hessian(model.float(), loss_fn, (x.float(), y), hvp="finite")
    plain = hessian @ torch.ones(43)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(hessian @ torch.ones(43), plain)


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


def test_an_autocast_around_the_call_is_left_for_products() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    batch = (torch.randn(40, 6), torch.randint(3, (40,)))
    exact = gn.Hessian(model, nn.CrossEntropyLoss(), batch) @ torch.ones(83)
    for hvp in MODES:
        with torch.autocast("cpu", torch.bfloat16):
            hessian = gn.Hessian(model, nn.CrossEntropyLoss(), batch, hvp=hvp)
            found = hessian @ torch.ones(83)
            assert float(gn.lanczos(hessian, tol=1e-2).values) > 0
        torch.testing.assert_close(found, exact, rtol=2e-3, atol=2e-3)


def test_what_is_not_seen_by_kept_graphs_is_forgotten_on_request() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.scale = nn.Linear(6, 1), 1.0

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * self.linear(x)

    model = Scaled()
    hessian = gn.Hessian(model, nn.MSELoss(), (torch.randn(40, 6), torch.randn(40, 1)))
    before = hessian @ torch.ones(7)
    model.scale = 2.0
    hessian.forget()
    torch.testing.assert_close(hessian @ torch.ones(7), 4 * before)
