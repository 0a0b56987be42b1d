"""Where things are: what the environment says, and what `fieldbridge up` wrote down."""

import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

from schemas.topics import SERVICES
from services.console.trouble import Trouble

_RECORD: Final = "stack.json"
_KAFKA: Final = re.compile(r"[^\s,:]+:\d+(,[^\s,:]+:\d+)*")
_POSTGRES: Final = re.compile(r"postgres(ql)?://.+")
_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]{0,60}")


def database_variable(service: str) -> str:
    """The environment variable that holds the URL of a service's database."""
    return f"FIELDBRIDGE_{service.upper()}_DATABASE"


@dataclass(frozen=True, slots=True)
class Process:
    """A service process of this machine, recognised by its id and the time it began."""

    pid: int
    began: float
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack that can be asked: its Kafka, its databases, and its service processes where they run here."""

    kafka: str
    topic_prefix: str = ""
    databases: dict[str, str] = field(default_factory=dict[str, str])
    processes: dict[str, Process] = field(default_factory=dict[str, Process])
    own_servers: bool = False
    """Whether Kafka and PostgreSQL were started by `up` and are stopped by `down`."""

    def topic(self, name: str) -> str:
        """Name of a topic in the cluster."""
        return f"{self.topic_prefix}{name}"

    def database(self, service: str) -> str:
        """URL of a service's database. Raises Trouble."""
        if service not in self.databases:
            raise Trouble(
                f"The database of {service} is not known: set {database_variable(service)}, or start a stack with "
                "`fieldbridge up`."
            )
        return self.databases[service]

    def process(self, service: str) -> Process:
        """The process of a service that `up` has started. Raises Trouble where there is none."""
        if service not in self.processes:
            raise Trouble(f"{service} was not started here: run `fieldbridge up` first.")
        return self.processes[service]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the environment says, read once."""

    home: Path
    kafka: str | None = None
    administrator: str | None = None
    topic_prefix: str = ""
    database_prefix: str = "fieldbridge"
    databases: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Self:
        """Reads the settings from environment variables. Raises Trouble where one is wrong."""
        found = cls(
            home=Path(variables.get("FIELDBRIDGE_HOME") or ".fieldbridge"),
            kafka=_checked(variables, "FIELDBRIDGE_KAFKA", _KAFKA, "host:port, several separated by commas"),
            administrator=_checked(
                variables, "FIELDBRIDGE_POSTGRES", _POSTGRES, "an administrator's URL, postgresql://...", secret=True
            ),
            topic_prefix=_checked(variables, "FIELDBRIDGE_TOPIC_PREFIX", _PREFIX, "letters, digits, '.', '_', '-'")
            or "",
            databases={
                service: url
                for service in SERVICES
                if (url := _checked(variables, database_variable(service), _POSTGRES, "postgresql://...", secret=True))
            },
        )
        if (found.home.exists() or found.home.is_symlink()) and not found.home.is_dir():
            raise Trouble(f"FIELDBRIDGE_HOME is {found.home}, which is not a folder: name another one.")
        return found

    def stack(self) -> Stack:
        """The stack that commands speak to: what `up` wrote down, overruled by the environment. Raises Trouble."""
        written = read_record(self.home)
        if written is None and self.kafka is None:
            raise Trouble(
                f"No stack is known in {self.home}: start one with `fieldbridge up`, or set FIELDBRIDGE_KAFKA and, for "
                f"what looks into databases, {', '.join(database_variable(service) for service in SERVICES)}."
            )
        if written is None:
            assert self.kafka is not None
            return Stack(self.kafka, self.topic_prefix, dict(self.databases))
        return replace(
            written,
            kafka=self.kafka or written.kafka,
            topic_prefix=self.topic_prefix or written.topic_prefix,
            databases=written.databases | dict(self.databases),
        )


def here() -> Surroundings:
    """The surroundings of this process. Raises Trouble."""
    return Surroundings.of(os.environ)


def read_record(home: Path) -> Stack | None:
    """What `up` wrote down in this folder, or None if it never did. Raises Trouble where it cannot be read."""
    path = home / _RECORD
    try:
        written: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        processes = {name: Process(**process) for name, process in written.pop("processes").items()}
        return Stack(**written, processes=processes)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Trouble(
            f"{path} cannot be read ({type(error).__name__}): stop what runs, remove the file and run `fieldbridge up`."
        ) from None


def write_record(home: Path, stack: Stack) -> None:
    """Writes down a stack for later commands. The file holds passwords: only its owner may read it. Raises Trouble."""
    path = home / _RECORD
    made = path.with_name(f".{_RECORD}.{secrets.token_hex(4)}")
    try:
        home.mkdir(parents=True, exist_ok=True)
        made.touch(mode=0o600)
        made.write_text(json.dumps(asdict(stack), indent=2) + "\n", encoding="utf-8")
        made.replace(path)
    except OSError as error:
        raise Trouble(f"{error.filename or path} cannot be written: {error.strerror}.") from None


def _checked(
    variables: Mapping[str, str], name: str, pattern: re.Pattern[str], expected: str, *, secret: bool = False
) -> str | None:
    value = variables.get(name)
    if value is None or value == "":
        return None
    if not pattern.fullmatch(value):
        shown = "(hidden)" if secret else repr(value)
        raise Trouble(f"{name} is {shown}: expected is {expected}.")
    return value
