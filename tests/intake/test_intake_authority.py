"""Who may say what: every submission is tried by every kind of speaker, for the right agency and for another."""

from itertools import product

import pytest

from schemas import receipts, requests
from schemas import submissions as said
from schemas.body import Body
from schemas.vocabulary import AgencyType, ConflictKind, Ori
from tests.intake.intake_world import (
    FIELDS,
    ORI,
    World,
    agency,
    executive,
    kinds,
    office,
    partner,
    profile,
    say,
    submission,
)

ROLES = ("agency_executive", "point_of_contact", "partner", "expert", "programme_office")
OWN = {
    "agency_executive": ORI,
    "point_of_contact": ORI,
    "partner": "IACP",
    "expert": "X-1",
    "programme_office": "programme-office",
}
OTHER = {"agency_executive": "OH0250200", "point_of_contact": "OH0250200", "partner": "FOP", "expert": "X-2"}

THE_AGENCY = {"agency_executive", "point_of_contact"}
EXECUTIVE = {"agency_executive"}
OFFICE = {"programme_office"}
PARTNER = {"partner"}

MAY: dict[type[Body], set[str]] = {
    said.RequestSubmitted: THE_AGENCY,
    said.AmendmentSubmitted: THE_AGENCY,
    said.InformationSupplied: THE_AGENCY,
    said.WithdrawalAsked: THE_AGENCY,
    said.ReopeningAsked: THE_AGENCY,
    said.ProposalAccepted: THE_AGENCY,
    said.ProposalDeclined: THE_AGENCY,
    said.OfferAccepted: PARTNER,
    said.OfferDeclined: PARTNER,
    said.PlanApproved: EXECUTIVE,
    said.PlanChangesAsked: THE_AGENCY,
    said.PlanCleared: OFFICE,
    said.SessionReported: THE_AGENCY | PARTNER,
    said.EvaluationReturned: THE_AGENCY,
    said.RequestRuled: OFFICE,
    said.HoldAsked: OFFICE,
    said.PartnerApplied: PARTNER,
    said.ApplicationRuled: OFFICE,
    said.ExpertListed: PARTNER,
    said.ExpertChanged: PARTNER,
    said.ExpertRetired: PARTNER,
    said.AvailabilityChanged: PARTNER | {"expert"},
    said.ConflictDisclosed: EXECUTIVE | PARTNER | {"expert", "programme_office"},
    said.ConflictWaived: EXECUTIVE,
}
"""The rule as the brief of the programme states it: which role may say what for the agency or partner concerned."""


def world_at(kind: type[Body]) -> World:
    """A world in which this submission can do something, if the right speaker says it."""
    world = World(agency())
    world.hear(say(said.PartnerApplied, partner(), partner_id="IACP", name="Chiefs", acronym="IACP", capacity=5))
    world.hear(say(said.ApplicationRuled, office(), partner_id="IACP", selected=True))
    world.hear(say(said.ExpertListed, partner(), expert_id="X-1", profile=profile()))
    bargaining = {"conflict_id": "C-1", "partner_id": "IACP", "ori": ORI, "kind": "bargaining"}
    world.hear(say(said.ConflictDisclosed, partner(), **bargaining))
    if kind is said.InformationSupplied:
        world.hear(submission(executive_support=None))
    elif kind is not said.RequestSubmitted:
        world.hear(submission())
    return world


def spoken(kind: type[Body], role: str, speaks_for: str) -> Body:
    actor = {"role": role, "id": speaks_for}
    return submission(actor=actor) if kind is said.RequestSubmitted else say(kind, actor, **FIELDS.get(kind, {}))


def test_the_rule_names_every_submission() -> None:
    assert set(MAY) == set(said.BODIES.values())


@pytest.mark.parametrize(("kind", "role"), list(product(MAY, ROLES)), ids=lambda value: getattr(value, "TYPE", value))
def test_whoever_may_say_it_is_heard_and_everybody_else_is_told_who_may(kind: type[Body], role: str) -> None:
    world = world_at(kind)
    body = spoken(kind, role, OWN[role])
    if role in MAY[kind]:
        world.hear(body)
        assert world.was_taken()
    else:
        receipt = world.refusal(body)
        assert receipt.reason.startswith("only")
        assert [problem.field for problem in receipt.problems] == ["actor"]


@pytest.mark.parametrize(
    ("kind", "role"),
    [(kind, role) for kind, roles in MAY.items() for role in sorted(roles) if role in OTHER],
    ids=lambda value: getattr(value, "TYPE", value),
)
def test_nobody_speaks_for_another_agency_partner_or_expert(kind: type[Body], role: str) -> None:
    assert world_at(kind).refusal(spoken(kind, role, OTHER[role])).reason.startswith("only")


