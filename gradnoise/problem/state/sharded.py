"""Models whose parameters are divided among ranks: what they are, and what torch put on them.

FSDP2 and tensor parallelism put DTensors, hooks and classes of their own into the user's modules.
They are known by their attributes and by where they are defined, so that nothing of
`torch.distributed` is imported.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from types import MethodType
from typing import Any

import torch
from torch import nn

# where torch keeps FSDP2 (2.5: `_composable`) and tensor parallelism
PARALLEL = ("torch.distributed.fsdp", "torch.distributed._composable", "torch.distributed.tensor")
TENSORS = ("torch.distributed.tensor",)
CONTEXT = (
    "torch.distributed.tensor.experimental._context_parallel",
    "torch.distributed.tensor.experimental._attention",
)
PIPELINING = ("torch.distributed.pipelining",)
MIXINS = ("FSDPModule", "DDP")  # the classes that are mixed into a module's own
STYLES = ("DeviceMesh", "ParallelStyle")  # a hook that holds one of these works on DTensors
PIPELINED = "A pipeline-parallel model has only a part of the layers on each rank."
DIVIDED = "A context-parallel model has only a part of each sequence on each rank."
ROUTED = "An expert-parallel model sends each token to the rank that holds its expert."
REFUSED = (  # names of dimensions of a mesh, and why
    (("cp", "context", "context_parallel"), DIVIDED),
    (("ep", "expert", "expert_parallel"), ROUTED),
    (("pp", "pipeline", "pipeline_parallel"), PIPELINED),
)


def is_sharded(model: nn.Module) -> bool:
    """Whether any parameter is a DTensor, also where FSDP2 holds it unsharded at the moment."""
    return any(map(is_dtensor, found_parameters(model)))


def found_parameters(model: nn.Module) -> list[Any]:
    """Every parameter once, as an optimizer holds it."""
    modules = list(model.modules())
    shards = shards_of(modules)
    found = [shards.get((m, name), p) for m in modules for name, p in m._parameters.items()]
    return list({id(p): p for p in found if p is not None}.values())


def mesh_ranks(model: nn.Module) -> set[int]:
    """The ranks that hold parts of the parameters, among all of torch.distributed."""
    found = filter(is_dtensor, found_parameters(model))
    return {rank for p in found for rank in p.device_mesh.mesh.flatten().tolist()}


def is_parallel(model: nn.Module) -> bool:
    """Whether inputs or outputs of its modules are divided: tensor parallel."""
    hooks = [hook for module in model.modules() for _, hook in _hooks(module)]
    return any(_defined_in(hook, TENSORS) or _holds_style(hook) for hook in hooks)


def policies(model: nn.Module) -> list[Any]:
    """The distinct MixedPrecisionPolicies of FSDP2 that cast something, which a replica does not.

    Their `param_dtype`, `cast_forward_inputs` and `output_dtype` say what.
    """
    found = [state._mp_policy for state in _states(model.modules())]
    casting = [policy for policy in found if policy.param_dtype or policy.output_dtype]
    return list(dict.fromkeys(casting))


def refused(model: Any) -> str:
    """Why there can be no plain replica, in one sentence; empty where there can be one."""
    kinds = type(model).__mro__
    if any(_within(kind.__module__, PIPELINING) for kind in kinds):
        return PIPELINED
    if not isinstance(model, nn.Module):
        return ""
    modules = list(model.modules())
    kept = {kind.__name__ for module in modules for kind in type(module).__mro__}
    if "FullyShardedDataParallel" in kept:
        return (
            "FullyShardedDataParallel keeps its parameters in flat ones that cannot be gathered one"
            " by one; shard with `fully_shard` (FSDP2) instead."
        )
    dimensions = {
        name.lower()
        for parameter in filter(is_dtensor, found_parameters(model))
        for name in parameter.device_mesh.mesh_dim_names or ()
    }
    attention = torch.nn.functional.scaled_dot_product_attention
    hooks = [hook for module in modules for _, hook in _hooks(module)]
    if any(_defined_in(item, CONTEXT) for item in (attention, *hooks)):
        return DIVIDED
    return next((why for names, why in REFUSED if not dimensions.isdisjoint(names)), "")


def fsdp_modules(modules: Iterable[Any]) -> list[Any]:
    """Those that were given to `fully_shard`."""
    return [module for module in modules if "FSDPModule" in _mixed_in(type(module))]


def reshard(model: nn.Module, *, first: bool = False) -> None:
    """Put the parts back into the modules of FSDP2, whose passes may leave parameters whole.

    Args:
        model: the user's.
        first: gather them before, so that what FSDP2 sets up at its first pass is there.
    """
    for module in fsdp_modules(model.modules()):
        if first:
            module.unshard()
        module.reshard()


def _states(modules: Iterable[Any]) -> list[Any]:
    """What FSDP2 keeps, once for each group of modules."""
    return list(dict.fromkeys(module._get_fsdp_state() for module in fsdp_modules(modules)))


def shards_of(modules: Iterable[nn.Module]) -> dict[tuple[nn.Module, str], nn.Parameter]:
    """FSDP2's sharded parameters, which are not registered while a module is unsharded."""
    shards = {}
    for state in _states(modules):
        groups = getattr(state, "_fsdp_param_groups", None)  # torch 2.5 has one
        if groups is None:
            groups = [state._fsdp_param_group] if state._fsdp_param_group else []
        for kept in (kept for group in groups for kept in group.fsdp_params):
            at = kept._module_info
            shards[at.module, at.param_name] = kept.sharded_param
            for place in zip(at.shared_modules, at.shared_param_names, strict=True):
                shards[place] = kept.sharded_param
    return shards


