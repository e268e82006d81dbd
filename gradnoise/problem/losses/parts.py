"""A batch divided into what the model is given and the target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ...errors import LossError
from ...tensors.trees import Batch
from .call import call, takes
from .loss_fn import listed, what

TARGETS = ("labels", "label", "targets", "target", "y")


@dataclass(frozen=True)
class Parts:
    """What the model is given, and the target that its outputs are compared with.

    Args:
        args, kwargs: the model's arguments.
        target: the rest.
        got: what the arguments are, for messages.
    """

    args: tuple[Any, ...]
    target: Any
    got: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module, batch: Batch) -> Parts:
        """The parts of a batch, by the rules of `gn.supervised`.

        Raises:
            LossError: no tuple or list of two entries or more, and no mapping with one target.
        """
        if isinstance(batch, Mapping):
            return cls._of_mapping(model, batch)
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            raise LossError(
                f"a criterion needs batches (inputs, targets); got {_counted(batch)}. Let the data "
                f"give pairs, several inputs with the target last, or mappings with 'labels'; or "
                f"write a loss_fn(model, batch) that returns one loss per sample."
            )
        *inputs, target = batch
        got = f"got {_counted(batch)}, whose first {len(inputs)} entries"
        if len(inputs) > 1:
            return cls(tuple(inputs), target, got)
        got = f"got {_counted(batch)}, whose first entry"
        (first,) = inputs
        several = isinstance(first, (tuple, list)) and not takes(model, first)
        spread = several and takes(model, *first)
        return cls(tuple(first) if spread else (first,), target, got)

    @classmethod
    def _of_mapping(cls, model: nn.Module, batch: Mapping[str, Any]) -> Parts:
        found = [name for name in TARGETS if name in batch]
        if len(found) != 1:
            raise LossError(
                f"got a mapping with the keys {listed(batch)}, {len(found) or 'none'} of which "
                f"can be the target ({', '.join(TARGETS)}). Give one of these names to the target "
                f"and to nothing else, or write a loss_fn(model, batch) that returns one loss per "
                f"sample."
            )
        inputs = {name: item for name, item in batch.items() if name != found[0]}
        got = f"got a mapping whose entries {listed(inputs)}"
        if len(inputs) == 1 and not takes(model, **inputs):
            return cls(tuple(inputs.values()), batch[found[0]], got)
        return cls((), batch[found[0]], got, inputs)

    def outputs(self, model: nn.Module) -> Any:
        """What the model returns for them."""
        return call(model, self.args, self.kwargs, self.got)


def _counted(batch: Any) -> str:
    size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
    return f"{what(batch)}{size}"
