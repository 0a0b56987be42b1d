"""A service process: a Faust application that hosts the pump, the relay and the rounds, and serves the pages.

Faust gives the worker, supervision, signals and the web server. Its own Kafka side stays off: an agent acknowledges an
event when it raises, and its transactions do not reach PostgreSQL.
"""

import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NoReturn

import faust
from faust.app.base import BootStrategy
from mode.types import ServiceT

from services.runtime import kafka, logs
from services.runtime.database import Pool, UnusableDatabase
from services.runtime.handling import Handling
from services.runtime.health import Health
from services.runtime.kafka import UnusableKafka
from services.runtime.metrics import Metrics
from services.runtime.migration import migrate
from services.runtime.pages import Pages
from services.runtime.pump import Pump
from services.runtime.redriver import Redriver
from services.runtime.relay import Relay
from services.runtime.rounds import Rounds
from services.runtime.service import Service
from services.runtime.settings import BadSetting, Settings, worker_name
from services.runtime.supervision import Supervised


class _WithoutKafka(BootStrategy):
    """Faust starts its web server and what the application adds, and leaves Kafka to the pump and the relay."""

    enable_kafka = False
    enable_kafka_consumer = False
    enable_kafka_producer = False


class _Application(faust.App):
    hosted: tuple[ServiceT, ...] = ()

    def on_init_dependencies(self) -> Iterable[ServiceT]:
        return [*super().on_init_dependencies(), *self.hosted]


_Application.BootStrategy = _WithoutKafka


class Host(Supervised):
    """Opens the database and Kafka, then starts what moves events; closes them in the opposite order."""

    def __init__(self, service: Service, settings: Settings) -> None:
        super().__init__()
        self._service = service
        self._settings = settings
        self._log = logs.logger("host")
        self.health = Health()
        self.metrics = Metrics(service.name)
        self.pool = Pool(settings.database, settings.pool_connections)
        self.handling = Handling(service)

    async def on_start(self) -> None:
        worker = worker_name(self._service.name)
        relay = Relay(self._settings, worker, self._service.name, self.pool, self.metrics, self.health)
        rounds = [
            Rounds(self._service, round_, self.pool, relay, self.metrics, self.health)
            for round_ in self._service.rounds
        ]

        def committed(topics: frozenset[str]) -> None:
            relay.wake()
            for one in rounds:
                one.wake(topics)

        pump = Pump(self._settings, worker, self.handling, self.pool, self.metrics, self.health, committed)
        redriver = Redriver(self.handling, self.pool, self.health, committed)
        self.begin(self._open([relay, *rounds, redriver, pump]))

    async def _open(self, parts: Iterable[Supervised]) -> None:
        """Waits for the servers, brings the database up to date, and starts the parts."""
        try:
            await self.pool.open(self._waiting_for_database)
            self.health.database_here()
            async with self.pool.connection() as db:
                for migration in await migrate(
                    db, self._service.name, self._service.migrations, self._settings.database
                ):
                    self._log.info("migrated", part=migration.part, migration=migration.name)
            created = await kafka.create_topics(self._settings, self._service.topics, self._waiting_for_kafka)
            if created:
                self._log.info("topics created", topics=created)
            self.health.kafka_here()
            for part in parts:
                await self.add_runtime_dependency(part)
        except (UnusableDatabase, UnusableKafka) as error:
            await self.crash(error)

    def _waiting_for_database(self, why: str) -> None:
        self.health.database_away(why)
        self._log.warning(why)

    def _waiting_for_kafka(self, why: str) -> None:
        self.health.kafka_away(why)
        self._log.warning(why)

    async def on_shutdown(self) -> None:
        await self.pool.close()


def application(service: Service, settings: Settings, logging: dict[str, Any]) -> faust.App:
    """The Faust application of one service."""
    host = Host(service, settings)
    app = _Application(
        f"fieldbridge-{service.name}",
        broker=f"kafka://{settings.kafka.split(',')[0]}",
        web_host=settings.host,
        web_bind=settings.host,
        web_port=settings.port,
        datadir=Path(mkdtemp(prefix="fieldbridge-")),
        logging_config=logging,
        worker_redirect_stdouts=False,
        autodiscover=False,
        topic_disable_leader=True,
    )
    app.hosted = (host,)
    Pages(service, host.pool, host.metrics, host.health).add_to(app)
    return app


def run(service: Service) -> NoReturn:
    """Runs the service until SIGTERM. A setting or server that cannot be used ends it with one sentence."""
    try:
        settings = Settings.of_service(service.name)
    except BadSetting as error:
        sys.exit(f"fieldbridge {service.name}: {error}")
    logging = logs.configure(service.name, settings.log_level, settings.log_format)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    app = application(service, settings, logging)
    worker = faust.Worker(app, loop=loop, loglevel=settings.log_level, quiet=True)
    worker.execute_from_commandline()
