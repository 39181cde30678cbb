"""Trains a logistic model, boosted trees (100 trees) and a small network, writes them to DIRECTORY, and measures onnxruntime.

usage: models.py DIRECTORY     needs scikit-learn, skl2onnx and onnxruntime (tests/readers/requirements.txt)

Then: target/release/models DIRECTORY
"""

import pathlib
import sys
import time

import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

OUT = pathlib.Path(sys.argv[1])
OUT.mkdir(parents=True, exist_ok=True)
ROWS, SECONDS, FEATURES = 65_536, 3, 10
random = np.random.default_rng(1)
x = random.normal(size=(5000, FEATURES)).astype(np.float32)
y = (x[:, 0] + x[:, 1] * x[:, 2] + random.normal(size=5000) > 0).astype(int)
batch = random.uniform(-3, 3, size=(ROWS, FEATURES)).astype(np.float32)

print(f"{'model':<20} {'1 thread':>12} {'all threads':>12}   rows/s of onnxruntime {onnxruntime.__version__}")
for name, model in [
    ("logistic", make_pipeline(StandardScaler(), LogisticRegression())),
    ("network", MLPClassifier((32, 16), max_iter=50, random_state=1)),
    ("trees", GradientBoostingClassifier(n_estimators=100, max_depth=4, random_state=1)),
]:
    model.fit(x, y)
    file = to_onnx(model, x[:1], options={id(model): {"zipmap": False}}).SerializeToString()
    (OUT / f"{name}.onnx").write_bytes(file)
    rates = []
    for threads in (1, 0):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(file, options)
        best, began = float("inf"), time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            start = time.perf_counter()
            session.run(None, {"X": batch})
            best = min(best, time.perf_counter() - start)
        rates.append(ROWS / best)
    print(f"{name:<20} {rates[0]:>12.0f} {rates[1]:>12.0f}")
