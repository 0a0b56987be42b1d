"""Findings are sorted by what they mean, and recovery is told from what moves."""

from pathlib import Path

import pytest

from tests.faults.findings import Finding, Kind, tally
from tests.faults.outcome import Outcome
from tests.faults.report import Conditions, runs_of, write

SENTENCES = {
    "each submission has one receipt: /outside s1 has no receipt and is not parked": Kind.LOST,
    "12 submissions have no receipt after 60 s: is intake running? See `fieldbridge status`.": Kind.LOST,
    "the outbox of intake holds 3": Kind.LOST,
    "2 requests do not come to rest: R-1: proposed": Kind.LOST,
    "matching has seen 3 of 4 requests of R-1": Kind.LOST,
    "matching has seen None of 4 requests of R-1": Kind.LOST,
    "intake counts 5 requests of R-1, the log 4": Kind.LOST,
    "intake counts None requests of R-1, the log 5": Kind.DOUBLED,
    "reporting counts 2 receipts ('/outside', 'request.submitted.v1', 'taken'), the log holds 3": Kind.LOST,
    "reporting counts 4 receipts ('/outside', 'request.submitted.v1', 'taken'), the log holds 3": Kind.DOUBLED,
    "each service has handled each record once: matching in requests-1 accounts for 7 records, the log holds 6":
        Kind.DOUBLED,
    "each service has handled each record once: matching in requests-1 accounts for 5 records, the log holds 6":
        Kind.LOST,
    "each submission has one receipt: /outside s1 has 2 receipts": Kind.DOUBLED,
    "matches says 2 times of R-1: match.proposed.v1 R-1/m1": Kind.DOUBLED,
    "events of each key are in sequence: requests R-1 at 0/7: sequence 3 follows 1": Kind.DISORDERED,
    "the plans of R-1 are not counted from 1: [1, 3]": Kind.DISORDERED,
    "no match across a declared conflict: R-1/m1 of R-1: E-1 has declared a conflict (family) with X": Kind.OTHER,
}  # fmt: skip


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_finding_says_what_it_means(sentence: str) -> None:
    assert Finding.of(sentence) == Finding(SENTENCES[sentence], sentence)


def test_findings_are_counted_by_kind() -> None:
    counts = tally(Finding.of(sentence) for sentence in SENTENCES)
    assert counts.total() == len(SENTENCES)
    assert counts[Kind.OTHER] == 1


def test_parts_of_a_campaign_are_put_together_from_their_reports(tmp_path: Path) -> None:
    found = Finding(Kind.OTHER, "a sentence that would come under another kind: 2 requests do not come to rest")
    outcome = Outcome(
        "F4", "relay-killed", 7, 900, 4_500, (found,), (6.5, 1.25), "halted", "RelayStalled pending", ("killed",), 9.5,
        0.5, {"intake": 3},
    )  # fmt: skip
    part = tmp_path / "report-1.md"
    write([outcome], [], Conditions(500, 100.0, range(7, 8), 6.0, 60.0, 2), part, 9.5)
    assert runs_of(part) == [outcome]
    assert runs_of(tmp_path / "report-2.md") == []
