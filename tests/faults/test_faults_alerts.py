"""The alert rules, evaluated by promtool on metrics that were scraped."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.faults.alerts import SCRAPED_EVERY_SECONDS, Raised, Scrapes, names_in_rules, raised

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool here")


def scraped(pages: Sequence[Mapping[str, str | None]]) -> Scrapes:
    scrapes = Scrapes(names_in_rules())
    for page in pages:
        scrapes.take(dict(page))
    return scrapes


def scrapes_in(seconds: float) -> int:
    return round(seconds / SCRAPED_EVERY_SECONDS)


READY = "# TYPE fieldbridge_ready gauge\nfieldbridge_ready 1\n"
HALTED = '# TYPE fieldbridge_halted gauge\nfieldbridge_halted{reason="position_past_log_end"} 1\n'


def test_a_service_that_does_not_answer_raises_its_alert_once_that_has_lasted(tmp_path: Path) -> None:
    well = [{"intake": READY, "matching": READY}] * 6
    silent: list[Mapping[str, str | None]] = [{"intake": None, "matching": READY}]
    assert raised("ServiceDown", scraped(well), tmp_path) is Raised.QUIET
    assert raised("ServiceDown", scraped([*well, *silent * scrapes_in(30)]), tmp_path) is Raised.PENDING
    assert raised("ServiceDown", scraped([*well, *silent * scrapes_in(90), *well]), tmp_path) is Raised.FIRING


def test_a_named_hard_stop_raises_its_alert_at_once(tmp_path: Path) -> None:
    assert raised("ServiceHalted", scraped([{"intake": READY}, {"intake": HALTED}]), tmp_path) is Raised.FIRING


def test_a_rule_that_is_not_there_is_never_raised(tmp_path: Path) -> None:
    assert raised("NoSuchRule", scraped([{"intake": READY}] * 3), tmp_path) is Raised.QUIET
