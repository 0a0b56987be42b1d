"""Sees what was done to logs behind the service's back, and halts it where reading on would skip or lose events."""

from collections.abc import Mapping
from time import monotonic
from typing import Final

from services.runtime.health import Halted
from services.runtime.kafka import TopicPartition
from services.runtime.topiclogs import TopicLog

DATABASE_WENT_BACK: Final = "database_went_back"
_PAST_END_SECONDS: Final = 5.0
_SURE_SECONDS: Final = 3.0
_DECIDE: Final = "decide where to go on: `fieldbridge positions` shows it, and with --move reads on"


def went_back(topic: str, number: int, position: int, handled: int) -> Halted:
    """Says that a position lies before what this service has handled."""
    return Halted(
        DATABASE_WENT_BACK,
        f"{topic}-{number} has been handled up to {handled}, but the database's position is {position}: it is older "
        "than facts that were published from it, and would decide anew what others have acted on. Restore its latest "
        "state.",
    )


class LogGuard:
    """Compares positions with the logs they are meant for."""

    def __init__(self) -> None:
        self._followed: Mapping[str, TopicLog] = {}
        self._recognised = monotonic()
        self._past_end: dict[TopicPartition, tuple[float, float]] = {}
        """Since when, and when last, a position was seen past the end."""

    def follow(self, followed: Mapping[str, TopicLog]) -> None:
        """From now on positions are taken for places in these logs, by topic."""
        self._followed = followed

    @property
    def sure(self) -> bool:
        """Whether the logs were recognised a short while ago: from others nothing is to be handled."""
        return monotonic() - self._recognised < _SURE_SECONDS

    def check_same(self, found: Mapping[str, TopicLog]) -> None:
        """Raises Halted where a topic's log is not the one that is followed, or has more partitions."""
        for topic, followed in self._followed.items():
            log = found[topic]
            if log.id != followed.id:
                raise Halted(
                    "topic_recreated",
                    f"The log of {topic} is {log.id}, but what was read is {followed.id}: the topic was deleted and "
                    f"made again, and positions mean nothing in it. Restore the log, or {_DECIDE}.",
                )
            if log.partitions != followed.partitions:
                raise Halted(
                    "partitions_changed",
                    f"{topic} has {log.partitions} partitions and had {followed.partitions} when it was first read: "
                    f"keys have moved, so that events of one key may be read out of order. To read on, {_DECIDE}.",
                )
        self._recognised = monotonic()

    def check_start(self, partition: TopicPartition, position: int, start: int) -> None:
        """Raises Halted where a position lies before the log's start."""
        if position < start:
            raise Halted(
                "position_before_log_start",
                f"The position of {partition.topic}-{partition.partition} is {position}, but its log starts at "
                f"{start}: events were deleted before they were handled. Restore the log, or {_DECIDE}.",
            )

    def check_not_older(self, partition: TopicPartition, position: int, committed: int) -> None:
        """Raises Halted where a position lies before an offset that was committed to Kafka only after it."""
        if position < committed:
            raise went_back(partition.topic, partition.partition, position, committed)

    def within_end(self, partition: TopicPartition, position: int, end: int) -> bool:
        """Whether a position lies within the log. A new leader may not know the log's end yet: it is asked again.

        Raises Halted where it lies past the end for too long.
        """
        if position <= end:
            self._past_end.pop(partition, None)
            return True
        now = monotonic()
        since, last = self._past_end.get(partition, (now, now))
        if now - last > _PAST_END_SECONDS:
            # It was within the log meanwhile, or nobody would have read on without looking.
            since = now
        self._past_end[partition] = since, now
        if now - since < _PAST_END_SECONDS:
            return False
        raise Halted(
            "position_past_log_end",
            f"The position of {partition.topic}-{partition.partition} is {position}, but its log ends at {end}: the "
            f"log was truncated. Restore the log, or {_DECIDE}.",
        )
