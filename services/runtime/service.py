"""What a service is made of: the topics it reads, who decides, which rounds it runs and which pages it shows."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar, cast

from schemas.envelope import Envelope
from schemas.topics import TOPICS, Topic
from services.runtime.database import Database


class FactBody(Protocol):
    """The body of a fact a service publishes: the runtime reads its type, its topic, its key and its JSON."""

    TYPE: ClassVar[str]
    TOPIC: ClassVar[str]

    @property
    def subject(self) -> str: ...

    def model_dump_json(self) -> str: ...


B = TypeVar("B")


class Event(NamedTuple, Generic[B]):
    """One event as a decider sees it. `received` is the worker's time when it took the batch: a decision's `now`."""

    topic: str
    envelope: Envelope
    body: B
    received: datetime


class Known:
    """What a decider knows for one batch: a dataclass whose fields are dicts from an id to a frozen state.

    A decision returns another instance that holds only what changes; `absorb` lays it over what is known.
    """

    def absorb(self, changes: Self) -> None:
        for name in _parts(type(self)):
            if news := getattr(changes, name):
                cast("dict[str, object]", getattr(self, name)).update(news)

    def copied(self) -> Self:
        """Another instance with the same states, which may grow while this one stays as it is."""
        return type(self)(**{name: copy(getattr(self, name)) for name in _parts(type(self))})


@cache
def _parts(known: type[Known]) -> tuple[str, ...]:
    return tuple(part.name for part in fields(cast(Any, known)))


K = TypeVar("K", bound=Known)


@dataclass(frozen=True, slots=True)
class Decider(Generic[K]):
    """Three functions over a batch of events.

    `load` reads with a few set-based statements what the events of the batch may need, locking the rows it will change
    in key order. `decide` is pure and takes one event; it returns what changes and the facts that follow, and may rely
    on the changes of the events before it in the batch. `save` writes all changes with a few set-based statements.
    A `decide` that raises parks its event and that key's successors; `load` and `save` that raise make the batch be
    split until the event at fault stands alone.
    """

    load: Callable[[Database, Sequence[Event[Any]]], Awaitable[K]]
    decide: Callable[[K, Event[Any]], tuple[K, Sequence[FactBody]]]
    save: Callable[[Database, K], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Round(Generic[K]):
    """What must look at everything at once: runs every so often, and soon after events of some topics were applied.

    At most one worker runs it at a time: its transaction holds the round's row. `load` returns None where there is
    nothing to do. `decide` is pure and may take long: it runs in a thread. `size` counts what a round looked at.
    """

    name: str
    every_seconds: float
    load: Callable[[Database, datetime], Awaitable[K | None]]
    decide: Callable[[K, datetime], tuple[K, Sequence[FactBody]]]
    save: Callable[[Database, K], Awaitable[None]]
    after: frozenset[str] = frozenset()
    size: Callable[[K], int] | None = None


@dataclass(frozen=True, slots=True)
class Reads:
    """A topic a service reads. `parse` gives the body, or None for a type that is not for this service."""

    topic: Topic
    parse: Callable[[Envelope, bytes], object | None]


@dataclass(frozen=True, slots=True)
class PageAnswer:
    """What a page answers: an HTTP status, a media type and the text."""

    text: str
    status: int = 200
    media_type: str = "text/html"


@dataclass(frozen=True, slots=True)
class Page:
    """A page a service shows beside its health and metrics. `path` may hold names in braces: `/requests/{id}`."""

    path: str
    answer: Callable[[Database, Mapping[str, str]], Awaitable[PageAnswer]]


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number read from the service's database at each scrape: label values to value."""

    name: str
    says: str
    labels: tuple[str, ...]
    read: Callable[[Database], Awaitable[Mapping[tuple[str, ...], float]]]


@dataclass(frozen=True, slots=True)
class Service:
    """One service, put together in its `app.py`. `migrations` is the package of its numbered SQL files."""

    name: str
    reads: tuple[Reads, ...]
    decider: Decider[Any]
    rounds: tuple[Round[Any], ...] = ()
    pages: tuple[Page, ...] = ()
    gauges: tuple[Gauge, ...] = ()
    migrations: str = ""
    rebuildable: bool = False
    """Whether it publishes nothing, so that everything it keeps can be made anew by reading the logs again."""

    def __post_init__(self) -> None:
        if not self.migrations:
            object.__setattr__(self, "migrations", f"services.{self.name}.migrations")

    @property
    def topics(self) -> list[Topic]:
        """The topics it reads or publishes."""
        read = [reads.topic for reads in self.reads]
        return read + [topic for topic in TOPICS if topic.publisher == self.name and topic not in read]
