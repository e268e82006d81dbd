"""How much was computed, in units of plain passes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace

FORWARD, BACKWARD, SECOND = 1, 2, 6  # of a linear layer, in products of matrices


@dataclass
class Work:
    """Samples that were evaluated and differentiated, each as often as it was.

    A linear layer takes one product of matrices forward, two backward, and six for a further
    derivative through the graph of the gradient. A plain pass, forward and backward, is three.

    Args:
        forward: samples whose losses were evaluated.
        gradients: samples whose losses were differentiated.
        products: samples whose gradients were differentiated, along one direction each.
        calls: in how many backward passes; each makes a vector of the length of the parameters.
    """

    forward: int = 0
    gradients: int = 0
    products: int = 0
    calls: int = 0

    def differentiated(self, samples: int) -> None:
        """Count a backward pass through the losses of so many samples."""
        self.gradients += samples
        self.calls += 1

    def multiplied(self, samples: int, directions: int = 1) -> None:
        """Count products with the Hessians of so many samples."""
        self.products += samples * directions
        self.calls += 1

    def passes(self, samples: int) -> float:
        """In plain forward and backward passes over so many samples.

        Example:
            >>> Work(forward=20, gradients=20, products=10).passes(10)  # a gradient and a product
            4.0
        """
        own = FORWARD * self.forward + BACKWARD * self.gradients + SECOND * self.products
        return own / ((FORWARD + BACKWARD) * samples)

    @classmethod
    def together(cls, parts: Iterable[Work]) -> Work:
        """The work of several ranks."""
        return cls(*map(sum, zip(*map(astuple, parts), strict=True)))

    def since(self, before: Work) -> Work:
        """What came after."""
        return Work(
            self.forward - before.forward,
            self.gradients - before.gradients,
            self.products - before.products,
            self.calls - before.calls,
        )

    def copy(self) -> Work:
        """As it is now."""
        return replace(self)
