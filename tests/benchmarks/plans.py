"""The plans of statements as PostgreSQL has logged them: which of them read a whole large table."""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

EXPLAINING: Final = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_format": "json",
    "auto_explain.log_level": "log",
}
"""Settings of a database that have the plan of every statement logged, for sessions that begin afterwards."""

_ENTRY: Final = re.compile(r"^\d{4}-\d\d-\d\d .*?@(?P<database>\S+) LOG: .*plan:$")
_BEGINS: Final = re.compile(r"^\d{4}-\d\d-\d\d ")
_WHOLE: Final = "Seq Scan"
_LONGEST: Final = 70


@dataclass(frozen=True, slots=True)
class Scan:
    """Statements of one text that read one table as a whole; with `table` None, all statements that were looked at."""

    service: str
    table: str | None
    statement: str
    plans: int


def read_scans(log: Path, services: Mapping[str, str], large: Collection[tuple[str, str]]) -> list[Scan]:
    """What the log holds of these databases. `large` are service and name of the tables that count."""
    looked_at: Counter[str] = Counter()
    whole: Counter[tuple[str, str, str]] = Counter()
    for database, plan in _plans(log):
        service = services.get(database)
        if service is None:
            continue
        looked_at[service] += 1
        for table in _read_whole(plan["Plan"]):
            if (service, table) in large:
                whole[service, table, " ".join(plan["Query Text"].split())[:_LONGEST]] += 1
    found = [Scan(service, table, text, count) for (service, table, text), count in whole.most_common()]
    return found + [Scan(service, None, "", count) for service, count in looked_at.items()]


def _plans(log: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    database: str | None = None
    lines: list[str] = []
    with log.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if _BEGINS.match(line):
                if database is not None:
                    yield database, json.loads("".join(lines), strict=False)
                entry = _ENTRY.match(line.rstrip())
                database, lines = (entry["database"], []) if entry else (None, [])
            elif database is not None:
                lines.append(line)
    if database is not None:
        yield database, json.loads("".join(lines), strict=False)


def _read_whole(node: Mapping[str, Any]) -> Iterator[str]:
    if node["Node Type"].endswith(_WHOLE):
        yield node["Relation Name"]
    for part in node.get("Plans", ()):
        yield from _read_whole(part)
