"""One closed form for every editor that writes key-value pairs into a linear layer.

With keys K (F, N), residuals R (D, N), the second moment C (F, F) of the keys to be preserved and its weight w, the
update that minimises  w tr(D C D') + |D K - R|^2 + |D Kp|^2, Kp (F, M) the keys of earlier edits, is

    D = R A',   A = first-N part of  C^-1 [K Kp] (diag(w) + [K Kp]' C^-1 [K Kp])^-1

which needs one factor of C, cached, and one solve as large as the number of keys. Earlier keys make a sequence of
releases equal to one batch. A key's entry in diag(w) is its slack: with 0 for the new keys they are met exactly, which
is ROME for one fact and EMMET for many, while earlier keys and ordinary text are held as well as that allows.

With an orthogonal projector P and the identity in place of C^-1 and C it is AlphaEdit: the least |D|^2 whose rows lie in
the range of P, by the same small solve on P [K Kp].

Where more keys than F are written or held, the same update comes of an F x F solve instead, by the push-through identity
X (W + X'X)^-1 = (I + X W^-1 X')^-1 X W^-1: what it costs then grows with the number of keys, no longer with its cube.

Source: Meng et al. 2023, arXiv:2210.07229, eq. 14 (by the Woodbury identity); Gupta et al. 2024, arXiv:2403.14236, eq. 10;
Fang et al. 2025, arXiv:2410.02355, eq. 12.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from editors.errors import Diverged, IntegrityError

MAX_DIAGONAL_LOADING = 1e-3


def cholesky_factor(second_moment: Tensor, loading: float = 1e-6) -> Tensor:
    """Lower Cholesky factor, float64, of C + loading * mean(diag C) * I; C: (F, F).

    The loading is raised tenfold until the factor exists: a corpus with fewer tokens than F leaves C singular.

    Raises:
        IntegrityError: C is not finite, or no loading up to 1e-3 makes it positive definite.
    """
    moment = second_moment.double()
    scale = moment.diagonal().mean()
    if not bool(torch.isfinite(moment).all()) or float(scale) <= 0:
        raise IntegrityError("the second moment of the keys is not finite, or zero",
                             "delete the statistics folder and run again")
    while loading <= MAX_DIAGONAL_LOADING:
        loaded = moment + loading * scale * torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
        factor, failed = torch.linalg.cholesky_ex(loaded)
        if not int(failed):
            return factor
        loading *= 10
    raise IntegrityError("the second moment of the keys is not positive definite", "delete the statistics folder and run again")


def solve(keys: Tensor, residuals: Tensor, factor: Tensor, slack: float, held: Tensor | None = None,
          held_slack: float | None = None) -> tuple[Tensor, Tensor]:
    """The update as two factors, `left @ right` (D, F), float64.

    Args:
        keys: (F, N).
        residuals: (D, N): what the layer's output must gain at each key.
        factor: (F, F) float64, from `cholesky_factor`.
        slack: w >= 0, the weight of one preserved token of text against one new key; 0 meets the new keys exactly.
        held: (F, M) keys whose outputs must stay: those of accepted edits.
        held_slack: The same weight against one held key. None: `slack`.

    Returns:
        left (D, N): the residuals; right (N, F): how strongly each fires for a key.

    Raises:
        Diverged: keys or residuals are not finite, or with slack 0 two facts have the same key.
    """
    every_key = _checked(keys, residuals, held)
    whitened = torch.linalg.solve_triangular(factor, every_key, upper=False)
    mixed = _mixed(whitened, keys.shape[1], slack, slack if held_slack is None else held_slack)
    return residuals.double(), torch.linalg.solve_triangular(factor.T, mixed, upper=True).T


def solve_projected(keys: Tensor, residuals: Tensor, project: Callable[[Tensor], Tensor], slack: float,
                    held: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The update R K' P (Kp Kp' P + K K' P + slack I)^-1 as two factors, `left @ right` (D, F), float64.

    Args:
        keys: (F, N).
        residuals: (D, N): what the layer's output must gain at each key.
        project: P, an orthogonal projector on columns, (F, M) -> (F, M) float64.
        slack: L2 >= 0, the weight of the update's own squared norm against one key.
        held: (F, M) keys whose outputs must stay: those of accepted edits.

    Returns:
        left (D, N): the residuals; right (N, F): how strongly each fires for a key; its rows lie in the range of P.

    Raises:
        Diverged: keys or residuals are not finite, or with slack 0 two facts have the same key.
    """
    projected = project(_checked(keys, residuals, held))
    return residuals.double(), _mixed(projected, keys.shape[1], slack, slack).T


def _checked(keys: Tensor, residuals: Tensor, held: Tensor | None) -> Tensor:
    """New and held keys side by side, (F, N + M) float64."""
    if not bool(torch.isfinite(keys).all() and torch.isfinite(residuals).all()):
        raise Diverged("keys or residuals of the edit are not finite", "lower the clamp or the learning rate")
    return keys.double() if held is None else torch.cat([keys.double(), held.double()], dim=1)


def _mixed(whitened: Tensor, count: int, slack: float, held_slack: float) -> Tensor:
    """First `count` columns of X (diag(slack) + X' X)^-1, X (rank, N + M) the whitened keys, new ones first.

    By the smaller of the two systems; one of X's rank needs slack for every key.
    """
    rank, total = whitened.shape
    new, held = whitened[:, :count], whitened[:, count:]
    if total <= rank or min(slack, held_slack) <= 0:
        few = torch.cat([new, condensed(held)], dim=1)
        return few @ _mixing(few, count, slack, held_slack)
    gram = new @ new.T / slack + held @ held.T / held_slack
    gram.diagonal().add_(1.0)
    gram_factor, failed = torch.linalg.cholesky_ex(gram)
    if int(failed):
        raise Diverged("the keys of this batch are too large for their weight", "raise covariance_weight (alphaedit: ridge)")
    return torch.cholesky_solve(new, gram_factor) / slack


def condensed(held: Tensor) -> Tensor:
    """Held keys (F, M) as at most F columns with the same products H H', all of them that the update depends on."""
    return torch.linalg.qr(held.T, mode="r").R.T if held.shape[1] > held.shape[0] else held


def _mixing(whitened: Tensor, count: int, slack: float, held_slack: float) -> Tensor:
    """First `count` columns of (diag(slack) + X' X)^-1, X (rank, N + M) the whitened keys, new ones first."""
    gram = whitened.T @ whitened
    gram.diagonal()[:count].add_(slack)
    gram.diagonal()[count:].add_(held_slack)
    gram_factor, failed = torch.linalg.cholesky_ex(gram)
    if int(failed) or float(gram_factor.diagonal().min()) < 1e-6 * float(gram_factor.diagonal().max()):
        raise Diverged("two facts of this batch have the same key, so they cannot both be written exactly",
                             "use memit, or give the requests different subjects")
    selected = torch.eye(gram.shape[0], count, dtype=gram.dtype, device=gram.device)
    return torch.cholesky_solve(selected, gram_factor)
