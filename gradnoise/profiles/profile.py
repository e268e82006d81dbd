"""What `gn.profile` returns: the results, and the ways to show and keep them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import file
from .picture import draw
from .results import Results
from .text import write


@dataclass(frozen=True)
class Profile(Results):
    """The noise and curvature of one model at one point of its training.

    Args:
        model: class name; `parameters` its trainable parameters P.
        mode: "train", "eval" or "mixed": how the modules were set.
        dtype, device: of the parameters.
        samples, population: n and N (inf for a distribution).
        level: coverage of the intervals.
        seed: of samples and probes.
        engine, engine_reason: how per-sample gradients were made, and why so.
        estimates: by name; read them as attributes.
        layers: moments and shares of the curvature module by module; see `Layer`.
        optimizer: what the given optimizer says, or None.
        metric: "euclidean", or "optimizer": estimates are of P^-½g and P^-½HP^-½, and learning
            rates those of the optimizer.
        batch_size: of the data loader or as given, or None.
        matvecs: Hessian-vector products of the eigenvalue iteration.
        warnings: what the reader should know.
        versions: of gradnoise and torch.
        groups: the same as `layers` for the optimizer's parameter groups, "group 0" and on; empty
            without an optimizer.
        curvature_spread: the spread of the samples' curvature in the sharpest directions, or None.
    """

    def plot(self, path: str | Path | None = None) -> Any:
        """The regime map, learning rate against batch size, as a matplotlib Figure.

        Args:
            path: where to save it as well; the suffix says the format.

        Raises:
            NotMeasuredError: curvature was not measured.
            ImportError: matplotlib is not installed.
        """
        return draw(self, path)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values that JSON can hold; infinities as strings."""
        return file.to_dict(self)

    def save(self, path: str | Path) -> None:
        """Write `to_dict` as JSON, whole or not at all."""
        file.save(self.to_dict(), path)

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read a saved profile.

        Raises:
            ProfileFileError: no such file, damaged, or not a profile of this version.
        """
        return file.load(cls, path)  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return write(self)
