"""Topics of assistance: data with a period of validity, because the list changes over time."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from schemas.vocabulary import TopicCode


@dataclass(frozen=True, slots=True)
class OfferedTopic:
    """A topic, the days on which it is offered, and who helps when it no longer is."""

    code: TopicCode
    first: date
    last: date | None = None
    refer_to: str | None = None

    def is_offered(self, day: date) -> bool:
        return self.first <= day and (self.last is None or day <= self.last)

    def has_ended(self, day: date) -> bool:
        return self.last is not None and self.last < day


def offered_on(topics: Mapping[TopicCode, OfferedTopic], day: date) -> list[TopicCode]:
    """Codes of the topics offered that day, in alphabetical order."""
    return sorted(topic.code for topic in topics.values() if topic.is_offered(day))
