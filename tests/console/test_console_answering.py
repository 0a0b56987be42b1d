"""What `fieldbridge answer` says for everybody who is asked about a request."""

from typing import Any

from services.console.answer import answers
from services.console.world.population import PROGRAMME_OFFICE
from tests.console.console_world import planned, proposed, session


def told(ori: str | None) -> dict[str, Any]:
    """What reporting tells of a request that was proposed a match and then planned."""
    facts = [proposed("R", "E1"), planned("R", [session("R/s1", "E1", 1)])]
    story = [{"id": f"f{nth}", "type": event_type, "body": body} for nth, (_, event_type, body) in enumerate(facts)]
    return {"request": {"ori": ori}, "story": story}


def test_agency_partner_and_programme_office_say_yes_once_to_each_fact() -> None:
    answered: set[str] = set()
    said = list(answers(told("TX0000001"), answered))
    assert [(cause, event_type, body["actor"]["role"]) for cause, event_type, body in said] == [
        ("f0", "proposal.accepted.v1", "agency_executive"),
        ("f0", "offer.accepted.v1", "partner"),
        ("f1", "plan.approved.v1", "agency_executive"),
        ("f1", "plan.cleared.v1", "programme_office"),
    ]
    assert {body["actor"]["id"] for *_, body in said} == {"TX0000001", "P1", PROGRAMME_OFFICE["id"]}
    assert list(answers(told("TX0000001"), answered)) == []


def test_nobody_answers_before_it_is_known_which_agency_asked() -> None:
    answered: set[str] = set()
    assert list(answers(told(None), answered)) == []
    assert len(list(answers(told("TX0000001"), answered))) == 4
