"""Private names of torch that the package relies on: one test each, to fail where torch moves one.

Public torch has no other way to what they give. When one of these tests fails on a new torch, look
at the files named beside it.
"""

from __future__ import annotations

import ast
import datetime
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd import forward_ad
from torch.distributed import fsdp
from torch.distributed.device_mesh import init_device_mesh
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from gradnoise.per_sample.hooks.composite import _CHECKS, UNFUSED
from gradnoise.problem.state.checkpoints import IN_PLACE
from scripts.import_graph import PACKAGE


def version_counts_changes_in_place() -> bool:
    tensor = torch.zeros(2)
    before = tensor._version
    return tensor.add_(1)._version == before + 1 == tensor[:1]._version


def base_is_what_a_view_is_of() -> bool:
    tensor = torch.zeros(2, 3, requires_grad=True)
    return tensor.T[0]._base is tensor and tensor._base is None and (tensor + 1)._base is None


def is_view_tells_views() -> bool:
    tensor = torch.zeros(2)
    return tensor[:1]._is_view() and not tensor._is_view()


def hooks_of_modules_are_ordered_dicts() -> bool:
    module = nn.Linear(1, 1)
    before = dict(module._backward_hooks), dict(module._backward_pre_hooks)
    module.register_full_backward_hook(lambda *_: None)
    module.register_full_backward_pre_hook(lambda *_: None)
    after = len(module._backward_hooks), len(module._backward_pre_hooks)
    return before == ({}, {}) and after == (1, 1)


def hooks_of_tensors_may_be_set_aside() -> bool:
    seen: list[Tensor] = []
    parameter = nn.Parameter(torch.zeros(1))
    parameter.register_hook(seen.append)
    hooks, parameter._backward_hooks = parameter._backward_hooks, None
    parameter.sum().backward()
    silent = not seen
    parameter._backward_hooks = hooks
    parameter.sum().backward()
    return silent and len(seen) == 1


def a_module_without_backward_hooks_has_no_kind_of_them() -> bool:
    module = nn.Linear(1, 1)
    before = module._is_full_backward_hook
    module.register_full_backward_hook(lambda *_: None)
    return before is None and module._is_full_backward_hook is True


def hooks_before_forward_are_by_module() -> bool:
    module = nn.Linear(1, 1)
    module.register_forward_pre_hook(len)
    return list(module._forward_pre_hooks.values()) == [len]


def persistent_workers_keep_their_iteration() -> bool:
    loader = DataLoader(TensorDataset(torch.zeros(2)), num_workers=0)
    return "_iterator" in dir(loader) and loader._iterator is None


def layers_have_a_common_class(name: str) -> Callable[[], bool]:
    module, kinds = {
        "_BatchNorm": (nn.modules.batchnorm, (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)),
        "_DropoutNd": (nn.modules.dropout, (nn.Dropout, nn.Dropout2d, nn.AlphaDropout)),
    }[name]
    return lambda: all(issubclass(kind, getattr(module, name)) for kind in kinds)


def values_of_sparse_tensors_without_a_copy() -> bool:
    return bool(torch.eye(2).to_sparse()._values().tolist() == [1, 1])


def tensors_of_transforms_are_told() -> bool:
    wrapped: list[bool] = []

    def looked_at(x: Tensor) -> Tensor:
        wrapped.append(torch._C._functorch.is_functorch_wrapped_tensor(x))
        return x.sum()

    torch.func.grad(looked_at)(torch.ones(2))
    return wrapped == [True] and not torch._C._functorch.is_functorch_wrapped_tensor(torch.ones(1))


def forward_mode_has_a_level() -> bool:
    before = forward_ad._current_level
    with forward_ad.dual_level():
        return before < 0 <= forward_ad._current_level


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> Tensor:
        return 2 * grad


def nodes_know_their_function() -> bool:
    made: Any = Doubled.apply(torch.ones(1, requires_grad=True))
    return type(made.grad_fn)._forward_cls is Doubled


def autocasts_know_whether_they_are_on() -> bool:
    return torch.autocast("cpu")._enabled and not torch.autocast("cpu", enabled=False)._enabled


