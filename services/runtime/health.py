"""What a service process says of itself: alive while it makes progress, ready while it can do its work."""

from dataclasses import dataclass, field
from time import monotonic
from typing import Final

STALLED_AFTER_SECONDS: Final = 30.0


class Halted(Exception):
    """The service must stop reading. `reason` names the alarm; the message says what to do."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


@dataclass(slots=True)
class Health:
    """Progress and obstacles of one process. Loops call `beat`; whoever meets an obstacle says so here."""

    beats: dict[str, float] = field(default_factory=dict[str, float])
    obstacles: dict[str, str] = field(default_factory=dict[str, str])
    halted: Halted | None = None
    assigned: bool = False

    def beat(self, loop: str) -> None:
        self.beats[loop] = monotonic()

    def halt(self, loop: str, halted: Halted) -> None:
        """The loop has stopped for good, on purpose: that is no stall, and a restart would not mend it."""
        self.halted = halted
        self.beats.pop(loop, None)

    def database_away(self, why: str) -> None:
        self.obstacles["postgres"] = f"PostgreSQL does not answer: {why}"

    def database_here(self) -> None:
        self.obstacles.pop("postgres", None)

    def kafka_away(self, why: str) -> None:
        self.obstacles["kafka"] = f"Kafka does not answer: {why}"

    def kafka_here(self) -> None:
        self.obstacles.pop("kafka", None)

    def stalled(self) -> list[str]:
        """Loops that made no turn for too long. A loop that waits for a server in small steps is not stalled."""
        now = monotonic()
        return [loop for loop, beat in self.beats.items() if now - beat > STALLED_AFTER_SECONDS]

    def not_ready(self) -> list[str]:
        """Why the service is not ready, in plain words; empty where it is."""
        if self.halted is not None:
            # What stands in the way besides may follow from it: a database that went back is not asked any more.
            return [f"halted ({self.halted.reason}): {self.halted}"]
        reasons = list(self.obstacles.values())
        if not self.assigned:
            reasons.append("no partitions are assigned yet")
        return reasons + [f"the {loop} makes no progress" for loop in self.stalled()]
