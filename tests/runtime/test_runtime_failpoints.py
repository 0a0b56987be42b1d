"""Failpoints do what their text says, where it says it, and nothing without it."""

import subprocess
import sys

import pytest

from services.runtime.failpoints import POINTS, Injected, armed
from services.runtime.settings import BadSetting, Settings


@pytest.mark.parametrize(
    "text",
    [
        "somewhere=kill@1",
        "after_commit=dance@1",
        "after_commit=kill",
        "after_commit=kill@-1",
        "after_commit=kill@0",
        ";",
    ],
)
def test_a_failpoint_that_does_not_exist_is_refused_at_the_start(text: str) -> None:
    environment = {
        "FIELDBRIDGE_KAFKA": "127.0.0.1:9092",
        "FIELDBRIDGE_INTAKE_DATABASE": "postgresql://127.0.0.1/x",
        "FIELDBRIDGE_FAILPOINTS": text,
    }
    with pytest.raises(BadSetting, match="FIELDBRIDGE_FAILPOINTS"):
        Settings.of_service("intake", environment)


def test_a_failpoint_with_a_number_acts_at_that_passage_only() -> None:
    reach = armed("after_commit=raise@3;in_round=raise@1")
    acted: list[int] = []
    for passage in range(1, 6):
        try:
            reach("after_commit")
        except Injected:
            acted.append(passage)
    assert acted == [3]


@pytest.mark.parametrize("point", POINTS)
def test_without_a_text_nothing_happens_anywhere(point: str) -> None:
    armed("")(point)


def test_a_process_can_be_killed_at_a_point() -> None:
    code = "from services.runtime.failpoints import armed; armed('after_publish=kill@1')('after_publish')"
    ended = subprocess.run([sys.executable, "-c", code], check=False, timeout=30)
    assert ended.returncode == -9
