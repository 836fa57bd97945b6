"""Runs what claims are about, and says which of them are met."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from commexp.check.batch import Command, attempt_all
from commexp.check.claim import Claim
from commexp.check.quantities import Unmeasured
from commexp.config.messages import UserError
from commexp.run_folder import Run

MET, NOT_MET, FAILED, ELSEWHERE = "met", "not met", "failed", "not runnable here"


@dataclass(frozen=True)
class Verdict:
    """``numbers``: of each seed; empty where there are none. ``reason``: why there are none."""

    claim: Claim
    verdict: str
    numbers: tuple[float, ...] = ()
    reason: str = ""

    @property
    def number(self) -> float:
        """The mean over seeds."""
        if self.claim.mean == "geometric" and min(self.numbers) > 0:
            return math.exp(sum(map(math.log, self.numbers)) / len(self.numbers))
        return sum(self.numbers) / len(self.numbers)

    @property
    def ours(self) -> str:
        return f"{self.number:.4g}" if self.numbers else "-"

    @property
    def range(self) -> str:
        return f"{min(self.numbers):.3g} to {max(self.numbers):.3g}" if len(self.numbers) > 1 else ""


def judge(claims: Sequence[Claim], named: bool, outputs: str, roots: Mapping[str, str], jobs: int) -> list[Verdict]:
    """Carries out the runs of all claims, those that are finished already excepted. ``named``: asked for by name.
    ``roots``: the folders of data."""

    def commands(claim: Claim) -> dict[str, list[Command]]:
        more = [f"dataset.root={roots[claim.data]}"] if claim.data in roots else []
        more += [f"outputs={outputs}"] if outputs != "outputs" else []
        return {label: claim.commands(label, more) for label in claim.runs}

    wanted = {claim.id: commands(claim) for claim in claims if named or not claim.costs}
    done = attempt_all([c for labels in wanted.values() for each in labels.values() for c in each], jobs)
    verdicts = []
    for claim in claims:
        if claim.id not in wanted:
            reason = f"takes {claim.costs}; runs if it is named"
            verdicts.append(Verdict(claim, ELSEWHERE, reason=reason))
            continue
        outcomes = {label: [done[c] for c in each] for label, each in wanted[claim.id].items()}
        verdicts.append(judged(claim, outcomes))
    return verdicts


def judged(claim: Claim, outcomes: Mapping[str, Sequence[Run | Exception]]) -> Verdict:
    """One claim, by its runs with each seed, or what they have raised instead."""
    for label, by_seed in outcomes.items():
        for seed, outcome in enumerate(by_seed):
            if isinstance(outcome, UserError):
                return Verdict(claim, ELSEWHERE, reason=str(outcome))
            if isinstance(outcome, Exception):
                text = f"{type(outcome).__name__}: {' '.join(str(outcome).split())}"
                return Verdict(claim, FAILED, reason=f"{label}, seed {seed}: {text}")
            if outcome.status != "completed":
                why = outcome.meta.get("error")
                text = f"{outcome.name} {outcome.status}" + (f" ({why})" if why else "")
                return Verdict(claim, FAILED, reason=f"{label}, seed {seed}: {text}")
    runs = {label: [run for run in by_seed if isinstance(run, Run)] for label, by_seed in outcomes.items()}
    try:
        numbers = [claim.measured({k: by_seed[s].metrics for k, by_seed in runs.items()}) for s in range(claim.seeds)]
    except Unmeasured as error:
        return Verdict(claim, FAILED, reason=str(error))
    verdict = Verdict(claim, "", tuple(numbers))
    return replace(verdict, verdict=MET if claim.bound.holds(verdict.number) else NOT_MET)
