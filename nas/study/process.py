"""A Gaussian process over genes: one length a gene and a line, found under a prior; noise of every measurement."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, lapack, solve_triangular  # type: ignore[import-untyped]
from scipy.optimize import minimize  # type: ignore[import-untyped]

Floats = NDArray[np.float64]

# Logarithms of the length of a gene (times the root of how many genes vary), of the variance, of the slope's and of the
# noise, all of standardised values: the middle and the standard deviation of their normal priors.
LENGTH, VARIANCE, SLOPE, NOISE = (0.0, 0.7), (0.0, 1.0), (-1.0, 1.0), (math.log(0.02), 1.5)
BOUNDS = (-9.0, 4.0)
STEPS = 60
ROOT5 = math.sqrt(5)


class GaussianProcess:
    """Matern 5/2 over the distance of genes, each with a length of its own, beside a line in one column.

    Args:
        rows: [n, columns].
        genes: [columns]; which gene a column belongs to, counted from 0.
        values: [n].
        errors: [n]; their standard errors.
        line: Which column has a slope; how steep it may be is found as the lengths are.
    """

    def __init__(self, rows: Floats, genes: Sequence[int], values: Floats, errors: Floats, line: int) -> None:
        self._rows = rows
        self._line, self._middle, self._deviation = line, float(rows[:, line].mean()), float(rows[:, line].std()) or 1.0
        spread = np.ptp(rows, axis=0)
        owners = np.asarray(genes)
        columns = [np.flatnonzero((owners == gene) & (spread > 0)) for gene in sorted(set(genes))]
        # Two values of a kind that is written as several columns differ in two of them.
        self._genes = [(its, spread[its] * math.sqrt(min(2, len(its)))) for its in columns if len(its)]
        self._mean, self._scale = float(values.mean()), float(values.std()) or 1.0
        self._targets = (values - self._mean) / self._scale
        self._noises = 1e-6 + (errors / self._scale) ** 2
        self._fit(self._squares())

    def _squares(self) -> Floats:
        """[genes, n, n]; squared distances by gene, at most 1."""
        result = np.zeros((len(self._genes), len(self._rows), len(self._rows)))
        for gene, (columns, scale) in enumerate(self._genes):
            for column, one in zip(columns, scale, strict=True):
                values = self._rows[:, column] / one
                result[gene] += np.subtract.outer(values, values) ** 2
        return result

    def _fit(self, distances: Floats) -> None:
        count = len(self._genes)
        middle = np.array([LENGTH[0] + 0.5 * math.log(max(1, count))] * count + [VARIANCE[0], SLOPE[0], NOISE[0]])
        deviation = np.array([LENGTH[1]] * count + [VARIANCE[1], SLOPE[1], NOISE[1]])
        line = np.outer(self._along(self._rows), self._along(self._rows))

        def loss(theta: Floats) -> tuple[float, Floats]:
            squares = np.tensordot(np.exp(-2 * theta[:count]), distances, 1)
            variance, steepness, noise = np.exp(theta[count:])
            roots = ROOT5 * np.sqrt(squares)
            decay = variance * np.exp(-roots)
            kernel = decay * (1 + roots + roots**2 / 3)
            factor, weights = self._solved(kernel + steepness * line, noise)
            lower = lapack.dpotri(factor, lower=1)[0]
            inverse = np.tril(lower) + np.tril(lower, -1).T
            slope = 0.5 * (inverse - np.outer(weights, weights))
            lengths = np.tensordot(distances, slope * decay * (1 + roots), 2) * np.exp(-2 * theta[:count]) * 5 / 3
            off = (theta - middle) / deviation
            value = 0.5 * self._targets @ weights + np.log(np.diag(factor)).sum() + 0.5 * off @ off
            others = (slope * kernel).sum(), (slope * line).sum() * steepness, np.trace(slope) * noise
            return float(value), np.array([*lengths, *others]) + off / deviation

        options = {"maxiter": STEPS}
        found = minimize(loss, middle, jac=True, method="L-BFGS-B", bounds=[BOUNDS] * len(middle), options=options).x
        weights = np.exp(-2 * found[:count])
        self._variance, self._steepness, self._noise = np.exp(found[count:])
        self._columns = np.array([column for columns, _ in self._genes for column in columns], dtype=int)
        self._factors = np.concatenate(
            [math.sqrt(w) / scale for (_, scale), w in zip(self._genes, weights, strict=True)] or [np.empty(0)]
        )
        kernel = self._covariance(np.tensordot(weights, distances, 1)) + self._steepness * line
        self._factor, self._alpha = self._solved(kernel, self._noise)

    def _covariance(self, distances: Floats) -> Floats:
        """Of points whose squared distances, in lengths, are given."""
        roots = ROOT5 * np.sqrt(np.maximum(distances, 0.0))
        return np.asarray(self._variance * np.exp(-roots) * (1 + roots + roots**2 / 3))

    def _along(self, rows: Floats) -> Floats:
        """[rows]; where they lie along the line."""
        return np.asarray((rows[:, self._line] - self._middle) / self._deviation)

    def _between(self, rows: Floats, others: Floats) -> Floats:
        """[rows, others]; covariances."""
        a, b = rows[:, self._columns] * self._factors, others[:, self._columns] * self._factors
        bent = self._covariance((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T)
        return np.asarray(bent + self._steepness * np.outer(self._along(rows), self._along(others)))

    def _solved(self, kernel: Floats, noise: float) -> tuple[Floats, Floats]:
        factor = cholesky(kernel + np.diag(noise + self._noises), lower=True, check_finite=False)
        return factor, cho_solve((factor, True), self._targets, check_finite=False)

    def predict(self, rows: Floats, believed: Floats | None = None) -> tuple[Floats, Floats]:
        """[n], [n]; expected values and their standard deviations, without the noise of a measurement.

        The deviations are those that are left once the rows of `believed` were measured, too.
        """
        kernel = self._between(rows, self._rows)
        explained = solve_triangular(self._factor, kernel.T, lower=True, check_finite=False)
        variance = self._variance + self._steepness * self._along(rows) ** 2 - (explained**2).sum(axis=0)
        if believed is not None:
            its = solve_triangular(self._factor, self._between(self._rows, believed), lower=True, check_finite=False)
            left = self._between(believed, believed) - its.T @ its + (self._noise + 1e-6) * np.eye(len(believed))
            shared = self._between(believed, rows) - its.T @ explained
            variance -= (solve_triangular(cholesky(left, lower=True), shared, lower=True) ** 2).sum(axis=0)
        deviation = np.sqrt(np.maximum(variance, 1e-12))
        return self._mean + self._scale * (kernel @ self._alpha), self._scale * deviation
