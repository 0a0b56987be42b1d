"""The pages tell what the log holds, keep what is confidential, and are whole and safe HTML whatever texts come in."""

import json
from collections import Counter
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser
from random import Random
from statistics import median, quantiles
from typing import Any

import pytest

from schemas.body import Agency, ExpertProfile, TopicSkill
from schemas.envelope import Envelope
from schemas.receipts import SubmissionRefused, SubmissionTaken
from schemas.requests import ClockBreached, ClockWarned
from schemas.roster import ExpertListed, ExpertRetired, PartnerSelected, PartnerSuspended, RosterBody
from schemas.vocabulary import (
    AgencyType,
    DeliveryMode,
    ExpertId,
    Ori,
    PartnerId,
    Place,
    RequestId,
    SwornBand,
    TopicCode,
)
from services.reporting.app import service
from services.runtime.database import Connection
from services.runtime.service import PageAnswer
from tests.reporting.lives import BEGIN, PARTNERS, SECRET, Happening, Life, interleaved, lives
from tests.reporting.reading import OpenDatabase, read

HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(1)> & \'"'
IN_HAND = {"proposed", "matched", "planned", "confirmed"}
VOID = {"meta", "input", "link", "br", "hr", "img"}


async def ask(db: Connection, path: str, **asked: str) -> PageAnswer:
    (page,) = [page for page in service().pages if page.path == path]
    return await page.answer(db, asked)


async def ask_json(db: Connection, path: str, **asked: str) -> dict[str, Any]:
    answer = await ask(db, path, **asked)
    assert answer.media_type == "application/json"
    return json.loads(answer.text)


