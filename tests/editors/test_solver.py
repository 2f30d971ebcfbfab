"""The closed form against dense algebra written out the slow way, and the identities between the methods."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from editors.errors import IntegrityError
from editors.null_space import null_space, spectrum_of
from editors.solver import cholesky_factor, condensed, solve, solve_projected

D, F, N = 7, 23, 5


@pytest.fixture
def problem() -> dict[str, torch.Tensor]:
    """A random well-posed problem, float64."""
    generator = torch.Generator().manual_seed(3)
    sample = torch.randn(200, F, generator=generator, dtype=torch.float64)
    return {"C": sample.T @ sample / 200, "K": torch.randn(F, N, generator=generator, dtype=torch.float64),
            "R": torch.randn(D, N, generator=generator, dtype=torch.float64),
            "Kp": torch.randn(F, 4, generator=generator, dtype=torch.float64)}


def dense(moment: torch.Tensor, keys: torch.Tensor, residuals: torch.Tensor, weight: float) -> torch.Tensor:
    """R K' (w C + K K')^-1, eq. 14 of the MEMIT paper as printed: an F x F inverse."""
    return residuals @ keys.T @ torch.linalg.inv(weight * moment + keys @ keys.T)


def factor(problem: dict[str, torch.Tensor]) -> torch.Tensor:
    return cholesky_factor(problem["C"], loading=1e-15)


@pytest.mark.parametrize("weight", [0.1, 1.0, 1500.0])
def test_small_solve_equals_the_printed_equation(problem: dict[str, torch.Tensor], weight: float) -> None:
    left, right = solve(problem["K"], problem["R"], factor(problem), weight)
    torch.testing.assert_close(left @ right, dense(problem["C"], problem["K"], problem["R"], weight), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("held_slack", [None, 0.25])
def test_more_keys_than_dimensions_equal_the_equation(problem: dict[str, torch.Tensor], held_slack: float | None) -> None:
    generator = torch.Generator().manual_seed(8)
    keys, held = (torch.randn(F, count, generator=generator, dtype=torch.float64) for count in (2 * F, 3 * F))
    residuals = torch.randn(D, 2 * F, generator=generator, dtype=torch.float64)
    left, right = solve(keys, residuals, factor(problem), 2.0, held, held_slack)
    normal = problem["C"] + keys @ keys.T / 2.0 + held @ held.T / (held_slack or 2.0)
    torch.testing.assert_close(left @ right, residuals @ keys.T @ torch.linalg.inv(normal) / 2.0, rtol=1e-8, atol=1e-10)


def test_more_keys_than_dimensions_are_projected_alike(problem: dict[str, torch.Tensor]) -> None:
    axes = torch.linalg.qr(problem["C"])[0][:, :9]
    generator = torch.Generator().manual_seed(9)
    keys, residuals = (torch.randn(rows, 3 * F, generator=generator, dtype=torch.float64) for rows in (F, D))
    left, right = solve_projected(keys, residuals, lambda columns: axes @ (axes.T @ columns), 0.5)
    inside = axes.T @ keys
    expected = residuals @ inside.T @ torch.linalg.inv(inside @ inside.T + 0.5 * torch.eye(9, dtype=torch.float64)) @ axes.T
    torch.testing.assert_close(left @ right, expected, rtol=1e-8, atol=1e-10)


def test_operations_grow_with_the_keys_and_not_with_their_cube(problem: dict[str, torch.Tensor]) -> None:
    def counted(count: int) -> int:
        with FlopCounterMode(display=False) as counter:
            solve(torch.ones(F, count, dtype=torch.float64), torch.ones(D, count, dtype=torch.float64), factor(problem), 1.0)
        return counter.get_total_flops()

    assert counted(40 * F) == 2 * counted(20 * F)


def test_rome_is_the_rank_one_case_with_weight_zero(problem: dict[str, torch.Tensor]) -> None:
    key, value = problem["K"][:, :1], problem["R"][:, :1]
    direction = torch.linalg.inv(problem["C"]) @ key
    expected = value @ direction.T / (direction.T @ key)
    left, right = solve(key, value, factor(problem), 0.0)
    torch.testing.assert_close(left @ right, expected, rtol=1e-8, atol=1e-10)


def test_weight_zero_meets_every_fact_exactly(problem: dict[str, torch.Tensor]) -> None:
    left, right = solve(problem["K"], problem["R"], factor(problem), 0.0)
    torch.testing.assert_close(left @ right @ problem["K"], problem["R"], rtol=1e-9, atol=1e-9)


def test_emmet_with_ridge_is_memit_with_the_product_of_both_weights(problem: dict[str, torch.Tensor]) -> None:
    scaled, ridge = 1e3 * problem["C"], 0.1
    whitened = torch.linalg.inv(scaled) @ problem["K"]
    emmet = problem["R"] @ torch.linalg.inv(problem["K"].T @ whitened + ridge * torch.eye(N, dtype=torch.float64)) @ whitened.T
    left, right = solve(problem["K"], problem["R"], factor(problem), 1e3 * ridge)
    torch.testing.assert_close(left @ right, emmet, rtol=1e-8, atol=1e-10)


def test_memit_tends_to_rome_as_the_weight_goes_to_zero(problem: dict[str, torch.Tensor]) -> None:
    key, value = problem["K"][:, :1], problem["R"][:, :1]
    exact = torch.matmul(*solve(key, value, factor(problem), 0.0))
    gaps = [float((torch.matmul(*solve(key, value, factor(problem), weight)) - exact).norm()) for weight in (1.0, 1e-3, 1e-6)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-5


def test_sequence_with_earlier_keys_equals_one_batch(problem: dict[str, torch.Tensor]) -> None:
    keys, residuals, weight = problem["K"], problem["R"], 2.0
    at_once = torch.matmul(*solve(keys, residuals, factor(problem), weight))
    first = torch.matmul(*solve(keys[:, :2], residuals[:, :2], factor(problem), weight))
    left = residuals[:, 2:] - first @ keys[:, 2:]
    second = torch.matmul(*solve(keys[:, 2:], left, factor(problem), weight, held=keys[:, :2]))
    torch.testing.assert_close(first + second, at_once, rtol=1e-8, atol=1e-10)
    forgetful = torch.matmul(*solve(keys[:, 2:], left, factor(problem), weight))
    assert float((first + forgetful - at_once).norm()) > 1e-2 * float(at_once.norm())


def test_earlier_keys_keep_their_outputs(problem: dict[str, torch.Tensor]) -> None:
    left, right = solve(problem["K"], problem["R"], factor(problem), 0.0, held=problem["Kp"])
    torch.testing.assert_close(left @ right @ problem["Kp"], torch.zeros(D, 4, dtype=torch.float64), rtol=0, atol=1e-8)


def test_more_held_keys_than_inputs_count_by_their_products(problem: dict[str, torch.Tensor]) -> None:
    keys, left, weight = problem["K"], problem["R"], 3.0
    held = torch.randn(F, 5 * F, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    moment = problem["C"] + held @ held.T / weight
    assert condensed(held).shape == (F, F)
    found = torch.matmul(*solve(keys, left, factor(problem), weight, held))
    torch.testing.assert_close(found, dense(moment, keys, left, weight))


@pytest.mark.parametrize("energy", [0.1, 0.5, 0.9])
def test_projected_solve_equals_the_printed_equation(problem: dict[str, torch.Tensor], energy: float) -> None:
    """R K' P (Kp Kp' P + K K' P + L2 I)^-1, eq. 14 of the AlphaEdit paper: F x F, P from the eigenvectors."""
    keys, held, ridge = problem["K"], problem["Kp"], 0.3
    values, vectors = torch.linalg.eigh(problem["C"])
    free = null_space(spectrum_of(problem["C"]), energy)
    smallest = vectors[:, :free.size]
    projector = smallest @ smallest.T
    assert float(values[free.size:].sum() / values.sum()) >= energy > float(values[free.size + 1:].sum() / values.sum())
    system = held @ held.T @ projector + keys @ keys.T @ projector + ridge * torch.eye(F, dtype=torch.float64)
    expected = problem["R"] @ keys.T @ projector @ torch.linalg.inv(system)
    left, right = solve_projected(keys, problem["R"], free, ridge, held)
    torch.testing.assert_close(left @ right, expected, rtol=1e-8, atol=1e-10)


