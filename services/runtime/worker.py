"""A service process: a Faust application that hosts the pump, the relay and the rounds, and serves the pages.

Faust gives the worker, supervision, signals and the web server. Its own Kafka side stays off: an agent acknowledges an
event when it raises, and its transactions do not reach PostgreSQL.
"""

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn

import faust
from faust.app.base import BootStrategy
from mode.types import ServiceT

from services.runtime import kafka, logs
from services.runtime.database import Failure, Pool, UnusableDatabase, address, meaning
from services.runtime.failpoints import armed
from services.runtime.handling import Handling
from services.runtime.health import Health
from services.runtime.kafka import UnusableKafka
from services.runtime.logs import describe
from services.runtime.metrics import Metrics
from services.runtime.migration import migrate
from services.runtime.pages import Pages
from services.runtime.pump import Pump
from services.runtime.redriver import Redriver
from services.runtime.relay import Relay
from services.runtime.retention import Retention
from services.runtime.rounds import Rounds
from services.runtime.service import Service
from services.runtime.settings import BadSetting, Settings, worker_name
from services.runtime.supervision import Stopping, Supervised
from services.runtime.watchdog import Watchdog

_END_AFTER_SECONDS: Final = 2.6


class _WithoutKafka(BootStrategy):
    """Faust starts its web server and what the application adds, and leaves Kafka to the pump and the relay."""

    enable_kafka = False
    enable_kafka_consumer = False
    enable_kafka_producer = False


class _Application(faust.App):
    hosted: tuple[ServiceT, ...] = ()

    def on_init_dependencies(self) -> Iterable[ServiceT]:
        return [*super().on_init_dependencies(), *self.hosted]

    def _create_directories(self) -> None:
        """Faust keeps tables there; there are none."""


_Application.BootStrategy = _WithoutKafka


class Host(Supervised):
    """Opens the database and Kafka, then starts what moves events; closes them in the opposite order.

    `end_worker` is called where the database or Kafka can never be used; `unusable` then says why.
    """

    def __init__(self, service: Service, settings: Settings) -> None:
        super().__init__()
        self._service = service
        self._settings = settings
        self._log = logs.logger("host")
        self._parts: list[Supervised] = []
        self.health = Health()
        self.metrics = Metrics(service.name)
        self.pool = Pool(settings.database, settings.pool_connections, repeatable=service.rebuildable)
        self.handling = Handling(service, armed(settings.failpoints))
        self.end_worker: Callable[[], None] = lambda: None
        self.unusable: Exception | None = None

    async def on_start(self) -> None:
        self._parts = self._make_parts()
        self.begin(self._open())

    def _make_parts(self) -> list[Supervised]:
        worker = worker_name(self._service.name)
        relay = Relay(self._settings, worker, self._service.name, self.pool, self.metrics, self.health)
        rounds = [
            Rounds(self._service, round_, self.pool, relay, self.metrics, self.health, armed(self._settings.failpoints))
            for round_ in self._service.rounds
        ]

        def committed(topics: frozenset[str], anything_to_publish: bool) -> None:
            if anything_to_publish:
                relay.wake()
            for one in rounds:
                one.applied(topics)

        pump = Pump(self._settings, worker, self.handling, self.pool, self.metrics, self.health, committed)
        redriver = Redriver(self.handling, self.pool, self.health, committed)
        return [relay, *rounds, redriver, Retention(self._settings, self.pool, self.metrics), pump]

    async def _open(self) -> None:
        """Waits for the servers, brings the database up to date, and starts the parts."""
        try:
            await self.pool.open(self._waiting_for_database, self.rest)
            await self._migrate()
            self.health.database_here()
            created = await kafka.create_topics(
                self._settings, self._service.topics, self._waiting_for_kafka, self.rest
            )
            if created:
                self._log.info("topics created", topics=created)
            self.health.kafka_here()
            for part in self._parts:
                await self.add_runtime_dependency(part)
        except Stopping:
            return
        except (UnusableDatabase, UnusableKafka) as error:
            self.unusable = error
            self.end_worker()

    async def _migrate(self) -> None:
        """Raises UnusableDatabase where a migration cannot be applied."""
        while True:
            try:
                async with self.pool.connection() as db:
                    for one in await migrate(db, self._service.name, self._service.migrations, self._settings.database):
                        self._log.info("migrated", part=one.part, migration=one.name)
                return
            except UnusableDatabase:
                raise
            except Exception as error:  # what it means is asked next
                if meaning(error) is Failure.DEFECT:
                    raise UnusableDatabase(
                        f"The database at {address(self._settings.database)} cannot be brought up to date: "
                        f"{' '.join(str(error).split())}."
                    ) from None
                self._waiting_for_database(describe(error))
                await self.rest(0.5)

    def _waiting_for_database(self, why: str) -> None:
        self.health.database_away(why)
        self._log.warning(why)

    def _waiting_for_kafka(self, why: str) -> None:
        self.health.kafka_away(why)
        self._log.warning(why)

    async def on_stop(self) -> None:
        """All parts end at the same time: together they have no longer than one of them."""
        await asyncio.gather(*(part.stop() for part in self._parts))
        await super().on_stop()

    async def on_shutdown(self) -> None:
        await self.pool.close()


