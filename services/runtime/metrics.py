"""The catalogue of metrics: every name the runtime exposes, what it says, its unit and its labels.

Base units, low cardinality: no id of a request, agency or person is ever a label.
"""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_LATENCY: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


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
        self.latency = Histogram(
            "fieldbridge_event_latency_seconds",
            "Time from an event's own time until its effects were committed here.",
            ("topic",),
            buckets=_LATENCY,
            registry=self.registry,
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