def is_dtensor(tensor: Any) -> bool:
    return hasattr(tensor, "full_tensor") and hasattr(tensor, "device_mesh")


def local(tensor: Any) -> Any:
    """This rank's part; whatever is not shared as it is."""
    return tensor.to_local() if is_dtensor(tensor) else tensor


def own_class(module: nn.Module) -> type[Any]:
    """The class of a module before `fully_shard`."""
    return next(kind for kind in type(module).__mro__ if not _mixed_in(kind))


def strip(module: nn.Module) -> None:
    """Take off what FSDP2 and tensor parallelism put on."""
    module.__class__ = own_class(module)
    for registry, hook in _hooks(module):
        if _defined_in(hook, PARALLEL) or _holds_style(hook):
            for key in [key for key, other in registry.items() if other is hook]:
                del registry[key]
    for name, value in list(vars(module).items()):  # `register_fsdp_forward_method` put them there
        own = getattr(value, "__wrapped__", None) if isinstance(value, MethodType) else None
        if own is not None and _within(value.__func__.__globals__["__name__"], PARALLEL):
            vars(module)[name] = own


def registries(module: nn.Module) -> list[dict[Any, Any]]:
    """The parameters, the buffers and the hooks of all kinds."""
    return [
        item
        for name, item in vars(module).items()
        if isinstance(item, dict) and (name in ("_parameters", "_buffers") or "hooks" in name)
    ]


def _within(name: str, places: tuple[str, ...]) -> bool:
    """Whether a module of Python is in one of these packages."""
    return f"{name}.".startswith(tuple(f"{place}." for place in places))


def _mixed_in(kind: type[Any]) -> set[str]:
    """Which of the classes are among its bases that FSDP2 mixes into the user's."""
    return {
        base.__name__
        for base in kind.__mro__
        if base.__name__ in MIXINS and _within(base.__module__, PARALLEL)
    }


def _hooks(module: nn.Module) -> list[tuple[dict[Any, Any], Any]]:
    """The hooks of a module, of all kinds, each with the registry that it is in."""
    found = [(registry, hook) for registry in registries(module) for hook in registry.values()]
    return [(registry, hook) for registry, hook in found if callable(hook)]


def _functions(hook: Any) -> Iterator[Any]:
    """The functions inside of a hook: bound, wrapped by decorators, partially applied."""
    while hook is not None:
        yield hook
        inner: Any = getattr(hook, "__func__", None) or getattr(hook, "__wrapped__", None)
        if inner is None and isinstance(hook, functools.partial):
            inner = hook.func
        hook = inner


def _defined_in(hook: Any, places: tuple[str, ...]) -> bool:
    """Whether the hook, or a function inside of it, is defined in these packages of torch."""
    spaces = [getattr(function, "__globals__", {}) for function in _functions(hook)]
    return any(_within(space.get("__name__", ""), places) for space in spaces)


def _holds_style(hook: Any) -> bool:
    """Whether a hook is bound to, or holds, a mesh or a style: that of a user's own style."""
    held: list[Any] = []
    for function in _functions(hook):
        held.append(getattr(function, "__self__", None))
        if isinstance(function, functools.partial):
            held += [*function.args, *function.keywords.values()]
        for cell in getattr(function, "__closure__", None) or ():
            try:
                held.append(cell.cell_contents)
            except ValueError:  # not yet filled
                continue
    return any(kind.__name__ in STYLES for item in held for kind in type(item).__mro__)
