"""What Python hands over to a run in place of names: a module, samples, a loss, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from commexp.config.fingerprint import fingerprint
from commexp.config.messages import UserError
from commexp.config.plan import HANDED_OVER, Plan
from commexp.metrics import NAME
from commexp.problems.datasets import OwnDataset


class Handed:
    """``given``: some of model, train, test, source, loss, metrics, see ``commexp.run``. ``words``: the overrides that
    stand for them in the config: digests of their source and values. Raises UserError for what is of no use."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given, self.words = given, list[str]()
        self.metrics: dict[str, Any] = dict(given.get("metrics") or {})
        self.data: OwnDataset | None = None
        try:
            self._describe()
        except ValueError as error:
            raise UserError(str(error)) from error

    def _describe(self) -> None:
        given = self.given
        if "model" in given:
            if not callable(given["model"]):
                raise ValueError(f"model: a {type(given['model']).__name__}; give a torch module or a function")
            self.words += ["model=module", f"+model.digest='{fingerprint(given['model'])}'"]
        if "train" in given or "test" in given:
            self.data = OwnDataset(digest="to come")
            self.data.hand_over(given.get("train"), given.get("test"), given.get("source"))
            self.words += ["dataset=module", f"+dataset.digest='{self.data.digest}'"]
        elif "source" in given:
            raise ValueError("source: of samples that are handed over; give train and test")
        if "loss" in given:
            self.words.append(f"loss='{HANDED_OVER}{fingerprint(given['loss'])}'")
        for name, function in self.metrics.items():
            if not NAME.fullmatch(f"test_{name}"):
                raise ValueError(f"metrics.{name}: no name of a column; give letters, digits and _")
            self.words.append(f"+metrics.{name}='{HANDED_OVER}{fingerprint(function)}'")

    def put_into(self, plan: Plan) -> None:
        """Gives the plan, which was made with ``words``, what they stand for. Raises UserError for a plan for several
        processes."""
        if self.given and plan.config.launch.kind == "torchrun":
            raise UserError(
                "launch=torchrun: other processes cannot have what is handed over from Python; give full names: "
                "model=module model.factory=my_module.make_model, dataset=module dataset.factory=..., loss=..."
            )
        if "model" in self.given:
            plan.model.hand_over(self.given["model"])  # type: ignore[attr-defined]
        if self.data is not None:
            assert isinstance(plan.dataset, OwnDataset)
            plan.dataset.parts, plan.dataset.source = self.data.parts, self.data.source
        plan.loss = self.given.get("loss", plan.loss)
        plan.metrics |= self.metrics
