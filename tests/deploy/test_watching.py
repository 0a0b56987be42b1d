"""What Prometheus and Grafana ask for is there to be asked for."""

import json
import re
from pathlib import Path

import pytest
import yaml

from schemas.topics import SERVICES
from services.intake.app import service as intake
from services.matching.app import service as matching
from services.reporting.app import service as reporting
from services.runtime.metrics import Metrics
from services.runtime.settings import Settings
from services.scheduling.app import service as scheduling

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "fieldbridge.json"


def exposed() -> set[str]:
    """Names of all samples, as a scrape has them."""
    services = [intake(), matching(), scheduling(), reporting()]
    assert {one.name for one in services} == set(SERVICES)
    names = {gauge.name for one in services for gauge in one.gauges}
    for family in Metrics("intake").registry.collect():
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        names |= {family.name + ending for ending in endings}
    return names


def rules() -> dict[str, str]:
    """The question of each alert."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def panels() -> list[str]:
    """The questions of the dashboard."""
    return [
        target["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel.get("targets", ())
    ]


@pytest.mark.parametrize("queries", [list(rules().values()), panels()], ids=["alerts", "dashboard"])
def test_every_metric_that_is_asked_for_is_exposed(queries: list[str]) -> None:
    asked = set(re.findall(r"\bfieldbridge_\w+", " ".join(queries)))
    assert asked
    assert asked - exposed() == set()


def test_connections_are_exhausted_at_the_limit_that_services_have_by_default() -> None:
    limit = Settings.model_fields["pool_connections"].default
    assert rules()["ConnectionsExhausted"] == f'fieldbridge_pool_connections{{state="used"}} >= {limit}'
