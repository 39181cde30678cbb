#!/usr/bin/env python3
"""Trains fraud.onnx, the model of score.sql: a logistic regression on made-up payments. Needs scikit-learn and skl2onnx.

    python3 sql/finance/train.py

With payments of your own: the same four columns, and whether the payment was disputed later.
"""
import pathlib

import numpy as np
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ROWS = 20_000
random = np.random.default_rng(4711)

amount = random.lognormal(3.3, 1.0, ROWS)
night = random.random(ROWS) < 0.1
minutes = np.minimum(random.exponential(600, ROWS), 1440)
abroad = random.random(ROWS) < 0.08
odds = 0.006 * amount + 1.0 * night - 0.004 * minutes + 2.5 * abroad - 3.5
disputed = random.random(ROWS) < 1 / (1 + np.exp(-odds))

x = np.column_stack([amount, night, minutes, abroad]).astype(np.float32)
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, disputed.astype(int))
file = to_onnx(model, x[:1], options={id(model): {"zipmap": False}})
pathlib.Path(__file__).with_name("fraud.onnx").write_bytes(file.SerializeToString())
print("amount, night, minutes, abroad:", model[-1].coef_[0].round(2), "right:", round(model.score(x, disputed), 3))
