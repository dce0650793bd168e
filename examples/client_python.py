"""The Python client: `python examples/client_python.py [URL]`.

SOFTXENT_KEY is the key, if one is needed.
"""

from __future__ import annotations

import os
import sys

import numpy as np

from softxent_client import Client

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"

logits = np.array([[2.0, 1.0, 0.1], [0.5, 2.5, 0.3], [20.0, 0.0, 0.0]], np.float32)
labels = np.array([0, 2, 0])

with Client(url, key=os.environ.get("SOFTXENT_KEY")) as client:
    result = client.cross_entropy(logits, labels)

assert result.gradient is not None
print("loss    ", result.loss)
print("gradient", *result.gradient, sep="\n  ")

sums = result.gradient.sum(axis=1)
print("row sums", sums)
if not np.allclose(sums, 0, atol=1e-6):
    sys.exit("a row of the gradient does not sum to 0")
