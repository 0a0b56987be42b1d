"""Runs docker-compose.yml for real: `make compose-test`.

Brings the stack up under a name and on ports of its own, speaks to it from outside until an engagement is confirmed,
and takes everything down again. Docker Compose is used where there is an engine, else podman-compose; where there is
neither, it says that it is skipped.
"""

# aiokafka declares no types.
# pyright: reportMissingTypeStubs=false

import asyncio
import csv
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from deploy.local import ports
from schemas.envelope import Envelope, read
from schemas.topics import ENGAGEMENTS, MATCHES, RECEIPTS, REQUESTS, SERVICES, SUBMISSIONS

_TREE: Final = Path(__file__).resolve().parent.parent
_AGENCIES: Final = _TREE / "services" / "console" / "data" / "agencies.csv"
_ALERTS: Final = _TREE / "deploy" / "prometheus" / "alerts.yml"
_DASHBOARD: Final = _TREE / "deploy" / "grafana" / "dashboards" / "fieldbridge.json"
_PUBLISHED: Final = ("kafka", "postgres", *SERVICES, "prometheus", "grafana")
_BUILD_SECONDS: Final = 900.0
_WAIT_SECONDS: Final = 120.0
_PAUSE_SECONDS: Final = 0.5
_LOG_LINES: Final = 40


class Failed(Exception):
    """The stack does not do what it should; the message says what was awaited and what came instead."""


def say(text: str) -> None:
    print(f"compose-test: {text}", flush=True)


# The engine and the stack


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine, its compose command, and what can be started with it."""

    program: str
    compose: tuple[str, ...]
    containers: tuple[str, ...]


def find_engine() -> Engine | None:
    """Docker with its Compose if it answers, else podman with podman-compose. Podman may run without the published
    images, on stand-ins, and there is none for Grafana."""
    if _answers("docker", "info") and _answers("docker", "compose", "version"):
        return Engine("docker", ("docker", "compose"), _PUBLISHED)
    beside = Path(sys.executable).with_name("podman-compose")
    found = str(beside) if beside.exists() else shutil.which("podman-compose")
    if found is not None and _answers("podman", "info"):
        return Engine("podman", (found,), tuple(name for name in _PUBLISHED if name != "grafana"))
    return None


def _answers(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@dataclass(frozen=True, slots=True)
class Stack:
    """One run of the compose file under a project name, on ports and with a password of its own."""

    engine: Engine
    project: str
    ports: Mapping[str, int]
    password: str

    @classmethod
    def prepare(cls, engine: Engine) -> "Stack":
        chosen: dict[str, int] = {}
        for name in _PUBLISHED:
            port = ports.choose()
            while port in chosen.values():
                port = ports.choose()
            chosen[name] = port
        return cls(engine, f"fieldbridge-test-{os.getpid()}", chosen, secrets.token_urlsafe(16))

    def compose(self, *arguments: str, seconds: float = _WAIT_SECONDS) -> None:
        """Raises Failed with the end of the output."""
        settings = {f"FIELDBRIDGE_{name.upper()}_PORT": str(port) for name, port in self.ports.items()}
        for name in ("postgres", *SERVICES, "grafana"):
            settings[f"FIELDBRIDGE_{name.upper()}_PASSWORD"] = self.password
        command = [*self.engine.compose, "--project-name", self.project, *arguments]
        self.run(command, seconds, environment=os.environ | settings)

    def inside(self, name: str, *command: str, text: str = "") -> None:
        """Runs a command in a container. Raises Failed with the end of the output."""
        self.run([self.engine.program, "exec", "--interactive", self.container(name), *command], 60, text=text)

    def container(self, name: str) -> str:
        """Id of a container of this run. Raises Failed."""
        labels = (f"com.docker.compose.project={self.project}", f"com.docker.compose.service={name}")
        filters = [argument for label in labels for argument in ("--filter", f"label={label}")]
        found = self.run([self.engine.program, "ps", "--all", "--quiet", *filters], 60).split()
        if not found:
            raise Failed(f"there is no container of {name}")
        return found[0]

    def unhealthy(self) -> list[str]:
        """Containers whose health check fails. Podman only runs checks by itself where there is systemd."""
        return [name for name in self.engine.containers if not self._is_healthy(self.container(name))]

    def exit_code(self, name: str) -> str:
        """What a stopped container's process ended with."""
        return self._inspect(self.container(name), "{{.State.ExitCode}}")

    def address(self, name: str) -> str:
        return f"{ports.LOOPBACK}:{self.ports[name]}"

    def print_logs(self) -> None:
        for name in self.engine.containers:
            print(f"--- the last lines of {name}", flush=True)
            try:
                print(self.run([self.engine.program, "logs", "--tail", str(_LOG_LINES), self.container(name)], 60))
            except Failed as reason:
                print(reason)

    def _is_healthy(self, container: str) -> bool:
        if self.engine.program == "podman":
            return _answers("podman", "healthcheck", "run", container)
        return self._inspect(container, "{{.State.Health.Status}}") == "healthy"

    def _inspect(self, container: str, template: str) -> str:
        return self.run([self.engine.program, "inspect", "--format", template, container], 60).strip()

    def run(
        self, command: Sequence[str], seconds: float, *, text: str = "", environment: Mapping[str, str] | None = None
    ) -> str:
        """What the command prints. Raises Failed with the end of it where it fails or takes too long."""
        try:
            ran = subprocess.run(
                command,
                cwd=_TREE,
                env=environment,
                input=text,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"`{' '.join(command)}` did not end within {seconds:.0f} s") from None
        if ran.returncode != 0:
            raise Failed(f"`{' '.join(command)}` ended with {ran.returncode}:\n{ran.stdout[-4000:]}")
        return ran.stdout