def application(host: Host, service: Service, settings: Settings, logging: dict[str, Any]) -> faust.App:
    """The Faust application of one service."""
    app = _Application(
        f"fieldbridge-{service.name}",
        broker=f"kafka://{settings.kafka.split(',')[0]}",
        web_host=settings.host,
        web_bind=settings.host,
        web_port=settings.port,
        logging_config=logging,
        worker_redirect_stdouts=False,
        autodiscover=False,
        topic_disable_leader=True,
    )
    app.hosted = (host,)
    Pages(service, host.pool, host.metrics, host.health).add_to(app)
    return app


class _Worker(faust.Worker):
    """A Faust worker that ends soon after it is asked to."""

    def end(self) -> None:
        """Ends the worker as SIGTERM does."""
        self._schedule_shutdown(signal.SIGTERM)

    def _schedule_shutdown(self, signal: signal.Signals) -> None:
        # What has not ended by then waits for a server that is away. Nothing is lost: PostgreSQL is the authority.
        last_resort = threading.Timer(_END_AFTER_SECONDS, os._exit, (0,))
        last_resort.daemon = True
        last_resort.start()
        super()._schedule_shutdown(signal)

    def _gather_all(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()

    async def _sentinel_task(self) -> None:
        await asyncio.sleep(0)


def run(service: Service) -> NoReturn:
    """Runs the service until SIGTERM. A setting or server that cannot be used ends it with one sentence."""
    signal.signal(signal.SIGTERM, _end_at_once)
    try:
        settings = Settings.of_service(service.name)
        _check_address(settings)
    except BadSetting as error:
        sys.exit(f"fieldbridge {service.name}: {error}")
    logging = logs.configure(service.name, settings.log_level, settings.log_format)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    host = Host(service, settings)
    worker = _Worker(application(host, service, settings, logging), loop=loop, loglevel=settings.log_level, quiet=True)
    host.end_worker = worker.end
    _collect_seldom()
    Watchdog(host.health, settings.watchdog_seconds).start(loop)
    try:
        worker.execute_from_commandline()
    finally:
        if host.unusable is not None:
            sys.exit(f"fieldbridge {service.name}: {host.unusable}")


def _collect_seldom() -> None:
    """A batch makes tens of thousands of objects and no cycles: to look for some among them costs and finds nothing.

    The threshold is above what lives at a time with batches of 2,000: below it, a fifth of the time went there.
    """
    gc.freeze()
    gc.set_threshold(300_000, 20, 20)


def _end_at_once(_: int, __: object) -> NoReturn:
    """SIGTERM before the worker listens to it."""
    sys.exit(0)


def _check_address(settings: Settings) -> None:
    """Raises BadSetting where the pages cannot be served: Faust would show a traceback instead of a sentence."""
    try:
        with socket.create_server((settings.host, settings.port)):
            return
    except OSError as error:
        raise BadSetting(
            f"FIELDBRIDGE_PORT is {settings.port} and FIELDBRIDGE_HOST is {settings.host!r}: no listening there, "
            f"{(error.strerror or str(error)).lower()}. Choose another port, or end what listens on it."
        ) from None
