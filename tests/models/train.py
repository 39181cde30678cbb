"""Trains small models of three fields, and writes them with rows and the predictions of scikit-learn and onnxruntime.

usage: train.py DIRECTORY

    fraud.csv      card payments: fraud_linear.onnx (logistic), fraud_trees.onnx (boosted trees)
    machines.csv   sensors of machines: state.onnx (boosted trees, labels are texts), hours.onnx (regression)
    reviews.csv    texts, whose words SQL counts: sentiment.onnx (a small network)

In the CSV files, columns that end in _sk are of scikit-learn and those that end in _rt of onnxruntime.
"""

import csv
import pathlib
import sys

import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

OUT = pathlib.Path(sys.argv[1])
ROWS = 2000
random = np.random.default_rng(20260101)

WORDS = ["good", "great", "love", "happy", "bad", "awful", "hate", "broken"]


def saved(name, model, x):
    """Writes a model as ONNX. Returns what onnxruntime predicts for x."""
    options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else {}
    file = to_onnx(model, x[:1].astype(np.float32), options=options).SerializeToString()
    (OUT / name).write_bytes(file)
    session = onnxruntime.InferenceSession(file)
    return session.run(None, {session.get_inputs()[0].name: x.astype(np.float32)})


def rows(name, columns):
    """Writes a CSV file; columns: pairs of a name and values."""
    with open(OUT / name, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow([column for column, _ in columns])
        out.writerows(zip(*(np.asarray(values).tolist() for _, values in columns)))


def fraud():
    amount = np.round(random.lognormal(3.2, 1.0, ROWS), 2)
    hour = random.integers(0, 24, ROWS)
    distance = np.round(random.exponential(30, ROWS), 1)
    abroad = random.integers(0, 2, ROWS)
    x = np.column_stack([amount, hour, distance, abroad]).astype(np.float64)
    odds = 0.012 * amount + 0.015 * distance + 1.2 * abroad + 0.8 * (hour < 6) - 3.0
    y = (random.random(ROWS) < 1 / (1 + np.exp(-odds))).astype(int)
    columns = [("n", range(ROWS)), ("amount", amount), ("hour", hour), ("distance", distance), ("abroad", abroad)]
    x32 = x.astype(np.float32)
    for short, model in [
        ("linear", make_pipeline(StandardScaler(), LogisticRegression())),
        ("trees", GradientBoostingClassifier(n_estimators=100, max_depth=3, random_state=1)),
    ]:
        model.fit(x32, y)
        label, probabilities = saved(f"fraud_{short}.onnx", model, x)
        columns += [
            (f"{short}_label_sk", model.predict(x32)),
            (f"{short}_sk", model.predict_proba(x32)[:, 1]),
            (f"{short}_label_rt", label),
            (f"{short}_rt", probabilities[:, 1]),
        ]
    rows("fraud.csv", columns)


def machines():
    temperature = np.round(random.normal(70, 12, ROWS), 1)
    vibration = np.round(random.gamma(2.0, 1.5, ROWS), 2)
    age = random.integers(0, 5000, ROWS)
    x = np.column_stack([temperature, vibration, age]).astype(np.float32)
    wear = 0.04 * (temperature - 70) + 0.5 * vibration + age / 2500 + random.normal(0, 0.3, ROWS)
    state = np.array(["fine", "worn", "failing"])[np.digitize(wear, [2.0, 3.5])]
    hours = np.maximum(0, 400 - 80 * wear) + random.normal(0, 5, ROWS)
    classifier = GradientBoostingClassifier(n_estimators=30, random_state=1).fit(x, state)
    regressor = GradientBoostingRegressor(n_estimators=100, random_state=1).fit(x, hours)
    label, probabilities = saved("state.onnx", classifier, x)
    (expected,) = saved("hours.onnx", regressor, x)
    # The classes are in order of their names: failing, fine, worn.
    rows("machines.csv", [
        ("n", range(ROWS)), ("temperature", temperature), ("vibration", vibration), ("age", age),
        ("state_sk", classifier.predict(x)), ("failing_sk", classifier.predict_proba(x)[:, 0]),
        ("state_rt", label), ("failing_rt", probabilities[:, 0]),
        ("hours_sk", regressor.predict(x)), ("hours_rt", expected[:, 0]),
    ])


def reviews():
    fill = ["the", "it", "is", "was", "and", "very", "with", "box", "screen", "price"]
    texts, y = [], []
    for _ in range(ROWS // 2):
        mood = int(random.integers(0, 2))
        own = WORDS[:4] if mood else WORDS[4:]
        words = list(random.choice(fill, 6)) + list(random.choice(own, 3)) + list(random.choice(WORDS, 1))
        random.shuffle(words)
        texts.append(" ".join(words))
        y.append(mood)
    x = np.array([[text.split().count(word) for word in WORDS] for text in texts], dtype=np.float32)
    model = MLPClassifier((12, 6), max_iter=300, random_state=1).fit(x, y)
    label, probabilities = saved("sentiment.onnx", model, x)
    rows("reviews.csv", [
        ("n", range(len(texts))), ("text", texts),
        ("label_sk", model.predict(x)), ("good_sk", model.predict_proba(x)[:, 1]),
        ("label_rt", label), ("good_rt", probabilities[:, 1]),
    ])


fraud()
machines()
reviews()