def fetch(url: str) -> str:
    """The text of a page, whatever its status; empty where nobody answers."""
    try:
        with urlopen(url, timeout=5) as answer:  # noqa: S310 - addresses of our own containers only
            return answer.read().decode()
    except HTTPError as error:
        return error.read().decode()
    except (OSError, HTTPException):
        return ""


def await_that(what: str, holds: Callable[[], bool], now_it_is: Callable[[], str] = str) -> None:
    """Waits until it holds. Raises Failed."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise Failed(f"not within {_WAIT_SECONDS:.0f} s: {what}. {now_it_is()}")
        time.sleep(_PAUSE_SECONDS)


def await_ready(service: str, url: str) -> None:
    """Waits until the service's own page says that it is ready. Raises Failed."""
    await_that(f"{service} is ready", lambda: '"ready": true' in fetch(url), lambda: fetch(url))


# The outside world


@dataclass
class Outside:
    """Another system: it sends submissions and reads what becomes of them, through the listener for this machine."""

    producer: Any
    consumer: Any
    heard: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list[tuple[str, str, dict[str, Any]]])

    async def submit(self, event_type: str, subject: str, data: Mapping[str, object]) -> None:
        envelope = Envelope(str(uuid4()), "urn:fieldbridge:compose-test", event_type, subject, datetime.now(UTC))
        await self.producer.send_and_wait(
            SUBMISSIONS.name, json.dumps(data).encode(), key=subject.encode(), headers=envelope.headers()
        )

    async def hear(self, event_type: str, subject: str) -> dict[str, Any]:
        """The first fact of this type about the subject. Raises Failed, also where a submission is refused."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            for heard_type, heard_subject, data in self.heard:
                if heard_type == "submission.refused.v1":
                    raise Failed(f"{data['submission_type']} was refused: {data['reason']} {data['problems']}")
                if (heard_type, heard_subject) == (event_type, subject):
                    return data
            if time.monotonic() > deadline:
                told = [f"{heard_type} of {heard_subject}" for heard_type, heard_subject, _ in self.heard]
                raise Failed(f"no {event_type} of {subject} within {_WAIT_SECONDS:.0f} s; heard: {', '.join(told)}")
            for records in (await self.consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    envelope, body = read(record.headers, record.value)
                    self.heard.append((envelope.type, envelope.subject, json.loads(body)))


async def ask_for_assistance(outside: Outside, agency: Mapping[str, str]) -> str:
    """Lists an expert, asks for assistance and answers until the engagement is confirmed; returns the request's id."""
    office = {"role": "programme_office", "id": "programme-office"}
    partner = {"role": "partner", "id": "ntoa"}
    executive = {"role": "agency_executive", "id": agency["ori"]}
    today = datetime.now(UTC).date()

    def days(first: int, last: int) -> dict[str, str]:
        return {"first": str(today + timedelta(first)), "last": str(today + timedelta(last))}

    async def about(kind: str, subject: str, event_type: str, actor: Mapping[str, str], **data: object) -> None:
        await outside.submit(event_type, subject, {f"{kind}_id": subject, "actor": actor, **data})

    await about(
        "partner",
        "ntoa",
        "partner.applied.v1",
        partner,
        name="National Tactical Officers Association",
        acronym="NTOA",
        capacity=10,
    )
    await about("partner", "ntoa", "application.ruled.v1", office, selected=True)
    profile = {
        "partner_id": "ntoa",
        "skills": [{"topic": "active-shooter", "level": "lead"}],
        "delivery_modes": ["in_person_training"],
        "agency_types": [agency["agency_type"]],
        "sworn_band": "100_to_499",
        "home": {"latitude": float(agency["lat"]), "longitude": float(agency["lng"])},
        "time_zone": "America/New_York",
    }
    await about("expert", "ntoa-x001", "expert.listed.v1", partner, profile=profile)

    request = f"R-{uuid4().hex[:12]}"
    contact = {"office": "Chief of Police", "email": "chief@example.gov"}
    await about(
        "request",
        request,
        "request.submitted.v1",
        executive,
        ori=agency["ori"],
        terms={
            "topics": ["active-shooter"],
            "delivery_modes": ["in_person_training"],
            "window": days(30, 150),
            "audience": {"in_person": 40},
        },
        executive_support={"signed_on": str(today - timedelta(2)), "reference": "compose-test"},
        sensitive={
            "executive": contact,
            "point_of_contact": contact,
            "problem": "To be trained together.",
            "goals": "-",
        },
    )
    await outside.hear("request.accepted.v1", request)
    say(f"request {request} of {agency['agency_name']} is accepted")
    match_id = (await outside.hear("match.proposed.v1", request))["match_id"]
    await about("request", request, "proposal.accepted.v1", executive, match_id=match_id)
    await about("request", request, "offer.accepted.v1", partner, match_id=match_id)
    version = (await outside.hear("engagement.planned.v1", request))["plan_version"]
    say("it is matched and planned")
    await about("request", request, "plan.approved.v1", executive, plan_version=version)
    await about("request", request, "plan.cleared.v1", office, plan_version=version)
    await outside.hear("engagement.confirmed.v1", request)
    say("the engagement is confirmed, as seen from outside")
    return request


