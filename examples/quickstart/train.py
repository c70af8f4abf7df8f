"""Trains the digit classifier of this folder on scikit-learn's 8 x 8 digits.

    pip install scikit-learn numpy safetensors
    python train.py

Writes weights.safetensors (the parameters that digits.json names) and
held_out.safetensors (a fifth of the digits, which the training never saw).
The same versions give the same files.
"""
import numpy as np
from safetensors.numpy import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

digits = load_digits()
images = digits.data.astype(np.float32)  # [1797, 64], 0 to 16
split = train_test_split(images, digits.target, test_size=0.2, random_state=0, stratify=digits.target)
x_train, x_test, y_train, y_test = split

model = MLPClassifier(hidden_layer_sizes=(32,), alpha=1e-2, learning_rate_init=3e-3, max_iter=400, random_state=3)
model.fit(x_train / 16, y_train)
(w1, w2), (b1, b2) = model.coefs_, model.intercepts_
print(f"accuracy on the held-out digits: {model.score(x_test / 16, y_test):.4f}")

weights = {"hidden.weight": w1 / 16, "hidden.bias": b1, "scores.weight": w2, "scores.bias": b2}
save_file({k: v.astype(np.float32) for k, v in weights.items()}, "weights.safetensors")
held_out = {"images": x_test.astype(np.uint8), "labels": y_test.astype(np.uint8)}
save_file(held_out, "held_out.safetensors")
