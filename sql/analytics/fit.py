#!/usr/bin/env python3
"""Fits the coefficients of coefficients.csv: logistic regression by Newton's method, without packages. To make them from another day:

    sed 's/seed = 31/seed = 32/' sql/analytics/run.sql > /tmp/training.sql
    windrow run /tmp/training.sql sql/analytics/training.sql
    python3 sql/analytics/fit.py training.csv > sql/analytics/coefficients.csv

Then adapt models, the number of rows and whatever else you like, and run run.sql again.
"""
import csv
import math
import sys

FEATURES = ["clicks", "products", "carts", "minutes", "phone", "mail"]
MODELS = {"with_carts": FEATURES, "clicks_only": ["clicks", "minutes"]}


def solve(matrix, right):
    """x with matrix · x = right, by Gaussian elimination with pivots."""
    rows = [line + [value] for line, value in zip(matrix, right)]
    for i in range(len(rows)):
        pivot = max(range(i, len(rows)), key=lambda k: abs(rows[k][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        for k in range(len(rows)):
            if k != i:
                factor = rows[k][i] / rows[i][i]
                rows[k] = [a - factor * b for a, b in zip(rows[k], rows[i])]
    return [line[-1] / line[i] for i, line in enumerate(rows)]


def fit(inputs, outcomes, steps=12, ridge=1e-6):
    """The weights, the intercept first."""
    weights = [0.0] * len(inputs[0])
    for _ in range(steps):
        size = len(weights)
        gradient, hessian = [0.0] * size, [[ridge * (i == k) for k in range(size)] for i in range(size)]
        for x, y in zip(inputs, outcomes):
            p = 1 / (1 + math.exp(-sum(w * v for w, v in zip(weights, x))))
            for i in range(size):
                gradient[i] += (y - p) * x[i]
                for k in range(size):
                    hessian[i][k] += p * (1 - p) * x[i] * x[k]
        weights = [w + d for w, d in zip(weights, solve(hessian, gradient))]
    return weights


def main():
    with open(sys.argv[1], newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    outcomes = [float(row["bought_later"] == "true") for row in rows]
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["model", "feature", "weight"])
    for model, features in MODELS.items():
        weights = fit([[1.0] + [float(row[f]) for f in features] for row in rows], outcomes)
        known = dict(zip(["intercept"] + features, weights))
        for feature in ["intercept"] + FEATURES:
            out.writerow([model, feature, round(known.get(feature, 0.0), 4)])


main()