def sharded_modules_tell_where_their_parameters_are() -> bool:
    """Names of FSDP2, in a process group of this process alone."""
    place = "torch.distributed.fsdp" if hasattr(fsdp, "fully_shard") else OLD_FSDP
    fully_shard = importlib.import_module(place).fully_shard
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        state = model._get_fsdp_state()
        groups = getattr(state, "_fsdp_param_groups", None) or [state._fsdp_param_group]
        (group,) = groups
        at = [(k._module_info.module, k._module_info.param_name) for k in group.fsdp_params]
        expected = [(own, name) for own in model for name in ("weight", "bias")]
        pairs = zip(group.fsdp_params, model.parameters(), strict=True)
        same = all(kept.sharded_param is own for kept, own in pairs)
        return at == expected and same and state._mp_policy.param_dtype is None
    finally:
        dist.destroy_process_group()


def groups_tell_how_long_they_wait() -> bool:
    waits = datetime.timedelta(seconds=77)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1, timeout=waits)
    try:
        backend = dist.group.WORLD._get_backend(torch.device("cpu"))
        rows = [torch.zeros(1)]
        options = dist.distributed_c10d.AllgatherOptions()
        dist.group.WORLD.allgather([rows], [torch.ones(1)], options).wait()
        return backend.options._timeout == waits and rows[0].item() == 1
    finally:
        dist.destroy_process_group()


OLD_FSDP = "torch.distributed._composable.fsdp"  # of torch 2.5

