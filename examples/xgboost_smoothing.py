"""Train XGBoost on scanned digits with smoothed labels, and say how sure it is where it is wrong.

python examples/xgboost_smoothing.py
"""

from __future__ import annotations

import xgboost
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from softxent.sklearn import log_loss
from softxent.xgboost import SoftmaxObjective


def main() -> None:
    pixels, digits = load_digits(return_X_y=True)
    x, held_out, y, answers = train_test_split(
        pixels, digits, test_size=0.25, random_state=0, stratify=digits
    )
    data, test = xgboost.DMatrix(x, label=y), xgboost.DMatrix(held_out)
    for smoothing in (0.0, 0.1):
        objective = SoftmaxObjective(label_smoothing=smoothing)
        parameters = {"num_class": 10, "max_depth": 4}
        booster = xgboost.train(parameters, data, 30, obj=objective)
        scores = booster.predict(test, output_margin=True)
        right = (scores.argmax(1) == answers).mean()
        print(
            f"label_smoothing {smoothing}: {right:.1%} right of {len(answers)} held out,"
            f" log loss {log_loss(answers, scores):.4f}"
        )


if __name__ == "__main__":
    main()