async def speak_from_outside(kafka: str, agency: Mapping[str, str]) -> str:
    """A request of the agency, from its submission to its confirmed engagement; returns its id."""
    producer: Any = AIOKafkaProducer(bootstrap_servers=kafka, enable_idempotence=True)
    consumer: Any = AIOKafkaConsumer(
        *(topic.name for topic in (RECEIPTS, REQUESTS, MATCHES, ENGAGEMENTS)),
        bootstrap_servers=kafka,
        auto_offset_reset="earliest",
    )
    async with AsyncExitStack() as closing:
        await producer.start()
        closing.push_async_callback(producer.stop)
        await consumer.start()
        closing.push_async_callback(consumer.stop)
        return await ask_for_assistance(Outside(producer, consumer), agency)


# What is tested


def test(stack: Stack) -> None:
    """The whole stack, from building the image to stopping the services. Raises Failed."""
    stack.compose("build", "intake", seconds=_BUILD_SECONDS)
    say("the image is built")
    stack.compose("up", "--detach", *stack.engine.containers, seconds=_BUILD_SECONDS)
    for service in SERVICES:
        await_ready(service, f"http://{stack.address(service)}/readyz")
    await_that("every health check holds", lambda: not stack.unhealthy(), lambda: f"unhealthy: {stack.unhealthy()}")
    say("every container is healthy")

    import_agencies(stack)
    with _AGENCIES.open(encoding="utf-8", newline="") as file:
        agency = next(row for row in csv.DictReader(file) if row["agency_type"] == "municipal" and row["lat"])
    request = asyncio.run(speak_from_outside(stack.address("kafka"), agency))
    story = f"http://{stack.address('reporting')}/api/requests/{request}"
    await_that("reporting tells of it", lambda: "engagement.confirmed.v1" in fetch(story), lambda: fetch(story))
    say("reporting tells the whole story")

    check_prometheus(stack)
    stack.compose("stop", *SERVICES)
    ended = {service: stack.exit_code(service) for service in SERVICES}
    if set(ended.values()) != {"0"}:
        raise Failed(f"asked to stop, the services ended with {ended}")
    say("the services stop cleanly when asked")


