"""Logistic regression with a ridge, by Newton's method in float64: small, exact, the same on every machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEPS_AT_MOST = 50
CONVERGED = 1e-8


@dataclass(frozen=True)
class Line:
    """Weights and bias of a logit."""

    weights: np.ndarray
    bias: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(N,) of (N, F)."""
        return features @ self.weights + self.bias


def fitted(features: np.ndarray, labels: np.ndarray, weights: np.ndarray, ridge: float) -> Line:
    """The minimum of the weighted mean log loss + ridge / 2 |w|^2; the bias is free.

    Args:
        features: (N, F) float64.
        labels: (N,) 0 or 1.
        weights: (N,) of each row, of sum 1.
        ridge: Above 0 where classes can be separated.
    """
    rows = np.hstack([features, np.ones((len(features), 1))])
    penalty = np.full(rows.shape[1], ridge)
    penalty[-1] = 0.0
    solution = np.zeros(rows.shape[1])
    loss = _loss(rows, labels, weights, penalty, solution)
    for _ in range(STEPS_AT_MOST):
        chances = 1 / (1 + np.exp(-rows @ solution))
        gradient = rows.T @ (weights * (chances - labels)) + penalty * solution
        curvature = (rows * (weights * chances * (1 - chances))[:, None]).T @ rows + np.diag(penalty + 1e-12)
        factor = np.linalg.cholesky(curvature)
        step = np.linalg.solve(factor.T, np.linalg.solve(factor, gradient))
        size, fresh = 1.0, _loss(rows, labels, weights, penalty, solution - step)
        while fresh > loss and size > 1e-6:
            size /= 2
            fresh = _loss(rows, labels, weights, penalty, solution - size * step)
        solution, loss = solution - size * step, fresh
        if np.abs(gradient).max() < CONVERGED:
            break
    return Line(solution[:-1], float(solution[-1]))


def area_under_curve(labels: np.ndarray, scores: np.ndarray) -> float:
    """The chance that a toxic text scores above a harmless one, ties half; NaN where one class is missing."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    positive = int(labels.sum())
    negative = len(labels) - positive
    if not positive or not negative:
        return float("nan")
    return float((ranks[labels.astype(bool)].sum() - positive * (positive + 1) / 2) / (positive * negative))


def _loss(rows: np.ndarray, labels: np.ndarray, weights: np.ndarray, penalty: np.ndarray, solution: np.ndarray) -> float:
    logits = rows @ solution
    return float(weights @ (np.logaddexp(0, logits) - labels * logits) + (penalty * solution**2).sum() / 2)
