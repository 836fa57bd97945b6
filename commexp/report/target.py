"""The accuracy or the loss for which tables say what reaching it cost."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from commexp.metrics import number

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Target:
    """A test accuracy of ``value`` or more; ``is_loss``: a test loss of ``value`` or less, or, of a run without one, a
    train loss."""

    value: float
    is_loss: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Target | None:
        """That of a run's config, by ``target_accuracy`` or ``target_loss``; None where it has neither. Raises
        ValueError or TypeError for what is no number."""
        for key in ("target_accuracy", "target_loss"):
            if config.get(key) is not None:
                return cls(number(config[key]), key == "target_loss")
        return None

    def column(self, columns: Container[str]) -> str | None:
        """Which of the ``columns`` of metrics.csv it is a value of; None where that is not there."""
        names = ("test_loss", "train_loss") if self.is_loss else ("test_accuracy",)
        return next((name for name in names if name in columns), None)

    def first(self, metrics: pd.DataFrame) -> pd.Series | None:
        """The first row of ``metrics`` that reaches it; None where none does."""
        column = self.column(metrics)
        if column is None:
            return None
        values = metrics[column].to_numpy()
        reached = (values <= self.value if self.is_loss else values >= self.value).nonzero()[0]
        return metrics.iloc[int(reached[0])] if len(reached) else None

    def __str__(self) -> str:
        return f"loss {self.value:.4g}" if self.is_loss else f"{self.value:.4g} accuracy"

    @property
    def short(self) -> str:
        return f"loss {self.value:.4g}" if self.is_loss else f"{self.value:.4g} acc."


def common(table: pd.DataFrame) -> Target | None:
    """The target of all rows, by their columns ``target`` and ``target_is_loss``; None where they have several."""
    found = table[["target", "target_is_loss"]].dropna().drop_duplicates()
    return Target(float(found["target"].iloc[0]), bool(found["target_is_loss"].iloc[0])) if len(found) == 1 else None
