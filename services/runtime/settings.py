"""What a service is told from outside, read once at its start and passed on as an argument."""

import os
import socket
from collections.abc import Mapping
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, StringConstraints, ValidationError, ValidationInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.topics import TOPICS
from services.runtime.failpoints import checked

LONGEST_LEASE_SECONDS: Final = 300.0
LONGEST_IN_LOG_DAYS: Final = 10 + max(topic.retention_days or 0 for topic in TOPICS if not topic.sequenced)
"""For how long Kafka may hold a message without a sequence: it deletes whole segments, of up to a week each."""


def _enough(connections: int, info: ValidationInfo) -> int:
    needed = info.data.get("lanes", 1) + 2
    if connections < needed:
        raise ValueError(f"{needed - 2} lanes need at least {needed}")
    return connections


class BadSetting(Exception):
    """A setting is missing or wrong; the message names its environment variable and says what is expected."""


class Settings(BaseSettings):
    """Settings of one service process. Each is read from the environment variable `FIELDBRIDGE_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="FIELDBRIDGE_", frozen=True, extra="ignore")

    kafka: Annotated[str, StringConstraints(pattern=r"^[^\s,:]+:\d+(,[^\s,:]+:\d+)*$")]
    """Kafka's bootstrap servers: `host:port`, several separated by commas."""
    database: Annotated[str, StringConstraints(pattern=r"^postgres(ql)?://.+")]
    """URL of this service's own database; from `FIELDBRIDGE_<SERVICE>_DATABASE`."""
    topic_prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,60}$")] = ""
    """Put before every topic and consumer group, to live in a cluster that others use."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8100
    batch_events: Annotated[int, Field(ge=1, le=20_000)] = 1000
    """Most events in one transaction."""
    lanes: Annotated[int, Field(ge=1, le=8)] = 1
    """Into how many parts a worker divides its partitions: one decides while PostgreSQL works for another.

    More than one is for a worker that has a processor to itself: each lane has transactions of its own.
    """
    pool_connections: Annotated[int, Field(ge=3, le=100), AfterValidator(_enough)] = 8
    """Most connections to the database: one for each lane, and some for the relay, the rounds and the pages."""
    lease_seconds: Annotated[float, Field(gt=0.2, le=LONGEST_LEASE_SECONDS)] = 3.0
    """How long a relay leads without renewing."""
    session_timeout_ms: Annotated[int, Field(ge=1000, le=300_000)] = 10_000
    """After how long without a heartbeat Kafka gives a worker's partitions to others."""
    parking_limit: Annotated[int, Field(ge=1)] = 1000
    """After how many events parked in a row, none handled between, the service stops reading."""
    watchdog_seconds: Annotated[float, Field(ge=1, le=600)] = 15.0
    """After how long without a turn of its event loop the process ends itself, so that another takes over."""
    retention_days: Annotated[int, Field(ge=LONGEST_IN_LOG_DAYS, le=36_500)] = 2 * LONGEST_IN_LOG_DAYS
    """How long ids of messages without a sequence are remembered: a message may be copied as long as the log holds it,
    and the copy may be read as late again. Repeated later, it counts as new."""
    replication_factor: Annotated[int, Field(ge=1, le=10)] = 1
    """Replicas of topics that the service creates."""
    failpoints: Annotated[str, AfterValidator(checked)] = ""
    """For fault campaigns only: where the process is to end, stop or hang; see services/runtime/failpoints.py."""
    log_level: Annotated[str, StringConstraints(pattern=r"^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"
    log_format: Annotated[str, StringConstraints(pattern=r"^(json|console)$")] = "json"

    @classmethod
    def of_service(cls, service: str, environment: Mapping[str, str] | None = None) -> Self:
        """Settings of the named service from the environment. Raises BadSetting."""
        variables = os.environ if environment is None else environment
        name = f"FIELDBRIDGE_{service.upper()}_DATABASE"
        if name not in variables:
            raise BadSetting(
                f"{name} is not set: it is the URL of the database of {service}, "
                f"such as postgresql://fieldbridge_{service}:PASSWORD@127.0.0.1:5432/fieldbridge_{service}."
            )
        given = {
            key.removeprefix("FIELDBRIDGE_").lower(): value
            for key, value in variables.items()
            if key.startswith("FIELDBRIDGE_")
        }
        values = {field: given[field] for field in cls.model_fields if field in given} | {"database": variables[name]}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise BadSetting(_sentence(error, name)) from None

    def topic(self, name: str) -> str:
        """Name of a topic in the cluster."""
        return f"{self.topic_prefix}{name}"


def _sentence(error: ValidationError, database_variable: str) -> str:
    problem = error.errors(include_url=False, include_context=False)[0]
    field = str(problem["loc"][0]) if problem["loc"] else "settings"
    variable = database_variable if field == "database" else f"FIELDBRIDGE_{field.upper()}"
    if problem["type"] == "missing":
        return f"{variable} is not set."
    shown = "(hidden)" if field == "database" else repr(problem["input"])
    return f"{variable} is {shown}: {problem['msg'][0].lower()}{problem['msg'][1:]}."


def worker_name(service: str) -> str:
    """Names this process in leases, positions and logs."""
    return f"{service}@{socket.gethostname()}:{os.getpid()}"