def test_projected_update_leaves_preserved_keys_alone(problem: dict[str, torch.Tensor]) -> None:
    vectors, free = torch.linalg.eigh(problem["C"])[1], null_space(spectrum_of(problem["C"]), 0.6)
    preserved = vectors[:, free.size:] @ torch.ones(F - free.size, 3, dtype=torch.float64)
    left, right = solve_projected(problem["K"], problem["R"], free, 0.1)
    torch.testing.assert_close(left @ right @ preserved, torch.zeros(D, 3, dtype=torch.float64), rtol=0, atol=1e-10)
    assert float((left @ right @ problem["K"]).norm()) > 0.1 * float(problem["R"].norm())


def test_projection_of_everything_is_ridge_regression(problem: dict[str, torch.Tensor]) -> None:
    left, right = solve_projected(problem["K"], problem["R"], lambda keys: keys, 2.0)
    identity = torch.eye(F, dtype=torch.float64)
    torch.testing.assert_close(left @ right, dense(identity, problem["K"], problem["R"], 2.0), rtol=1e-8, atol=1e-10)


def test_projected_sequence_with_earlier_keys_equals_one_batch(problem: dict[str, torch.Tensor]) -> None:
    keys, residuals, free = problem["K"], problem["R"], null_space(spectrum_of(problem["C"]), 0.5)
    at_once = torch.matmul(*solve_projected(keys, residuals, free, 2.0))
    first = torch.matmul(*solve_projected(keys[:, :2], residuals[:, :2], free, 2.0))
    left = residuals[:, 2:] - first @ keys[:, 2:]
    second = torch.matmul(*solve_projected(keys[:, 2:], left, free, 2.0, held=keys[:, :2]))
    torch.testing.assert_close(first + second, at_once, rtol=1e-8, atol=1e-10)


def test_same_key_twice_is_refused_without_weight(problem: dict[str, torch.Tensor]) -> None:
    twice = problem["K"][:, [0, 0]]
    with pytest.raises(IntegrityError, match="same key"):
        solve(twice, problem["R"][:, :2], factor(problem), 0.0)
    left, right = solve(twice, problem["R"][:, :2], factor(problem), 1.0)
    assert bool(torch.isfinite(left @ right).all())


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(problem: dict[str, torch.Tensor], broken: float) -> None:
    residuals = problem["R"].clone()
    residuals[0, 0] = broken
    with pytest.raises(IntegrityError, match="not finite"):
        solve(problem["K"], residuals, factor(problem), 1.0)
    with pytest.raises(IntegrityError, match="not finite"):
        cholesky_factor(torch.full((F, F), broken))


def test_singular_moment_is_loaded_until_it_has_a_factor() -> None:
    sample = torch.randn(F // 2, F, generator=torch.Generator().manual_seed(0))
    lower = cholesky_factor(sample.T @ sample)
    assert bool(torch.isfinite(lower).all())
    with pytest.raises(IntegrityError, match="positive definite"):
        cholesky_factor(-torch.eye(F) + 3 * torch.ones(F, F))
