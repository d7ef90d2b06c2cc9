"""The figures that go into a manifest, from true and predicted label indices."""

from __future__ import annotations

from collections.abc import Sequence

from sklearn.metrics import accuracy_score, f1_score, recall_score


def classification_metrics(true: Sequence[int], predicted: Sequence[int], label_count: int) -> dict[str, float]:
    """Accuracy, macro-F1 and macro-recall, each from 0 to 1, over all ``label_count`` labels."""
    labels = range(label_count)
    return {
        "accuracy": round(float(accuracy_score(true, predicted)), 4),
        "macro_f1": round(float(f1_score(true, predicted, labels=labels, average="macro", zero_division=0)), 4),
        "macro_recall": round(float(recall_score(true, predicted, labels=labels, average="macro", zero_division=0)), 4),
    }
