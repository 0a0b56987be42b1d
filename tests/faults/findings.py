"""What is wrong after a fault, sorted into what was lost, what was doubled, and what came out of order."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What a finding means."""

    LOST = "lost"
    DOUBLED = "doubled"
    DISORDERED = "out of order"
    OTHER = "other"


@dataclass(frozen=True)
class Finding:
    """One thing that must not be."""

    kind: Kind
    text: str

    @classmethod
    def of(cls, text: str) -> "Finding":
        """A sentence of the judge with its kind."""
        return cls(_kind(text), text)


def tally(findings: Iterable[Finding]) -> Counter[Kind]:
    """How many findings there are of each kind."""
    return Counter(finding.kind for finding in findings)


_TELLING: Final = (
    (re.compile(r"ha(?:s|ve) no receipt|no fact tells|has never read| stands at \d"), Kind.LOST),
    (re.compile(r"outbox of|where the broker acknowledged|come to rest"), Kind.LOST),
    (re.compile(r"has \d+ receipts|was taken \d+ times|says \d+ times|was never taken|as duplicates"), Kind.DOUBLED),
    (re.compile(r"in sequence:|not counted from 1"), Kind.DISORDERED),
)
_READ: Final = (
    re.compile(r"accounts for (\d+) records, the log holds (\d+)"),
    re.compile(r"counts (\d+) receipts .*, the log holds (\d+)$"),
    re.compile(r"has seen (\d+|None) of (\d+)"),
    re.compile(r"tells (\d+|None) .*, the log holds (\d+)"),
)
"""Sentences that hold what a reader has handled against what the log holds."""
_PUBLISHED: Final = re.compile(r"counts (\d+|None) \w+ of .*, the log (\d+|None)$")
"""The sentence that holds what a publisher has decided against what the log holds."""


def _kind(text: str) -> Kind:
    for pattern in _READ:
        if (numbers := pattern.search(text)) is not None:
            handled, held = map(_number, numbers.groups())
            return Kind.LOST if handled < held else Kind.DOUBLED
    if (numbers := _PUBLISHED.search(text)) is not None:
        decided, held = map(_number, numbers.groups())
        return Kind.LOST if held < decided else Kind.DOUBLED
    return next((kind for pattern, kind in _TELLING if pattern.search(text)), Kind.OTHER)


def _number(text: str) -> int:
    return 0 if text == "None" else int(text)
