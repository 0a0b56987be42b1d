"""What is personal stays where it belongs: in no log, no number, no table of reporting and on no page."""

import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from schemas import submissions as said
from schemas.body import Contact, LetterOfSupport, Sensitive
from schemas.envelope import Envelope
from schemas.receipts import SubmissionRefused
from schemas.requests import RequestAccepted
from schemas.topics import SERVICES
from schemas.vocabulary import ConflictId, ConflictKind
from services.console.sql import Asked, ask
from services.console.stack import fetch
from tests.journeys.island import days_from_now, settle
from tests.journeys.outside import SOURCE, Outside

EMAIL = "tessa.quill@springfield-police.example"
NAME = "Tessa Quill"
TELEPHONE = "+1 555 0100 4471"
NARRATIVE = "Two officers of the night shift refuse to ride together since the marsh road case."
DETAIL = "She was married to the sergeant until the spring."
SECRETS = (EMAIL, NAME, TELEPHONE, NARRATIVE, DETAIL)

PAGES = ("/", "/api/counts", "/requests/{id}", "/requests?id={id}", "/api/requests/{id}")


async def test_personal_data_and_the_narrative_are_in_no_log_metric_table_or_page(outside: Outside, logs: Path) -> None:
    island = await settle(outside)
    contact = Contact(office="Chief of Police", name=NAME, email=EMAIL, telephone=TELEPHONE)
    sensitive = Sensitive(executive=contact, point_of_contact=contact, problem=NARRATIVE, goals=NARRATIVE)
    case = await island.ask(sensitive=sensitive, executive_support=None)
    letter = LetterOfSupport(signed_on=days_from_now(-1), reference="L-9")
    await case.do(said.InformationSupplied, executive_support=letter, sensitive=sensitive)
    accepted = await outside.hear(RequestAccepted, case.request_id)
    assert accepted.sensitive == sensitive, "the services that need it do have it"
    plan = await case.planned()
    await case.do(said.AmendmentSubmitted, changes=said.Changes(), sensitive=sensitive)
    about = {"conflict_id": ConflictId(f"C-{island.ori}"), "partner_id": island.partner_id, "ori": island.ori}
    await island.do(said.ConflictDisclosed, **about, actor=island.partner, kind=ConflictKind.BARGAINING, detail=DETAIL)
    await outside.rest()

    for service in SERVICES:
        assert found_in((logs / f"{service}.log").read_text()) == [], f"log of {service}"
        assert found_in(fetch(outside.stack.process(service), "/metrics")[1]) == [], f"metrics of {service}"
    for page in PAGES:
        path = page.format(id=case.request_id)
        status, text = fetch(outside.stack.process("reporting"), path)
        assert status == 200, path
        assert found_in(text) == [], path
    tables = await ask(outside.stack, "reporting", whole_tables)
    assert any(case.request_id in text for text in tables.values())
    assert {name: found for name, text in tables.items() if (found := found_in(text))} == {}
    assert plan.sessions


async def test_what_is_refused_or_cannot_be_read_is_repeated_nowhere(outside: Outside, logs: Path) -> None:
    island = await settle(outside, experts=0)
    whole = island.request()
    faulty = whole.model_dump(mode="json") | {"ori": EMAIL, "sensitive": {"executive": NARRATIVE}, "terms": DETAIL}
    envelope = Envelope(str(uuid4()), SOURCE, whole.TYPE, whole.request_id, datetime.now(UTC))
    await outside.send([], whole.request_id, f"{EMAIL} {NARRATIVE}".encode())
    await outside.send(envelope.headers(), whole.request_id, json.dumps(faulty).encode())
    receipt = await outside.receipt(envelope.id)
    assert isinstance(receipt, SubmissionRefused)
    assert found_in(receipt.model_dump_json()) == []
    await outside.rest()
    for service in SERVICES:
        assert found_in((logs / f"{service}.log").read_text()) == [], f"log of {service}"
        assert found_in(fetch(outside.stack.process(service), "/metrics")[1]) == [], f"metrics of {service}"


def found_in(text: str) -> list[str]:
    """Secrets that stand in the text, or the bytes of which stand in it in hexadecimal digits."""
    return [secret for secret in SECRETS if secret in text or secret.encode().hex() in text]


async def whole_tables(db: Asked) -> dict[str, str]:
    """Every table of a database as text."""
    tables = await db.fetch(
        "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname IN ('public', 'runtime')"
    )
    names = [table["name"] for table in tables]
    return {
        name: await db.fetchval(f"SELECT coalesce(string_agg(one::text, E'\\n'), '') FROM {name} AS one")
        for name in names
    }