def test_a_participating_agency_cannot_withdraw_a_joint_request() -> None:
    world = World(agency(), agency(Ori("OH0250200")))
    world.hear(submission(participating=["OH0250200"]))
    assert "the requesting agency" in world.refusal(say(said.WithdrawalAsked, executive("OH0250200"))).reason


def test_a_partner_that_is_not_selected_takes_no_work() -> None:
    world = World()
    world.hear(submission())
    offer = say(said.OfferAccepted, partner("NTOA"), match_id="R-1/m1")
    world.refusal(offer)
    world.hear(say(said.PartnerApplied, partner("NTOA"), partner_id="NTOA", name="NTOA", acronym="NTOA", capacity=1))
    world.refusal(offer)
    world.hear(say(said.ApplicationRuled, office(), partner_id="NTOA", selected=True))
    assert kinds(world.hear(offer)) == ["offer.accepted.v1"]
    world.hear(say(said.ApplicationRuled, office(), partner_id="NTOA", selected=False))
    world.refusal(offer)


def test_a_partner_suspended_since_may_still_report_a_session() -> None:
    world = world_at(said.SessionReported)
    world.hear(say(said.ApplicationRuled, office(), partner_id="IACP", selected=False))
    assert kinds(world.hear(spoken(said.SessionReported, "partner", "IACP"))) == ["session.reported.v1"]


@pytest.mark.parametrize("ruling", [None, False, True])
def test_a_partner_that_was_suspended_and_applies_again_may_still_report_what_it_held(ruling: bool | None) -> None:
    world = world_at(said.SessionReported)
    world.hear(say(said.ApplicationRuled, office(), partner_id="IACP", selected=False))
    world.hear(say(said.PartnerApplied, partner(), partner_id="IACP", name="Chiefs", acronym="IACP", capacity=2))
    if ruling is not None:
        world.hear(say(said.ApplicationRuled, office(), partner_id="IACP", selected=ruling))
    assert kinds(world.hear(spoken(said.SessionReported, "partner", "IACP"))) == ["session.reported.v1"]


@pytest.mark.parametrize("ruling", [None, False])
def test_a_partner_that_was_never_selected_reports_nothing(ruling: bool | None) -> None:
    world = world_at(said.SessionReported)
    world.hear(say(said.PartnerApplied, partner("NTOA"), partner_id="NTOA", name="NTOA", acronym="NTOA", capacity=1))
    if ruling is not None:
        world.hear(say(said.ApplicationRuled, office(), partner_id="NTOA", selected=ruling))
    world.refusal(spoken(said.SessionReported, "partner", "NTOA"))


@pytest.mark.parametrize(("role", "named"), [("partner", "IACP"), ("agency_executive", None)])
def test_a_report_says_which_partner_reports_so_that_scheduling_can_tell_whether_it_may(
    role: str, named: str | None
) -> None:
    (fact,) = world_at(said.SessionReported).hear(spoken(said.SessionReported, role, OWN[role]))
    assert isinstance(fact, requests.SessionReported)
    assert fact.partner_id == named


@pytest.mark.parametrize("kind", [kind for kind in ConflictKind if kind is not ConflictKind.BARGAINING])
def test_only_bargaining_can_be_waived(kind: ConflictKind) -> None:
    world = World(agency(agency_type=AgencyType.CAMPUS))
    world.hear(say(said.ConflictDisclosed, office(), conflict_id="C-1", partner_id="FOP", ori=ORI, kind=kind))
    receipt = world.refusal(say(said.ConflictWaived, executive(), conflict_id="C-1"))
    assert "bargaining" in receipt.reason


def test_a_partner_that_is_not_the_experts_own_cannot_disclose_for_it() -> None:
    world = world_at(said.ConflictDisclosed)
    world.refusal(spoken(said.ConflictDisclosed, "partner", "FOP"))
    unknown = say(said.ConflictDisclosed, partner("FOP"), conflict_id="C-8", expert_id="X-77", ori=ORI, kind="family")
    assert kinds(world.hear(unknown)) == ["conflict.declared.v1"]


def test_a_refusal_changes_nothing_and_is_the_only_answer() -> None:
    world = world_at(said.PlanApproved)
    before = len(world.receipts)
    world.refusal(spoken(said.PlanApproved, "point_of_contact", ORI))
    assert [type(receipt) for receipt in world.receipts[before:]] == [receipts.SubmissionRefused]
