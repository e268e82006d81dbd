"""Eigenvalues at the ends of a symmetric operator's spectrum, from its products alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError, check_whole
from ..tensors.random import generator
from ..tensors.sums import without_autocast
from ..tensors.trees import widen
from .convert import as_operator
from .copies import rows_without_copies
from .iteration import SLACK, Aim, Eigenpairs, check_operator, random_start, rows_within, run
from .krylov import Krylov
from .missed_eigenvalues import ANYTHING, Bounds, furthest
from .operator import MEMORY_BUDGET, Operator
from .ritz import RitzPairs

WHICH = ("LA", "SA", "LM", "BE")
CROWDED = 0.05  # beyond the bounds, where eigenvalues crowd too much to tell at the bounds
LEAST = 5  # rows of a basis that can be restarted for one pair

Found = tuple[Tensor, str]  # a direction in which there is more, and at which end


@without_autocast
def lanczos(
    operator: Any,
    *,
    k: int = 1,
    which: str = "LA",
    tol: float = 1e-3,
    max_iterations: int | None = None,
    v0: Tensor | None = None,
    repeats: bool = True,
    seed: int = 0,
    memory_budget: int = MEMORY_BUDGET,
) -> Eigenpairs:
    """k eigenpairs at an end of the spectrum by Lanczos with full reorthogonalisation.

    The Krylov basis Q turns H into a small T = QᵀHQ, whose eigenpairs (θ, s) give y = Qs with
    ‖Hy - θy‖ = β|s_last| (Golub and Van Loan, ch. 10). Every new vector is made orthogonal to all
    earlier ones, once more where that takes digits. A basis that fills its budget is restarted
    from its best Ritz vectors (thick restart: Wu and Simon 2000). One Krylov space holds only one
    vector of a repeated eigenvalue. So for k > 1, and where the space of a `v0` closes, a random
    direction orthogonal to it is followed until, with probability 1 - 1e-3, no larger one is left,
    or one appears: about 5 products where the wanted eigenvalues are well separated, a third of all
    where they are close. There this holds for eigenvalues larger by more than 5 %; a closer one was
    missed from up to 5 starts in 1000. A start with almost no component along the wanted vector, as
    a `v0` can have, may converge to another eigenvector; its residual is then correct as well.

    Args:
        operator: anything symmetric of shape (P, P) with `@` on vectors: ours, a tensor, an array,
            a SciPy LinearOperator, curvlinops. Of one whose vectors ranks share, all of them call.
        k: number of pairs, at most P.
        which: "LA" largest algebraic, "SA" smallest algebraic, "LM" largest magnitude, "BE" from
            both ends in turn, beginning at the upper.
        tol: stop when every wanted residual is at most tol·|θ|, apart from rounding of products:
            1e-12 of the largest |eigenvalue| (1e-6 in float32) is enough for every residual.
        max_iterations: products at most; default max(200, 20 k).
        v0: where to start, shape (P,); default random by `seed`.
        repeats: whether to look for what the first space cannot hold. Without, an eigenvalue that
            is repeated counts once, as for ARPACK, and no more products are spent than there.
        seed: of the random directions.
        memory_budget: bytes of the basis; the default one grows to k + 8 vectors.

    Returns:
        Eigenpairs, in the unit of the operator's entries; `converged` is False when
        `max_iterations` came first, and then there can be fewer than k.

    Raises:
        ArgumentError: k, which, tol, max_iterations or v0 out of range; a budget of fewer than
            k + 4 vectors.
        OperatorError: the operator is empty, not square or not symmetric, or a product is not
            finite.

    Example:
        >>> lanczos(torch.diag(torch.tensor([-10.0, 3.0, 1.0], dtype=torch.float64))).values
        tensor([3.0...], dtype=torch.float64)
    """
    matrix = as_operator(operator)
    _check(matrix, k, which, max_iterations)
    limit = max_iterations or max(200, 20 * k)
    if limit < k:
        raise ArgumentError(f"`max_iterations` = {max_iterations} cannot give k = {k} pairs")
    aim = Aim(k, which, tol, limit, None, random=v0 is None)
    start = None if v0 is None else _given_start(matrix, v0)
    rows = rows_within(matrix, k, memory_budget)
    pairs, bound = _found(matrix, aim, start, rows, seed, repeats)
    pursued = aim
    while pairs.done and (excess := aim.excess(pairs)) > SLACK:
        # what was found apart blurs what is smaller by far: once more, all of it closer
        closer = max(pursued.tol / excess, matrix.resolution)
        left = limit - pairs.matvecs
        if closer >= pursued.tol or left < k:
            break
        pursued = replace(pursued, tol=closer, limit=left)
        again, _ = _found(matrix, pursued, start, rows, seed, repeats)
        better = again if again.done else pairs
        pairs = replace(better, matvecs=pairs.matvecs + again.matvecs, done=again.done)
    return aim.eigenpairs(pairs, bound)


def _found(
    matrix: Operator, aim: Aim, start: Tensor | None, rows: int, seed: int, repeats: bool
) -> tuple[RitzPairs, float]:
    """The pairs, and beyond what there is no eigenvalue."""
    source = generator(seed)
    krylov = Krylov(matrix, rows, random_start(matrix, source) if start is None else start)
    pairs = run(krylov, aim)
    bound = math.nan if start is not None else furthest(krylov, aim.which)
    incomplete = len(pairs.values) < aim.k or (start is not None and krylov.is_closed)
    whole = krylov.count == krylov.size
    if whole or not pairs.done or not (incomplete or (repeats and aim.k > 1)):
        return pairs, bound
    capacity, room = krylov.capacity, krylov.room
    known = rows_without_copies(krylov, aim.best(krylov.ritz[0], aim.k))
    if room < LEAST:
        known, room = [pairs.vectors.T], capacity
    del krylov  # and with it the basis, unless that is what to avoid
    pairs, found = _searched(matrix, pairs, aim, source, known, room)
    while found is not None:
        known = [pairs.vectors.T]
        start, end = found
        overlaps = pairs.space.overlaps(known[0], start)
        start = start - pairs.vectors @ overlaps  # was in rows left out
        start = start / pairs.space.norm(start)
        rest = replace(aim, k=1, which=end, limit=aim.limit - pairs.matvecs, random=False)
        pairs = pairs.joined(run(Krylov(matrix, capacity, start, known, pairs.scale), rest))
        pairs = pairs.taken(aim.best(pairs.values, aim.k))
        known = [pairs.vectors.T]
        pairs, found = _searched(matrix, pairs, aim, source, known, capacity)
    return pairs, bound


def _given_start(matrix: Operator, v0: Any) -> Tensor:
    """The vector of norm 1."""
    space = matrix.space
    size = space.local_size
    try:
        vector = torch.as_tensor(v0).detach().to(matrix.device)
    except (TypeError, ValueError, RuntimeError) as error:
        got = type(v0).__name__
        raise ArgumentError(f"`v0` must be a vector of length {size}; got {got}") from error
    if vector.shape != (size,):
        raise ArgumentError(
            f"`v0` must be a vector of length {size}; got shape {tuple(vector.shape)}"
            + ("; take a column, v0[:, 0]" if vector.shape[:1] == (size,) else "")
        )
    vector = widen(vector)
    vector = (vector / float(space.largest(vector))).to(matrix.dtype)
    if not space.is_finite(vector):
        raise ArgumentError("`v0` must be finite and not zero")
    return vector / space.norm(vector)


def _searched(
    matrix: Operator,
    pairs: RitzPairs,
    aim: Aim,
    source: torch.Generator,
    known: Sequence[Tensor],
    room: int,
) -> tuple[RitzPairs, Found | None]:
    """The pairs, and a direction orthogonal to them with a wanted eigenvalue, if there is one."""
    if not pairs.done or len(pairs.values) == matrix.shape[0]:
        return pairs, None
    krylov = Krylov(matrix, room, random_start(matrix, source, known), known, pairs.scale)
    found, settled = _search(krylov, pairs, replace(aim, limit=aim.limit - pairs.matvecs))
    spent = pairs.matvecs + krylov.matvecs
    pairs = replace(pairs, matvecs=spent, done=settled, scale=krylov.scale)
    if found is not None and pairs.matvecs == aim.limit:
        return replace(pairs, done=False), None
    return pairs, found


def _search(krylov: Krylov, pairs: RitzPairs, aim: Aim) -> tuple[Found | None, bool]:
    """A direction with more eigenvalues, if there is one; and whether the search is complete."""
    bounds = ANYTHING
    while krylov.matvecs < aim.limit:
        aim.extend(krylov, LEAST - 2)
        values, coordinates, residuals = krylov.ritz
        zero = krylov.zero  # which these products may have raised
        if len(pairs.values) == aim.k:
            bounds = Bounds.of(pairs.values, aim.which, aim.tol, zero)
        best = aim.best(values, 2 if aim.which == "BE" else 1)
        beyond = best[bounds.outside(values[best])]
        if len(beyond):
            below = aim.which == "SA" or (aim.which != "LA" and values[beyond[0]] < bounds.low)
            end = aim.which if aim.which == "LM" else "SA" if below else "LA"
            return (krylov.combined(coordinates[:, beyond[:1]])[:, 0], end), True
        converged = bool((residuals[best] <= aim.allowed(values[best], zero)).all())
        if bounds.nothing_beyond(krylov) or (
            converged and (krylov.was_restarted or bounds.nothing_beyond(krylov, CROWDED))
        ):
            return None, True
    return None, False


def _check(matrix: Operator, k: int, which: str, max_iterations: int | None) -> None:
    check_operator(matrix)
    check_whole("k", k, 1)
    if k > matrix.shape[0]:
        raise ArgumentError(f"`k` must be from 1 to the operator's size {matrix.shape[0]}; got {k}")
    if which not in WHICH:
        raise ArgumentError(f"`which` must be one of {', '.join(WHICH)}; got {which!r}")
    if max_iterations is not None:
        check_whole("max_iterations", max_iterations, 1)
