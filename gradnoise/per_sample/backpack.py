"""BackPACK: one backward pass in which each layer gives the gradients of its samples.

Dangel, Kunstner and Hennig 2020, arXiv:1912.10985. BackPACK 1.7.1 is silently wrong for tied
weights, a layer called again on what is detached, convolutions with padding "same" or circular,
initial states of RNNs and samples that are not the leading dimension. So it is checked against
single samples first. It serves for comparison, and sums are taken over its gradients.
"""

from __future__ import annotations

import importlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import EngineError, explained, first_line
from ..problem.objective import Objective
from ..problem.problem import TRIAL_SAMPLES
from ..problem.state.guard import attributes
from ..tensors.trees import Batch, TensorDict, sample_count, select, widen
from .contract.engine import COPIES, MEMORY_BUDGET, Engine
from .contract.summary import Chunk
from .hooks.precision import allowed, largest_of
from .loop import Loop

GRADIENTS = "grad_batch"  # the attribute of a parameter where `BatchGrad` leaves its result


class BackPACK(Engine):
    """BackPACK's `BatchGrad`.

    For models whose trainable parameters all belong to layers that BackPACK knows (linear,
    convolution, batch norm in eval mode, embedding, RNN and LSTM of one layer), each called once.

    Args:
        objective, eps: as of `Engine`.
        memory_budget: bytes that the per-sample gradients of one chunk may take.

    Raises:
        EngineError: BackPACK is not installed; tied weights; a scripted model. In a pass: a layer
            that BackPACK does not know, that is called several times or changed in place;
            gradients that are not those of single samples.
    """

    name = "backpack"

    def __init__(
        self, objective: Objective, eps: float = 0.0, *, memory_budget: int = MEMORY_BUDGET
    ) -> None:
        super().__init__(objective, eps)
        self._library = _load()
        self._layers = _layers(objective.model)
        self._budget = memory_budget // COPIES
        self._verified = 0  # samples that were held to the loop

    def chunks(self, batch: Batch) -> Iterator[Chunk]:
        self._verify(batch)
        for part in self.parts(batch, max(1, self._budget // self.objective.sample_bytes)):
            yield self._pass(part)

    def _verify(self, batch: Batch) -> None:
        """Check what BackPACK gives for a few samples against one backward pass per sample."""
        few = select(batch, slice(0, TRIAL_SAMPLES))
        if sample_count(few) <= self._verified:
            return
        single = list(Loop(self.objective).chunks(few))
        truth = {n: torch.cat([c.gradients[n] for c in single]) for n in self.objective.parameters}
        wrong = _differing(self._pass(few).gradients, truth)
        if wrong:
            raise EngineError(
                f"BackPACK's gradients of {_listed(wrong)} are not those of single samples. It "
                f"takes the leading dimension for the samples, and overlooks uses of a parameter "
                f"outside its layer and initial states. Use engine='auto'."
            )
        self._verified = sample_count(few)

    def _pass(self, batch: Batch) -> Chunk:
        """One forward and one backward pass."""
        with _attached(self._library, self.objective.model, self._layers) as calls:
            with explained(RuntimeError, "BackwardHookFunction", _in_place):
                losses = self.objective.losses(batch)
            _refuse_repeats(calls)
            unused = self._backward(losses)
            return Chunk(losses.detach(), self._read(len(losses), unused))

    def _backward(self, losses: Tensor) -> set[str]:
        """Let BackPACK leave its results, nothing in any `.grad`; the names that take no part."""
        parameters = self.objective.parameters
        if not losses.requires_grad:
            return set(parameters)
        self.objective.work.differentiated(len(losses))
        extension = self._library.extensions.BatchGrad()
        try:
            with self._library.backpack(extension), warnings.catch_warnings():
                for text in ("Extension saving to", "Full backward hook is firing"):
                    warnings.filterwarnings("ignore", message=text)
                found = torch.autograd.grad(losses.sum(), [*parameters.values()], allow_unused=True)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a layer's options that are not supported end in any error
            raise EngineError(
                f"BackPACK failed with {first_line(error).rstrip('.')}. Use engine='auto'."
            ) from error
        return {name for name, g in zip(parameters, found, strict=True) if g is None}

    def _read(self, count: int, unused: set[str]) -> TensorDict:
        """What BackPACK left on each parameter."""
        found, bad = {}, []
        for name, p in self.objective.parameters.items():
            shape = (count, *p.shape)
            value = vars(p).get(GRADIENTS)
            if value is None and name in unused:
                value = p.detach().new_zeros(shape)
            if value is None or value.shape != shape:
                layer = type(self.objective.model.get_submodule(name.rpartition(".")[0])).__name__
                got = "nothing" if value is None else f"shape {tuple(value.shape)}"
                bad.append(f"{name} of {layer}: {got}")
            else:
                found[name] = value.to(p.dtype)
        if bad:
            raise EngineError(
                f"BackPACK did not give per-sample gradients of {count} samples for all parameters "
                f"({_listed(bad)}). It needs linear, convolution, batch norm, embedding, RNN or "
                f"LSTM layers that are called as modules, samples first. Use engine='auto'."
            )
        return found


def _differing(found: TensorDict, truth: TensorDict) -> list[str]:
    """Names where finite numbers differ by more than rounding."""
    largest = largest_of(widen(right).abs() for right in truth.values())
    wrong = []
    for name, right in truth.items():
        margin = allowed(widen(right).abs(), largest, torch.finfo(right.dtype).eps)
        agrees = (widen(found[name]) - widen(right)).abs() <= margin
        if not bool((agrees | ~right.isfinite()).all()):
            wrong.append(name)
    return wrong


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - 5} more" if len(items) > 5 else ""
    return "; ".join(items[:5]) + more


def _load() -> Any:
    try:
        return importlib.import_module("backpack")
    except ImportError as error:
        raise EngineError(
            "engine='backpack' needs backpack-for-pytorch: pip install 'gradnoise[backpack]', or "
            "use engine='auto'."
        ) from error


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """Modules without children that own trainable parameters: what BackPACK may support."""
    layers: dict[str, nn.Module] = {}
    owners: dict[Tensor, list[str]] = {}
    for name, module in model.named_modules():
        own = dict(module.named_parameters(name, recurse=False, remove_duplicate=False))
        trainable = {full: p for full, p in own.items() if p.requires_grad}
        for full, parameter in trainable.items():
            owners.setdefault(parameter, []).append(full)
        if trainable and isinstance(module, torch.jit.ScriptModule):
            raise EngineError(
                f"module {name!r} is scripted, on which BackPACK cannot register hooks. "
                f"Use engine='auto'."
            )
        if trainable and not list(module.children()):
            _refuse_padding(name, module)
            layers[name] = module
    tied = [names for names in owners.values() if len(names) > 1]
    if tied:
        raise EngineError(
            f"the parameters {' and '.join(tied[0])} are one tensor, and BackPACK handles "
            f"only one use of a parameter. Use engine='auto'."
        )
    return layers


def _refuse_padding(name: str, module: nn.Module) -> None:
    """Refuse padding that BackPACK gets right for some image sizes and wrong for others."""
    padding, mode = getattr(module, "padding", 0), getattr(module, "padding_mode", "zeros")
    if padding == "same" or mode != "zeros":
        raise EngineError(
            f"module {name!r} has padding {padding!r} in mode {mode!r}, and BackPACK handles only "
            f"padding with a number of zeros. Use engine='auto'."
        )


def _refuse_repeats(calls: Counter[str]) -> None:
    repeated = [f"{name!r} {count} times" for name, count in calls.items() if count > 1]
    if repeated:
        raise EngineError(
            f"the forward pass calls module {_listed(repeated)}, and BackPACK handles only "
            f"one call of a module. Use engine='auto'."
        )


def _in_place() -> EngineError:
    return EngineError(
        "the model changes the output of a layer in place, which BackPACK's hooks do not "
        "allow. Use relu(x) and not relu_(x), or engine='auto'."
    )


def _counted(calls: Counter[str], name: str) -> Callable[..., None]:
    """A forward hook that counts the calls with a graph."""

    def note(*_: Any) -> None:
        calls[name] += torch.is_grad_enabled()

    return note


@contextmanager
def _attached(
    library: Any, model: nn.Module, layers: dict[str, nn.Module]
) -> Iterator[Counter[str]]:
    """BackPACK's hooks on the layers; nothing of them or their results stays."""
    handles = library.context.CTX.hook_handles  # a list that only grows
    known, calls = len(handles), Counter[str]()
    parameters = [(vars(p), dict(vars(p))) for p in model.parameters()]
    with attributes(model):
        try:
            for own, _ in parameters:
                own.pop(GRADIENTS, None)  # of the user's own passes
            for module in model.modules():
                if vars(module).get("inplace") is True:
                    vars(module)["inplace"] = False  # the same numbers, and hooks allow it
            for name, module in layers.items():
                vars(module).pop("_backpack_extend", None)  # the user's own
                module._is_full_backward_hook = None  # of hooks that the guard set aside
                library.extend(module)
                module.register_forward_hook(_counted(calls, name))
            yield calls
        finally:
            del handles[known:]
            for own, found in parameters:
                own.clear()
                own.update(found)