ATTRIBUTES: dict[str, tuple[str, Callable[[], bool]]] = {
    "_get_backend": ("ranks/ranks", groups_tell_how_long_they_wait),
    "_timeout": ("ranks/ranks", groups_tell_how_long_they_wait),
    "_version": ("per_sample/hooks/backward, problem/objective", version_counts_changes_in_place),
    "_base": ("per_sample/hooks/chain_rule", base_is_what_a_view_is_of),
    "_is_view": ("per_sample/hooks/backward", is_view_tells_views),
    "_backward_hooks": ("problem/state/checkpoints", hooks_of_tensors_may_be_set_aside),
    "_backward_pre_hooks": ("problem/state/checkpoints", hooks_of_modules_are_ordered_dicts),
    "_forward_pre_hooks": ("problem/state/power_iterations", hooks_before_forward_are_by_module),
    "_is_full_backward_hook": (
        "per_sample/backpack",
        a_module_without_backward_hooks_has_no_kind_of_them,
    ),
    "_iterator": ("problem/state/checkpoints", persistent_workers_keep_their_iteration),
    "_BatchNorm": ("problem/checks", layers_have_a_common_class("_BatchNorm")),
    "_DropoutNd": ("problem/checks", layers_have_a_common_class("_DropoutNd")),
    "_C": ("per_sample/hooks/transforms", tensors_of_transforms_are_told),
    "_functorch": ("per_sample/hooks/transforms", tensors_of_transforms_are_told),
    "_current_level": ("per_sample/hooks/transforms", forward_mode_has_a_level),
    "_forward_cls": ("problem/custom_functions", nodes_know_their_function),
    "_enabled": ("problem/full_precision", autocasts_know_whether_they_are_on),
    **dict.fromkeys(
        ("_get_fsdp_state", "_fsdp_param_group", "_module_info", "_mp_policy"),
        ("problem/state/sharded", sharded_modules_tell_where_their_parameters_are),
    ),
    "_values": ("operators/graph_cache", values_of_sparse_tensors_without_a_copy),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_private_attributes_mean_what_they_did(name: str) -> None:
    where, holds = ATTRIBUTES[name]
    try:
        kept = holds()
    except AttributeError as error:
        pytest.fail(f"torch {torch.__version__} has no {name!r} ({error}); used in {where}")
    assert kept, f"torch {torch.__version__} changed the meaning of {name!r}; used in {where}"


def test_the_list_of_private_attributes_is_complete() -> None:
    """What is read from objects of others, and defined nowhere in the package."""
    used, own = set[str](), {"_replace", "_fields", "_exit"}  # documented
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                own.add(node.name)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                own.add(node.target.id)
            elif isinstance(node, ast.Attribute) and node.attr[:1] == "_" != node.attr[1:2]:
                stored = isinstance(node.ctx, ast.Store)
                ours = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
                (own if stored and ours else used).add(node.attr)
    assert used - own <= set(ATTRIBUTES), "add a test of what it means, above"
    assert set(ATTRIBUTES) <= used, "no longer used: take it out, above"


def test_checkpoints_run_through_a_name_that_is_replaced() -> None:
    """problem/state/checkpoints: torch 2.14 moved one of these."""
    found = IN_PLACE.keys() & vars(checkpoint).keys()
    assert "CheckpointFunction" in found, "reentrant checkpoints: see problem/state/checkpoints"
    assert len(found) > 1, "checkpoints that are not reentrant: see problem/state/checkpoints"
    for name in found - {"CheckpointFunction"}:
        names = list(inspect.signature(getattr(checkpoint, name)).parameters)
        expected = (
            ["fn", "args", "kwargs"] if name.endswith("impl") else ["fn", "preserve_rng_state"]
        )
        assert names[: len(expected)] == expected, name
        assert "context_fn" in names
        if not name.endswith("impl"):
            assert names.index("context_fn") == 2
    own = inspect.getsource(checkpoint)
    assert "CheckpointFunction.apply(function, preserve, *args)" in own, (
        "see problem/state/checkpoints"
    )


class Seen(TorchFunctionMode):
    """Functions that torch runs, as a mode sees them."""

    def __init__(self) -> None:
        super().__init__()
        self.functions: list[Any] = []

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.functions.append(func)
        return func(*args, **(kwargs or {}))


LAYERS: dict[Any, Callable[[], Any]] = {
    torch.lstm: lambda: nn.LSTM(2, 2)(torch.zeros(1, 1, 2)),
    torch.gru: lambda: nn.GRU(2, 2)(torch.zeros(1, 1, 2)),
    torch.rnn_tanh: lambda: nn.RNN(2, 2)(torch.zeros(1, 1, 2)),
    torch.rnn_relu: lambda: nn.RNN(2, 2, nonlinearity="relu")(torch.zeros(1, 1, 2)),
    torch.lstm_cell: lambda: nn.LSTMCell(2, 2)(torch.zeros(1, 2)),
    torch.gru_cell: lambda: nn.GRUCell(2, 2)(torch.zeros(1, 2)),
    torch.rnn_tanh_cell: lambda: nn.RNNCell(2, 2)(torch.zeros(1, 2)),
    torch.rnn_relu_cell: lambda: nn.RNNCell(2, 2, nonlinearity="relu")(torch.zeros(1, 2)),
    F.embedding_bag: lambda: nn.EmbeddingBag(2, 2)(torch.zeros(1, 2, dtype=torch.long)),
}


@pytest.mark.parametrize("function", LAYERS, ids=lambda f: f.__name__)
def test_layers_run_the_undocumented_functions_that_are_taken_apart(function: Any) -> None:
    """per_sample/hooks/composite, whose tests hold their arguments."""
    with Seen() as seen:
        LAYERS[function]()
    assert function in seen.functions
    assert UNFUSED.keys() == LAYERS.keys()


def test_functions_that_torch_writes_in_python_look_for_modes_by_these_names() -> None:
    """per_sample/hooks/composite puts others in their place, to see the operations inside."""
    missing = [name for name in _CHECKS if name not in vars(F)]
    assert not missing, f"torch.nn.functional has no {missing}; see per_sample/hooks/composite"
    assert "has_torch_function_unary" in F.dropout.__code__.co_names
    assert "handle_torch_function" in F.dropout.__code__.co_names


def test_attributes_of_tensors_are_read_through_get() -> None:
    """per_sample/hooks/tracing lets most of these pass without a look."""
    with Seen() as seen:
        _ = torch.zeros(2).shape
    assert [f.__name__ for f in seen.functions][-1] == "__get__"


def test_the_gradient_of_a_convolution_has_its_arguments() -> None:
    """per_sample/hooks/convolution."""
    schema = torch.ops.aten.convolution_backward.default._schema
    assert [argument.name for argument in schema.arguments] == [
        *("grad_output", "input", "weight", "bias_sizes", "stride", "padding", "dilation"),
        *("transposed", "output_padding", "groups", "output_mask"),
    ]


def test_compiling_imports_the_module_that_is_looked_for() -> None:
    """problem/wrappers leaves the compiler alone where it was not loaded."""
    model = torch.compile(nn.Linear(1, 1), backend="eager")
    assert type(model).__module__.startswith("torch._dynamo")


def test_hooks_before_a_node_are_given_the_gradients_of_its_outputs() -> None:
    """per_sample/hooks/backward; `output_nr` tells the outputs of one node apart."""
    first, second = torch.ones(4, requires_grad=True).split(2)
    seen: list[Any] = []
    assert second.grad_fn is not None
    second.grad_fn.register_prehook(seen.append)
    (first.sum() + 3 * second.sum()).backward()
    assert second.output_nr == 1
    assert seen[0][second.output_nr].tolist() == [3, 3]
