"""What came of one scenario with one seed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.faults.findings import Finding, Kind, tally


@dataclass(frozen=True)
class Outcome:
    """One run of one scenario."""

    fault: str
    scenario: str
    seed: int
    requests: int = 0
    """Requests submitted while it ran."""
    acknowledged: int = 0
    """Submissions that Kafka acknowledged."""
    findings: tuple[Finding, ...] = ()
    recoveries: tuple[float, ...] = ()
    """Seconds from the end of a fault until everything that had work to do had moved."""
    halted: str = ""
    """The named hard stop it led to."""
    alert: str = ""
    """What became of the alert it has to raise."""
    said: tuple[str, ...] = ()
    seconds: float = 0.0
    """The whole run, with draining and judging."""
    judging_seconds: float = 0.0
    resources: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def again(self) -> str:
        """The command that runs it again."""
        return f"python -m tests.faults --only {self.scenario} --first-seed {self.seed} --seeds 1"

    def count(self, kind: Kind) -> int:
        """Findings of a kind."""
        return tally(self.findings)[kind]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "fault": self.fault,
            "scenario": self.scenario,
            "seed": self.seed,
            "requests": self.requests,
            "acknowledged": self.acknowledged,
            **{kind.value.replace(" ", "_"): self.count(kind) for kind in Kind},
            "findings": [{"kind": finding.kind, "text": finding.text} for finding in self.findings],
            "recovery_seconds": self.recoveries,
            "halted": self.halted,
            "alert": self.alert,
            "said": self.said,
            "seconds": self.seconds,
            "judging_seconds": self.judging_seconds,
            "resources": self.resources,
            "again": self.again,
        }

    @classmethod
    def of_json(cls, told: Mapping[str, Any]) -> "Outcome":
        """The same as it was told to programs."""
        return cls(
            fault=told["fault"],
            scenario=told["scenario"],
            seed=told["seed"],
            requests=told["requests"],
            acknowledged=told["acknowledged"],
            findings=tuple(Finding(Kind(one["kind"]), one["text"]) for one in told["findings"]),
            recoveries=tuple(told["recovery_seconds"]),
            halted=told["halted"],
            alert=told["alert"],
            said=tuple(told["said"]),
            seconds=told["seconds"],
            judging_seconds=told["judging_seconds"],
            resources=told["resources"],
        )