class Document(HTMLParser):
    """Reads a page and fails where a tag is left open, is closed twice, or leads outside."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        self.ids.extend(value for name, value in attrs if name == "id" and value is not None)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def check(answer: PageAnswer) -> Document:
    """What holds for every page: whole, safe, of one piece, and usable without seeing it."""
    document = Document(answer.text)
    assert "script" not in document.tags
    assert "img" not in document.tags
    assert "link" not in document.tags
    assert all(name not in ("src", "style") or tag == "span" for tag, given in document.attributes for name in given)
    assert all((given.get("href") or "/").startswith("/") for _, given in document.attributes)
    assert document.tags.count("h1") == 1
    assert ("html", {"lang": "en"}) in document.attributes
    assert len(document.ids) == len(set(document.ids))
    assert all(given.get("scope") in ("col", "row") for tag, given in document.attributes if tag == "th")
    labels = {given.get("for") for tag, given in document.attributes if tag == "label"}
    assert all(given.get("id") in labels for tag, given in document.attributes if tag == "input")
    named = {given["aria-labelledby"] for _, given in document.attributes if "aria-labelledby" in given}
    assert named <= set(document.ids)
    return document


async def test_the_counts_are_those_of_the_lives_told(open_database: OpenDatabase) -> None:
    told = lives(500, seed=21)
    db = await open_database("reporting")
    await read(db, interleaved(told, Random(21)))
    said = await ask_json(db, "/api/counts")
    steps = Counter(life.step for life in told)
    assert said["requests"] == 500
    assert {step: count for step, count in said["steps"].items() if count} == steps
    assert await ask_json(db, "/api/steps") == {"requests": 500, "steps": said["steps"]}
    known = [life for life in told if any(life.agency.ori.encode() in event.data for event in life.events)]
    assert said["agencies"] == len({life.agency.ori for life in known})
    for table, counted in (
        ("states", Counter(life.agency.state for life in known)),
        ("agency_types", Counter(life.agency.agency_type.value for life in known)),
    ):
        rows, others = said[table]["rows"], said[table]["others"]
        assert rows
        assert all(counted[label] == count for label, count in rows.items())
        assert sum(rows.values()) + others == counted.total()


async def test_waits_are_measured_from_submission_to_the_first_time_a_milestone_was_reached(
    open_database: OpenDatabase,
) -> None:
    told = lives(300, seed=22)
    db = await open_database("reporting")
    await read(db, interleaved(told, Random(22)))
    said = (await ask_json(db, "/api/counts"))["seconds_from_submission"]
    for name, event_type in (
        ("proposed", "match.proposed.v1"),
        ("matched", "match.confirmed.v1"),
        ("confirmed", "engagement.confirmed.v1"),
    ):
        waits = [wait for life in told if (wait := first(life, event_type)) is not None]
        assert said[name]["requests"] == len(waits)
        assert said[name]["p50"] == pytest.approx(median(waits))
        assert said[name]["p90"] == pytest.approx(quantiles(waits, n=10, method="inclusive")[-1])


def first(life: Life, event_type: str) -> float | None:
    times = [event.envelope.time for event in life.events if event.envelope.type == event_type]
    return (min(times) - BEGIN).total_seconds() if times else None


async def test_partners_are_shown_with_their_experts_and_what_they_have_in_hand(open_database: OpenDatabase) -> None:
    told = lives(300, seed=26)
    db = await open_database("reporting")
    await read(db, interleaved(told, Random(26)))
    await read(
        db,
        [
            on_roster(1, PartnerSelected(partner_id=PARTNERS[0], name="Police Chiefs", acronym="IACP", capacity=40)),
            on_roster(1, PartnerSelected(partner_id=PARTNERS[1], name="Campus Chiefs", acronym="IACLEA", capacity=9)),
            on_roster(2, PartnerSuspended(partner_id=PARTNERS[1])),
            *(on_roster(1, ExpertListed(expert_id=ExpertId(f"x{n}"), profile=profile(PARTNERS[0]))) for n in range(3)),
            on_roster(2, ExpertRetired(expert_id=ExpertId("x1"))),
        ],
    )
    holding = Counter(life.partner for life in told if (life.before_hold or life.step) in IN_HAND)
    assert holding[PARTNERS[0]] > 0
    assert (await ask_json(db, "/api/counts"))["partners"] == [
        {"name": "Campus Chiefs", "selected": False, "experts": 0, "in_hand": holding[PARTNERS[1]], "capacity": 9},
        {"name": "Police Chiefs", "selected": True, "experts": 2, "in_hand": holding[PARTNERS[0]], "capacity": 40},
    ]
    shown = " ".join(check(await ask(db, "/")).text)
    assert "suspended" in shown
    assert f"{holding[PARTNERS[0]]} of 40" in shown


def on_roster(sequence: int, body: RosterBody) -> Happening:
    envelope = Envelope(f"{body.subject}/{sequence}", "/fieldbridge/intake", body.TYPE, body.subject, BEGIN, sequence)
    return Happening(body.TOPIC, envelope, body.model_dump_json().encode())


def profile(partner: PartnerId) -> ExpertProfile:
    return ExpertProfile(
        partner_id=partner,
        skills=(TopicSkill(topic=TopicCode("training")),),
        delivery_modes=(DeliveryMode.VIRTUAL_COACHING,),
        agency_types=(AgencyType.MUNICIPAL,),
        home=Place(33.0, -84.0),
        time_zone="America/New_York",
    )


async def test_submissions_are_shown_by_type_without_who_sent_them(open_database: OpenDatabase) -> None:
    db = await open_database("reporting")
    for number in range(6):
        taken = SubmissionTaken(
            submission_source=f"/portal/TX000000{number}",
            submission_id=str(number),
            submission_type="withdrawal.asked.v1",
        )
        body = taken if number < 4 else SubmissionRefused(**taken.model_dump(), reason="No such request.")
        envelope = Envelope(str(number), "/fieldbridge/intake", body.TYPE, body.subject, BEGIN)
        await read(db, [Happening(body.TOPIC, envelope, body.model_dump_json().encode())])
    assert (await ask_json(db, "/api/counts"))["submissions"] == {"withdrawal.asked.v1": {"taken": 4, "refused": 2}}
    page = await ask(db, "/")
    assert "Withdrawal asked" in " ".join(check(page).text)
    assert "portal" not in page.text


async def test_service_levels_count_the_requests_whose_clock_warned_or_ran_out(open_database: OpenDatabase) -> None:
    db = await open_database("reporting")
    for number in range(7):
        life = Life(RequestId(f"R-{number}"), Random(number))
        life.accept()
        life.tell("accepted", ClockWarned(request_id=life.request_id, clock="reply", due=BEGIN))
        if number < 2:
            life.tell("accepted", ClockBreached(request_id=life.request_id, clock="reply", due=BEGIN))
        await read(db, life.events)
    assert (await ask_json(db, "/api/counts"))["clocks"] == {"reply": {"warned": 7, "missed": 2}}
    assert "Reply" in " ".join(check(await ask(db, "/")).text)


async def test_the_programme_page_names_no_agency_and_no_request(open_database: OpenDatabase) -> None:
    told = lives(300, seed=23)
    db = await open_database("reporting")
    await read(db, interleaved(told, Random(23)))
    for answer in (await ask(db, "/"), await ask(db, "/api/counts")):
        assert SECRET not in answer.text
        assert not any(life.agency.ori in answer.text or life.request_id in answer.text for life in told)
    shown = " ".join(check(await ask(db, "/")).text)
    assert "Where requests stand" in shown
    assert "300" in shown


async def test_a_few_requests_tell_neither_state_nor_type_nor_topic_nor_how_long_they_waited(
    open_database: OpenDatabase,
) -> None:
    db = await open_database("reporting")
    for number in range(4):
        life = Life(RequestId(f"R-{number}"), Random(number))
        life.agency = life.agency.model_copy(update={"state": "WY", "agency_type": AgencyType.TRIBAL})
        life.accept()
        await read(db, life.events)
    said = await ask_json(db, "/api/counts")
    assert said["states"] == said["agency_types"] == {"rows": {}, "others": None}
    assert said["topics"]["rows"] == {}
    assert said["small_agency_share"] is None
    assert said["seconds_from_submission"]["answered"] == {"requests": 4, "p50": None, "p90": None}
    shown = " ".join(check(await ask(db, "/")).text)
    assert "Too few to show." in shown
    assert "WY" not in shown
    assert "Tribal" not in shown


async def test_the_story_of_a_request_is_told_in_full_on_the_page_and_as_json(open_database: OpenDatabase) -> None:
    life = max(lives(200, seed=24, most_actions=40), key=lambda life: len(life.events))
    db = await open_database("reporting")
    await read(db, interleaved([life], Random(24)))
    said = await ask_json(db, "/api/requests/{id}", id=life.request_id)
    assert said["request"]["step"] == life.step
    assert [line["id"] for line in said["story"]] == [event.envelope.id for event in life.events]
    assert [datetime.fromisoformat(line["time"]) for line in said["story"]] == [
        event.envelope.time for event in life.events
    ]
    page = await ask(db, "/requests/{id}", id=life.request_id)
    document = check(page)
    assert document.tags.count("h3") == len(life.events)
    assert SECRET not in page.text
    assert (await ask(db, "/requests", id=life.request_id)).text == page.text


async def test_an_evaluation_shows_as_restricted(open_database: OpenDatabase) -> None:
    life = Life(RequestId("R-1"), Random(0))
    for action in (
        life.accept,
        life.propose,
        life.confirm_match,
        life.plan,
        life.confirm_plan,
        life.deliver,
        life.close,
    ):
        action()
    db = await open_database("reporting")
    await read(db, life.events)
    page = await ask(db, "/requests/{id}", id="R-1")
    assert page.text.count("The content is restricted.") == 1
    assert "satisfaction" not in page.text
    assert "satisfaction" not in (await ask(db, "/api/requests/{id}", id="R-1")).text


async def test_hostile_texts_are_shown_as_texts(open_database: OpenDatabase) -> None:
    life = Life(RequestId("R-1"), Random(0))
    life.agency = Agency(
        ori=Ori("TX0000001"),
        name=HOSTILE,
        agency_type=AgencyType.MUNICIPAL,
        state="TX",
        time_zone=HOSTILE,
        sworn_band=SwornBand.UNKNOWN,
    )
    life.ask_information()
    (asked,) = life.events
    data = json.loads(asked.data) | {"topics": [HOSTILE], "reason": HOSTILE}
    db = await open_database("reporting")
    await read(db, [replace(asked, data=json.dumps(data).encode())])
    shown = "".join(check(await ask(db, "/requests/{id}", id="R-1")).text)
    assert shown.count("<script>") >= 3
    for number in range(5):
        other = replace(
            asked,
            envelope=asked.envelope._replace(id=f"{number}", subject=f"R-x{number}"),
            data=json.dumps(data | {"request_id": f"R-x{number}"}).encode(),
        )
        await read(db, [other])
    assert "<script>" in "".join(check(await ask(db, "/")).text)


@pytest.mark.parametrize("unknown", ["R-404", "", HOSTILE, "R-\x00", "R/" + "x" * 5000, "R-\udc80"])
async def test_a_request_that_is_not_known_is_answered_in_plain_words(
    open_database: OpenDatabase, unknown: str
) -> None:
    db = await open_database("reporting")
    page = await ask(db, "/requests/{id}", id=unknown)
    assert page.status == 404
    assert "is known here" in " ".join(check(page).text)
    answer = await ask(db, "/api/requests/{id}", id=unknown)
    assert answer.status == 404
    assert "is known here" in json.loads(answer.text)["error"]
    assert (await ask(db, "/requests")).status == 404


async def test_pages_of_an_empty_database_are_whole(open_database: OpenDatabase) -> None:
    db = await open_database("reporting")
    assert "Nothing yet." in " ".join(check(await ask(db, "/")).text)
    said = await ask_json(db, "/api/counts")
    assert said["requests"] == 0
    assert set(said["steps"].values()) == {0}


async def test_the_gauge_is_the_funnel_with_every_step(open_database: OpenDatabase) -> None:
    told = lives(100, seed=25)
    db = await open_database("reporting")
    await read(db, interleaved(told, Random(25)))
    (gauge,) = service().gauges
    assert gauge.name == "fieldbridge_requests"
    funnel = await gauge.read(db)
    assert {labels[0]: count for labels, count in funnel.items() if count} == Counter(life.step for life in told)
    assert {labels[0] for labels in funnel} == set((await ask_json(db, "/api/counts"))["steps"])
