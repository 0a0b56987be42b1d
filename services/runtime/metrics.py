"""The catalogue of metrics: every name the runtime exposes, what it says, its unit and its labels.

Base units, low cardinality: no id of a request, agency or person is ever a label.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_LATENCY: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Latencies(Collector):
    """A histogram by topic that takes the figures of a whole batch at once: a call for each event costs too much."""

    def __init__(self, name: str, says: str, registry: CollectorRegistry) -> None:
        self._name = name
        self._says = says
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        registry.register(self)

    def observe(self, topic: str, seconds: Sequence[float]) -> None:
        """Adds events of a topic by their latencies."""
        counts = self._counts.setdefault(topic, [0] * (len(_LATENCY) + 1))
        for one in seconds:
            counts[bisect_left(_LATENCY, one)] += 1
        self._sums[topic] = self._sums.get(topic, 0.0) + sum(seconds)

    def collect(self) -> Iterable[Metric]:
        """What a scrape shows."""
        family = HistogramMetricFamily(self._name, self._says, labels=("topic",))
        bounds = [*map(str, map(float, _LATENCY)), "+Inf"]
        for topic, counts in self._counts.items():
            buckets = list(zip(bounds, map(float, accumulate(counts)), strict=True))
            family.add_metric([topic], buckets, self._sums[topic])
        yield family


class Metrics:
    """The metrics of one service process."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        self.at_scrape: list[Callable[[], None]] = []
        """Set the gauges that are read at each scrape."""
        self.events = Counter(
            "fieldbridge_events",
            "Events taken from Kafka, by topic and outcome: applied, duplicate, ignored (not meant for it) or parked.",
            ("topic", "outcome"),
            registry=self.registry,
        )
        self.facts = Counter(
            "fieldbridge_facts", "Facts committed to the outbox, by topic.", ("topic",), registry=self.registry
        )
        self.published = Counter(
            "fieldbridge_published",
            "Records acknowledged by Kafka to the relay, by topic.",
            ("topic",),
            registry=self.registry,
        )
        self.latencies = Latencies(
            "fieldbridge_event_latency_seconds",
            "Time from an event's own time until its effects were committed here.",
            self.registry,
        )
        self.batch_seconds = Histogram(
            "fieldbridge_batch_duration_seconds",
            "Time of one batch: load, decide, save, commit.",
            buckets=_LATENCY,
            registry=self.registry,
        )
        self.batch_events = Histogram(
            "fieldbridge_batch_events",
            "Events in one batch.",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000),
            registry=self.registry,
        )
        self.lag_events = Gauge(
            "fieldbridge_lag_events",
            "Events of the partitions assigned here not yet handled.",
            ("topic",),
            registry=self.registry,
        )
        self.lag_seconds = Gauge(
            "fieldbridge_lag_seconds",
            "Age of the newest event handled while others wait; 0 when none wait.",
            ("topic",),
            registry=self.registry,
        )
        self.position_age = Gauge(
            "fieldbridge_position_age_seconds",
            "Time since a position last moved while events wait.",
            registry=self.registry,
        )
        self.partitions = Gauge(
            "fieldbridge_partitions", "Partitions assigned to this process.", registry=self.registry
        )
        self.rebalances = Counter(
            "fieldbridge_rebalances", "Assignments of partitions received.", registry=self.registry
        )
        self.fenced = Counter(
            "fieldbridge_fenced",
            "Partition slices dropped because a newer owner holds the position.",
            registry=self.registry,
        )
        self.retries = Counter(
            "fieldbridge_retries",
            "Transactions tried again, by cause: unreachable (the server is away) or contended.",
            ("cause",),
            registry=self.registry,
        )
        self.outbox_depth = Gauge(
            "fieldbridge_outbox_depth", "Committed facts not yet acknowledged by Kafka.", registry=self.registry
        )
        self.outbox_age = Gauge(
            "fieldbridge_outbox_age_seconds", "Age of the oldest fact in the outbox.", registry=self.registry
        )
        self.relay_leader = Gauge(
            "fieldbridge_relay_leader", "1 while this process leads the relay.", registry=self.registry
        )
        self.relay_failures = Counter(
            "fieldbridge_relay_failures", "Sends to Kafka that failed and are repeated.", registry=self.registry
        )
        self.parked = Gauge(
            "fieldbridge_parked", "Events parked now, by topic and reason.", ("topic", "reason"), registry=self.registry
        )
        self.round_seconds = Histogram(
            "fieldbridge_round_duration_seconds",
            "Time of one round.",
            ("round",),
            buckets=_LATENCY,
            registry=self.registry,
        )
        self.round_size = Gauge(
            "fieldbridge_round_size", "What the last round looked at.", ("round",), registry=self.registry
        )
        self.round_runs = Counter(
            "fieldbridge_round_runs", "Rounds that had something to do.", ("round",), registry=self.registry
        )
        self.round_failures = Counter(
            "fieldbridge_round_failures", "Rounds that failed and are tried again.", ("round",), registry=self.registry
        )
        self.retention_removed = Counter(
            "fieldbridge_retention_removed",
            "Rows removed because they were older than the retention, by table.",
            ("table",),
            registry=self.registry,
        )
        self.retention_overdue = Gauge(
            "fieldbridge_retention_overdue_seconds",
            "Time since a pass over old rows fell due that has not come to its end; 0 while none is due.",
            registry=self.registry,
        )
        self.table_rows = Gauge(
            "fieldbridge_table_rows",
            "Rows of each table as PostgreSQL estimates them, by state: live, or dead and not vacuumed yet.",
            ("table", "state"),
            registry=self.registry,
        )
        self.table_bytes = Gauge(
            "fieldbridge_table_bytes", "Size of each table with its indexes.", ("table",), registry=self.registry
        )
        self.pool_connections = Gauge(
            "fieldbridge_pool_connections",
            "Connections to PostgreSQL, by state: used or open.",
            ("state",),
            registry=self.registry,
        )
        self.halted = Gauge(
            "fieldbridge_halted",
            "1 while the service has stopped reading for this reason.",
            ("reason",),
            registry=self.registry,
        )
        self.ready = Gauge("fieldbridge_ready", "1 while the service is ready.", registry=self.registry)
        self.service = Gauge("fieldbridge_service", "Always 1; names the service.", ("name",), registry=self.registry)
        self.service.labels(service).set(1)
