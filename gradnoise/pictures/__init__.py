"""Every picture as a function that takes and returns matplotlib Axes.

Without `axes` a new Figure is made, of which pyplot knows nothing: `drawn.figure` is the Figure,
with `savefig`. Given `axes`, nothing else in their figure changes; make it with
`layout="constrained"`, so that there is room for the legend below them. docs/pictures.md shows all.

Example:
    >>> import torch, gradnoise as gn
    >>> toy = gn.toy.NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
    >>> p = gn.profile(toy.model(), toy.loss_fn, toy.sample(256, seed=0))
    >>> gn.pictures.regime_map(p).get_xlabel()
    'batch size B (samples)'
"""

from ..history.picture import loss, noise_scale
from ..linalg.density.picture import spectral_density
from ..profiles.picture import regime_map
from ..profiles.picture_of_layers import layers
from ..profiles.picture_of_trade_off import trade_off
from ..sweeps.picture import sweep
from ..trials.picture import branches

__all__ = [
    "branches",
    "layers",
    "loss",
    "noise_scale",
    "regime_map",
    "spectral_density",
    "sweep",
    "trade_off",
]
