"""The table of Kafka topics: the only place that says who publishes what, who reads it and how it is keyed.

`submissions` is written by any system. Every other topic has one publisher, whose events carry a sequence per key.
"""

from typing import Final, NamedTuple


class Topic(NamedTuple):
    """One Kafka topic. `retention_days` is None where events are kept for ever."""

    name: str
    publisher: str
    readers: tuple[str, ...]
    key: str
    sequenced: bool
    partitions: int
    retention_days: int | None
    holds: str


SERVICES: Final = ("intake", "matching", "scheduling", "reporting")

SUBMISSIONS: Final = Topic(
    name="submissions",
    publisher="any system",
    readers=("intake",),
    key="id of the request, partner, expert or conflict",
    sequenced=False,
    partitions=8,
    retention_days=90,
    holds="what agencies, partners, experts and the programme office ask, answer and report, "
    "in the partition that Kafka's Java clients choose by the key (murmur2)",
)
RECEIPTS: Final = Topic(
    name="receipts",
    publisher="intake",
    readers=("reporting",),
    key="source of the submission",
    sequenced=False,
    partitions=8,
    retention_days=90,
    holds="one answer for each submission: taken, or refused with the fields at fault",
)
REQUESTS: Final = Topic(
    name="requests",
    publisher="intake",
    readers=("matching", "scheduling", "reporting"),
    key="request id",
    sequenced=True,
    partitions=8,
    retention_days=None,
    holds="the life of a request as the agency and the programme office decide it",
)
ROSTER: Final = Topic(
    name="roster",
    publisher="intake",
    readers=("matching", "scheduling", "reporting"),
    key="partner or expert id",
    sequenced=True,
    partitions=8,
    retention_days=None,
    holds="partners, experts, their availability and their conflicts of interest",
)
MATCHES: Final = Topic(
    name="matches",
    publisher="matching",
    readers=("scheduling", "reporting"),
    key="request id",
    sequenced=True,
    partitions=8,
    retention_days=None,
    holds="which partner and experts are proposed, confirmed or released for a request",
)
ENGAGEMENTS: Final = Topic(
    name="engagements",
    publisher="scheduling",
    readers=("intake", "matching", "reporting"),
    key="request id",
    sequenced=True,
    partitions=8,
    retention_days=None,
    holds="the dated sessions of the assistance given for a request",
)

TOPICS: Final = (SUBMISSIONS, RECEIPTS, REQUESTS, ROSTER, MATCHES, ENGAGEMENTS)

DEAD_SUFFIX: Final = ".dead"
"""A service that parks an event of topic `t` also writes its bytes to `t.dead`, with the reason in headers."""
