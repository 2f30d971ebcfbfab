from __future__ import annotations

import pytest
import torch

from editors.errors import IntegrityError
from editors.neuron_factors import Curvature, fitted_change, least_change


def problem(texts: int = 4, neurons: int = 30) -> tuple[torch.Tensor, Curvature, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    gradients, kept = (torch.randn(count, neurons, generator=draw) for count in (6, 3))
    curvature = Curvature.of([(gradients, 1.0), (kept, 5.0)], 0.1)
    dense = gradients.double().T @ gradients.double() / 6 + 5 * kept.double().T @ kept.double() / 3
    dense += 0.1 * torch.diag(dense.diagonal() + dense.diagonal().mean())
    return torch.randn(texts, neurons, generator=draw).double(), curvature, dense


def test_the_inverse_is_that_of_the_dense_matrix() -> None:
    jacobian, curvature, dense = problem()
    assert torch.allclose(curvature.solve(jacobian.T), torch.linalg.solve(dense, jacobian.T), atol=1e-10)
    change = jacobian[0]
    assert curvature.cost(change) == pytest.approx(float(change @ dense @ change) / 2)


def test_one_text_has_the_change_of_the_closed_form() -> None:
    jacobian, curvature, dense = problem(texts=1)
    spread = torch.linalg.solve(dense, jacobian[0])
    expected = -2.0 * spread / (jacobian[0] @ spread)
    assert torch.allclose(least_change(jacobian, torch.tensor([2.0]).double(), curvature), expected, atol=1e-7)


def test_several_texts_have_the_change_that_a_slow_search_finds() -> None:
    jacobian, curvature, dense = problem()
    needed = torch.tensor([2.0, 1.0, -3.0, 0.5]).double()
    change = least_change(jacobian, needed, curvature)
    assert float((jacobian @ change + needed).max()) < 1e-6
    # every set of binding texts solved as equations; the least that keeps the others is the answer
    costs = []
    for chosen in range(1, 16):
        rows = [row for row in range(4) if chosen >> row & 1]
        spread = torch.linalg.solve(dense, jacobian[rows].T)
        other = -spread @ torch.linalg.solve(jacobian[rows] @ spread, needed[rows])
        if float((jacobian @ other + needed).max()) < 1e-9:
            costs.append(float(other @ dense @ other) / 2)
    assert curvature.cost(change) == pytest.approx(min(costs), rel=1e-6)


def test_what_is_hidden_already_changes_nothing() -> None:
    jacobian, curvature, _ = problem()
    assert not bool(least_change(jacobian, torch.full((4,), -1.0).double(), curvature).any())


def test_steps_follow_an_excess_that_bends() -> None:
    jacobian, curvature, _ = problem()

    def read(change: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        line = jacobian @ change
        return 8 * torch.tanh(1 + line / 8), jacobian / torch.cosh(1 + line / 8).square()[:, None]

    found = fitted_change(read, curvature, torch.full((4,), 0.5).double(), 50.0, 60)
    assert float(read(found.change)[0].max()) <= -0.2
    assert 1 < found.steps < 60


def test_factors_stay_within_their_range_and_the_best_step_is_kept() -> None:
    jacobian, curvature, _ = problem()
    found = fitted_change(lambda change: (jacobian @ change + 100, jacobian), curvature, torch.zeros(4).double(), 0.3, 5)
    assert float(found.change.abs().max()) <= 0.3


def test_numbers_that_are_not_finite_are_refused() -> None:
    jacobian, curvature, _ = problem()
    with pytest.raises(IntegrityError, match="not finite"):
        fitted_change(lambda _: (torch.full((4,), float("nan")), jacobian), curvature, torch.zeros(4).double(), 1.0, 3)
