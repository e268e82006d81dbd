"""The noise scale of spectral descent, a model of Muon."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...errors import ArgumentError
from ...statistics.estimate import Estimate
from ..from_arrays.inputs import as_rows
from .dual_norm import SPLITS, Geometry, dual_noise_scale

SIDES = ("rows", "columns")


def spectral_noise_scale(
    gradients: Any,
    *,
    side: str,
    population: str | int = "distribution",
    splits: int = SPLITS,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """(tr C^½)²/‖G‖²_S1, the noise scale of spectral descent, a model of Muon.

    ‖·‖_S1 is the sum of singular values, and C = E[(g - G)(g - G)ᵀ] for the rows, or
    E[(g - G)ᵀ(g - G)] for the columns. The two noise scales differ; both bound the noise
    E‖g - G‖_S1 from above, so the smaller one is closer. Over several matrices both parts are
    summed first. tr Ĉ^½ is biased downwards (a concave function of Ĉ) unless n times the length of
    the other side is well above the length of this side. Signal and interval are as for
    `sign_noise_scale`, with the polar factor UVᵀ as direction.

    Args:
        gradients: per-sample gradients of a matrix, (n, rows, columns), or name -> such arrays.
        side: "rows" or "columns".
        population, splits, level, seed: as for `sign_noise_scale`.

    Returns:
        Estimate in samples.

    Raises:
        ArgumentError: gradients that are no matrices, or an option out of range.

    Source: arXiv:2602.03001 for the ratio; the debiasing is ours (docs/theory/diagnostics.md).

    Example:
        >>> noise = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None, None] * torch.eye(2)
        >>> rows = 2 * torch.eye(2) + noise  # C = 4/3 I: tr C^½ = 4/√3; ‖G‖ = 4
        >>> round(float(spectral_noise_scale(rows, side="rows", population="dataset")), 4)
        0.3333
    """
    if side not in SIDES:
        raise ArgumentError(f"`side` must be one of {', '.join(SIDES)}; got {side!r}")
    rows = as_rows(gradients, least=4)
    if any(tensor.ndim != 3 for tensor in rows.values()):
        shapes = [tuple(tensor.shape) for tensor in rows.values()]
        raise ArgumentError(
            f"`gradients` must be of matrices, (n, rows, columns); got shapes {shapes}. Leave out "
            f"biases, and reshape convolutions as the optimizer does"
        )
    if side == "columns":
        rows = {name: tensor.mT for name, tensor in rows.items()}
    return dual_noise_scale(
        rows, Geometry(_spectral_noise, _polar), population, splits, level, seed
    )


def _spectral_noise(centred: Tensor) -> tuple[float, Tensor]:
    second = torch.einsum("nik,njk->ij", centred, centred) / (len(centred) - 1)
    values, vectors = torch.linalg.eigh(second)
    kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1].clamp(min=0)
    roots = values.clamp(min=0).sqrt()
    weights = torch.where(kept, 0.5 / roots, 0.0)
    along = (vectors.T @ centred).square().sum(2)  # [n, rows]
    return float(roots.sum()), along @ weights - roots.sum() / 2


def _polar(matrix: Tensor) -> Tensor:
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    kept = values > max(matrix.shape) * torch.finfo(values.dtype).eps * values[:1]
    polar: Tensor = left * kept @ right
    return polar
