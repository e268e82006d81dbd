"""The model as the loop calls it, and the parameters that are measured in it now."""

from __future__ import annotations

from torch import nn

from ..problem.state.wrappers import bare_model, trainable
from ..tensors.trees import TensorDict
from .normalisation import norm_parameters


class Watched:
    """A model whose parameters may be frozen, thawed or replaced along the run.

    Args:
        model: the object that is called.
        of_norms: whether the parameters of normalisation layers alone are measured.

    Attributes:
        parameters: trainable ones by name.
        names: of those that are measured.
    """

    def __init__(self, model: nn.Module, of_norms: bool = False) -> None:
        self.model, self.of_norms = model, of_norms
        self.parameters: TensorDict = {}
        self.names: list[str] = []
        self._seen: list[int] = []  # parameters, and modes of modules
        self.refresh()

    def refresh(self) -> bool:
        """Take the model as it is; whether parameters or modes of modules are others now."""
        own = bare_model(self.model)
        self.parameters = {**trainable(own)}
        names = norm_parameters(own, self.parameters) if self.of_norms else [*self.parameters]
        now = [*map(id, self.parameters.values()), *(m.training for m in own.modules())]
        before, self._seen, self.names = self._seen, now, names
        return now != before