def import_agencies(stack: Stack) -> None:
    """Fills the registry with the sample agencies, from this machine, as an operator would."""
    database = f"postgresql://fieldbridge_intake:{stack.password}@{stack.address('postgres')}/fieldbridge_intake"
    stack.run(
        [sys.executable, "-m", "services.console", "agencies", "import", str(_AGENCIES)],
        _WAIT_SECONDS,
        environment=os.environ | {"FIELDBRIDGE_KAFKA": stack.address("kafka"), "FIELDBRIDGE_INTAKE_DATABASE": database},
    )
    say("the sample agencies are imported")


def check_prometheus(stack: Stack) -> None:
    """Prometheus reads all four services, evaluates every alert, and finds nothing to say against our metrics."""
    api = f"http://{stack.address('prometheus')}/api/v1"

    def data(path: str) -> Any:
        try:
            return json.loads(fetch(f"{api}/{path}"))["data"]
        except (ValueError, KeyError):
            return {}

    def up() -> set[str]:
        targets = data("targets?state=active").get("activeTargets", [])
        return {target["labels"]["service"] for target in targets if target["health"] == "up"}

    def rules() -> list[str]:
        return [rule["health"] for group in data("rules").get("groups", []) for rule in group["rules"]]

    await_that("Prometheus reads all four services", lambda: up() == set(SERVICES), lambda: f"it reads {up()}")
    await_that("Prometheus evaluates every alert", lambda: set(rules()) == {"ok"}, lambda: f"they are {rules()}")
    stack.inside("prometheus", "promtool", "check", "config", "/etc/prometheus/prometheus.yml")
    metrics = {service: fetch(f"http://{stack.address(service)}/metrics") for service in SERVICES}
    for text in metrics.values():
        stack.inside("prometheus", "promtool", "check", "metrics", text=text)

    queries = [
        target["expr"] for panel in json.loads(_DASHBOARD.read_bytes())["panels"] for target in panel.get("targets", ())
    ]
    refused = [query for query in queries if "result" not in data(f"query?query={quote(query)}")]
    if refused:
        raise Failed(f"Prometheus cannot answer these queries of the dashboard: {refused}")
    asked = set(re.findall(r"fieldbridge_\w+", " ".join([*queries, _ALERTS.read_text(encoding="utf-8")])))
    exposed = set(re.findall(r"^# TYPE (\w+)", "\n".join(metrics.values()), flags=re.MULTILINE))
    unknown = {name for name in asked if name.removesuffix("_bucket") not in exposed}
    if unknown:
        raise Failed(f"alerts or dashboard ask for metrics that no service exposes: {sorted(unknown)}")
    say(f"Prometheus evaluates {len(rules())} alerts and answers {len(queries)} queries of the dashboard")


def take_down(stack: Stack) -> bool:
    """Removes everything that was started; says so and returns False where that fails."""
    try:
        stack.compose("down", "--volumes")
    except (Failed, OSError) as reason:
        say(f"FAILED to take everything down: {reason}")
        return False
    say("everything is taken down")
    return True


def main() -> int:
    """Runs the test; the exit status says whether it passed."""
    engine = find_engine()
    if engine is None:
        say("SKIPPED: there is neither a Docker engine with Compose nor podman with podman-compose here")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    stack = Stack.prepare(engine)
    say(f"with {engine.program}, project {stack.project}, containers {', '.join(engine.containers)}")
    passed = False
    try:
        test(stack)
        passed = True
    except (Failed, KafkaError, OSError) as reason:
        stack.print_logs()
        say(f"FAILED: {reason or type(reason).__name__}")
    except KeyboardInterrupt:
        say("INTERRUPTED")
    finally:
        taken_down = take_down(stack)
    say(f"{'PASSED' if passed and taken_down else 'NOT PASSED'}, after {time.monotonic() - began:.0f} s")
    return 0 if passed and taken_down else 1


if __name__ == "__main__":
    sys.exit(main())
