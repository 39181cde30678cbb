#!/usr/bin/env python3
"""Trains failure.onnx, the model of failure.sql: a few boosted trees on made-up pumps. Needs scikit-learn and skl2onnx.

    python3 sql/iot/train.py

With pumps of your own: per minute the mean temperature, the greatest vibration, how much the vibration varies, and whether the pump failed
within the next day.
"""
import pathlib

import numpy as np
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier

ROWS = 8_000
random = np.random.default_rng(815)

temperature = random.normal(62, 6, ROWS)
vibration = random.gamma(4, 0.6, ROWS)
spread = vibration * random.uniform(0.05, 0.4, ROWS)
# A hot pump that shakes, or one that shakes unevenly.
odds = np.where((temperature > 68) & (vibration > 3), 2.5, -4) + np.where(spread > 1.2, 4, 0)
fails = random.random(ROWS) < 1 / (1 + np.exp(-odds))

x = np.column_stack([temperature, vibration, spread]).astype(np.float32)
model = GradientBoostingClassifier(n_estimators=12, max_depth=3, random_state=1).fit(x, np.where(fails, "fails", "holds"))
file = to_onnx(model, x[:1], options={id(model): {"zipmap": False}})
pathlib.Path(__file__).with_name("failure.onnx").write_bytes(file.SerializeToString())
print(model.classes_, "right:", round(model.score(x, np.where(fails, "fails", "holds")), 3))
