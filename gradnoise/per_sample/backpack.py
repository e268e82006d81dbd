"""BackPACK: one backward pass in which each layer gives the gradients of its samples.

Dangel, Kunstner and Hennig 2020, arXiv:1912.10985. BackPACK 1.7.1 is silently wrong for tied
weights, a layer called again on what is detached, convolutions with padding "same" or circular,
initial states of RNNs and samples that are not the leading dimension; and for norms of grouped
convolutions, whose gradients are right. So it is checked against single samples first.
"""

from __future__ import annotations

import importlib
import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import EngineError, first_line
from ..problem.guard import attributes
from ..problem.objective import Objective
from ..problem.problem import TRIAL_SAMPLES
from ..tensors.trees import Batch, TensorDict, sample_count, select, split, widen
from .contract.engine import COPIES, MEMORY_BUDGET, Engine
from .contract.summary import Chunk, Summary, Wanted, check_norms
from .hooks.precision import allowed, largest_of
from .loop import Loop

GRADIENTS, NORMS, SQUARES = "grad_batch", "batch_l2", "sum_grad_squared"  # where results are left
EXTENSIONS = {GRADIENTS: "BatchGrad", NORMS: "BatchL2Grad", SQUARES: "SumGradSquared"}


class BackPACK(Engine):
    """BackPACK's `BatchGrad` for gradients, `BatchL2Grad` and `SumGradSquared` for their sums.

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
        self._sums_are_right = False
        self._written_out = list(objective.parameters)  # whose gradients their norms are made of

    def chunks(self, batch: Batch) -> Iterator[Chunk]:
        self._verify(batch)
        for part in split(batch, self._rows(self.objective.sample_bytes)):
            found = self._pass(part, GRADIENTS)
            yield Chunk(found.losses, found.left[GRADIENTS])

    def summaries(self, batch: Batch, wanted: Wanted) -> Iterator[Summary]:
        self._verify(batch)
        needs_gradients = wanted.directions is not None or wanted.scale is not None
        if needs_gradients or not self._sums_are_right:
            yield from self.centred_summaries(batch, wanted)
            return
        written_out = (self.objective.parameters[name] for name in self._written_out)
        # one parameter at a time is written out, and freed
        largest = max((p.numel() * p.element_size() for p in written_out), default=1)
        for part in split(batch, self._rows(largest)):
            found = self._pass(part, NORMS, *([SQUARES] if wanted.variance else []))
            yield _summary(found)

    def _rows(self, sample_bytes: int) -> int:
        return max(1, self._budget // sample_bytes)

    def _verify(self, batch: Batch) -> None:
        """Check what BackPACK gives for a few samples against one backward pass per sample."""
        few = select(batch, slice(0, TRIAL_SAMPLES))
        if sample_count(few) <= self._verified:
            return
        single = list(Loop(self.objective).chunks(few))
        truth = {n: torch.cat([c.gradients[n] for c in single]) for n in self.objective.parameters}
        wrong = _differing(self._pass(few, GRADIENTS).left[GRADIENTS], truth)
        if wrong:
            raise EngineError(
                f"BackPACK's gradients of {_listed(wrong)} are not those of single samples. It "
                f"takes the leading dimension for the samples, and overlooks uses of a parameter "
                f"outside its layer and initial states. Use engine='auto'."
            )
        self._sums_are_right = self._try_sums(few, truth)
        self._verified = sample_count(few)

    def _try_sums(self, few: Batch, truth: TensorDict) -> bool:
        """Whether norms and squares are right too; half precision has no room for squares."""
        if any(torch.finfo(g.dtype).bits < 32 for g in truth.values()):
            return False
        try:
            left = self._pass(few, NORMS, SQUARES).left
        except EngineError:
            return False
        norms = {n: g.flatten(1).square().sum(1) for n, g in truth.items()}
        squares = {n: g.square().sum(0) for n, g in truth.items()}
        return not _differing(left[NORMS], norms) and not _differing(left[SQUARES], squares)

    def _pass(self, batch: Batch, *fields: str) -> _Found:
        """One forward and one backward pass that leave these attributes on the parameters."""
        with _attached(self._library, self.objective.model, self._layers) as watch:
            losses = _forward(self.objective, batch)
            _refuse_repeats(watch)
            total = self._backward(losses, fields)
            left = {field: self._read(field, len(losses), total) for field in fields}
        self._written_out = [n for n in self.objective.parameters if n not in watch.in_factors]
        named = self.objective.parameters.items()
        dense = {n: torch.zeros_like(p) if (g := total[n]) is None else g for n, p in named}
        return _Found(losses.detach(), dense, left)

    def _backward(self, losses: Tensor, fields: tuple[str, ...]) -> dict[str, Tensor | None]:
        """Σ_i g_i by name, None where a parameter takes no part; not added to any `.grad`."""
        parameters = self.objective.parameters
        if not losses.requires_grad:
            return dict.fromkeys(parameters)
        extensions = [getattr(self._library.extensions, EXTENSIONS[field])() for field in fields]
        try:
            with self._library.backpack(*extensions), warnings.catch_warnings():
                for text in ("Extension saving to", "Full backward hook is firing"):
                    warnings.filterwarnings("ignore", message=text)
                found = torch.autograd.grad(losses.sum(), [*parameters.values()], allow_unused=True)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a layer's options that are not supported end in any error
            raise EngineError(
                f"BackPACK failed with {first_line(error).rstrip('.')}. Use engine='auto'."
            ) from error
        return dict(zip(parameters, found, strict=True))

    def _read(self, field: str, count: int, total: dict[str, Tensor | None]) -> TensorDict:
        """What the extension left on each parameter."""
        found, bad = {}, []
        for name, p in self.objective.parameters.items():
            shape = {GRADIENTS: (count, *p.shape), NORMS: (count,), SQUARES: p.shape}[field]
            value = vars(p).get(field)
            if value is None and total[name] is None:
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


@dataclass(frozen=True, eq=False)
class _Found:
    """Losses (n,), Σ_i g_i by name, and by field what the extensions left, by name."""

    losses: Tensor
    total: TensorDict
    left: dict[str, TensorDict]


@dataclass(frozen=True)
class _Calls:
    """Calls of each layer, and the weights whose norms are products of norms."""

    calls: Counter[str] = field(default_factory=Counter)
    in_factors: set[str] = field(default_factory=set)

    def hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def note(module: nn.Module, inputs: tuple[Any, ...], _: Any) -> None:
            self.calls[name] += torch.is_grad_enabled()
            if isinstance(module, nn.Linear) and inputs and inputs[0].ndim == 2:
                self.in_factors.add(f"{name}.weight".lstrip("."))

        return note


def _summary(found: _Found) -> Summary:
    wide = {f: {n: widen(own) for n, own in left.items()} for f, left in found.left.items()}
    norms = check_norms(wide[NORMS])
    return Summary(found.losses, found.total, norms, squares=wide.get(SQUARES))


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


def _refuse_repeats(watch: _Calls) -> None:
    repeated = [f"{name!r} {calls} times" for name, calls in watch.calls.items() if calls > 1]
    if repeated:
        raise EngineError(
            f"the forward pass calls module {_listed(repeated)}, and BackPACK handles only "
            f"one call of a module. Use engine='auto'."
        )


def _forward(objective: Objective, batch: Batch) -> Tensor:
    try:
        return objective.losses(batch)
    except RuntimeError as error:
        if "BackwardHookFunction" not in str(error):
            raise
        raise EngineError(
            "the model changes the output of a layer in place, which BackPACK's hooks do not "
            "allow. Use relu(x) and not relu_(x), or engine='auto'."
        ) from error


@contextmanager
def _attached(library: Any, model: nn.Module, layers: dict[str, nn.Module]) -> Iterator[_Calls]:
    """BackPACK's hooks on the layers; nothing of them or their results stays."""
    handles = library.context.CTX.hook_handles  # a list that only grows
    known, watch = len(handles), _Calls()
    parameters = [(vars(p), dict(vars(p))) for p in model.parameters()]
    with attributes(model):
        try:
            for (own, _), name in itertools.product(parameters, EXTENSIONS):
                own.pop(name, None)  # of the user's own passes
            for module in model.modules():
                if vars(module).get("inplace") is True:
                    vars(module)["inplace"] = False  # the same numbers, and hooks allow it
            for name, module in layers.items():
                vars(module).pop("_backpack_extend", None)  # the user's own
                module._is_full_backward_hook = None  # of hooks that the guard set aside
                library.extend(module)
                module.register_forward_hook(watch.hook(name))
            yield watch
        finally:
            del handles[known:]
            for own, found in parameters:
                own.clear()
                own.update(found)
