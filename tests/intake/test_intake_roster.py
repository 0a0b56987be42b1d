"""Partners, experts and conflicts: what is published, and that a listing may come before its partner's selection."""

from itertools import permutations

import pytest

from schemas import roster
from schemas import submissions as said
from schemas.body import Body
from schemas.vocabulary import ExpertId, PartnerId
from services.intake.decisions.roster import ExpertStep, PartnerStep
from tests.intake.intake_world import ORI, World, executive, expert, kinds, office, partner, profile, say

APPLIED = say(said.PartnerApplied, partner(), partner_id="IACP", name="Chiefs", acronym="IACP", capacity=5)
SELECTED = say(said.ApplicationRuled, office(), partner_id="IACP", selected=True)
NOT_SELECTED = say(said.ApplicationRuled, office(), partner_id="IACP", selected=False, reason="no capacity")
LISTED = say(said.ExpertListed, partner(), expert_id="X-1", profile=profile())
LISTED_TOO = say(said.ExpertListed, partner(), expert_id="X-2", profile=profile(load_limit=2))
CHANGED = say(said.ExpertChanged, partner(), expert_id="X-1", profile=profile(load_limit=9))
RETIRED = say(said.ExpertRetired, partner(), expert_id="X-1")
AWAY = [{"first": "2026-05-01", "last": "2026-05-09"}]
AVAILABILITY = say(said.AvailabilityChanged, expert(), expert_id="X-1", unavailable=AWAY)
DISCLOSED = say(
    said.ConflictDisclosed, expert(), conflict_id="C-1", expert_id="X-1", ori=ORI, kind="family", detail="a cousin"
)
BARGAINING = say(said.ConflictDisclosed, partner(), conflict_id="C-2", partner_id="IACP", ori=ORI, kind="bargaining")
WAIVED = say(said.ConflictWaived, executive(), conflict_id="C-2")


def heard(*bodies: Body) -> World:
    world = World()
    for body in bodies:
        world.hear(body)
    return world


def test_a_selected_partner_is_awarded_what_it_applied_for_unless_the_ruling_says_otherwise() -> None:
    fact = heard(APPLIED, SELECTED).said[0]
    assert isinstance(fact, roster.PartnerSelected)
    assert (fact.name, fact.acronym, fact.capacity, fact.period) == ("Chiefs", "IACP", 5, None)
    period = {"first": "2026-01-01", "last": "2026-12-31"}
    awarded = say(said.ApplicationRuled, office(), partner_id="IACP", selected=True, capacity=2, period=period)
    fact = heard(APPLIED, awarded).said[0]
    assert isinstance(fact, roster.PartnerSelected)
    assert (fact.capacity, fact.period is not None) == (2, True)


def test_a_ruling_said_twice_is_published_once() -> None:
    assert kinds(heard(APPLIED, SELECTED, SELECTED).said) == ["partner.selected.v1"]
    suspended = heard(APPLIED, SELECTED, NOT_SELECTED, NOT_SELECTED)
    assert kinds(suspended.said) == ["partner.selected.v1", "partner.suspended.v1"]
    assert all(receipt.TYPE == "submission.taken.v1" for receipt in suspended.receipts)


def test_a_partner_that_is_not_selected_is_not_published() -> None:
    world = heard(APPLIED, NOT_SELECTED)
    assert world.said == []
    assert world.known.partners[PartnerId("IACP")].step is PartnerStep.NOT_SELECTED


def test_a_suspended_partner_can_be_selected_again() -> None:
    expected = ["partner.selected.v1", "partner.suspended.v1", "partner.selected.v1"]
    assert kinds(heard(APPLIED, SELECTED, NOT_SELECTED, SELECTED).said) == expected
    assert kinds(heard(APPLIED, SELECTED, NOT_SELECTED, APPLIED, SELECTED).said) == expected


@pytest.mark.parametrize("ruling", [SELECTED, NOT_SELECTED])
def test_a_ruling_on_a_partner_that_never_applied_is_refused(ruling: Body) -> None:
    World().refusal(ruling)
    heard(LISTED).refusal(ruling)


PARTNERS = [APPLIED, SELECTED]
EXPERTS: list[list[Body]] = [
    [LISTED],
    [LISTED, CHANGED],
    [LISTED, AVAILABILITY, CHANGED],
    [LISTED, CHANGED, AVAILABILITY],
    [LISTED, RETIRED],
    [LISTED, RETIRED, LISTED],
    [LISTED, LISTED],
]


def interleavings(one: list[Body], other: list[Body]) -> set[tuple[int, ...]]:
    """Every way in which two streams can be merged: which stream speaks at each turn."""
    return set(permutations([0] * len(one) + [1] * len(other)))


@pytest.mark.parametrize("spoken", EXPERTS, ids=lambda bodies: "-".join(body.TYPE.split(".")[1] for body in bodies))
def test_an_expert_stands_on_the_roster_the_same_however_its_news_and_its_partners_are_merged(
    spoken: list[Body],
) -> None:
    ends: set[str] = set()
    for turns in interleavings(PARTNERS, spoken):
        streams = iter(PARTNERS), iter(spoken)
        world = heard(*(next(streams[turn]) for turn in turns))
        assert all(receipt.TYPE == "submission.taken.v1" for receipt in world.receipts)
        ends.add(repr((world.known.experts[ExpertId("X-1")], on_roster(world))))
    assert len(ends) == 1


def on_roster(world: World) -> dict[str, object]:
    """The experts a reader of the roster ends up with: their profile with their days off."""
    standing: dict[str, object] = {}
    for fact in world.said:
        match fact:
            case roster.ExpertListed() | roster.ExpertChanged():
                standing[fact.expert_id] = fact.profile
            case roster.ExpertRetired():
                del standing[fact.expert_id]
            case roster.AvailabilityChanged():
                known = standing[fact.expert_id]
                assert isinstance(known, roster.ExpertProfile)
                standing[fact.expert_id] = known.model_copy(update={"unavailable": fact.unavailable})
            case _:
                pass
    return standing


def test_a_partners_selection_publishes_every_listing_that_waited_for_it_and_each_once() -> None:
    world = heard(LISTED, APPLIED, LISTED_TOO)
    assert world.said == []
    assert kinds(world.hear(SELECTED)) == ["partner.selected.v1", "expert.listed.v1", "expert.listed.v1"]
    assert kinds(world.hear(NOT_SELECTED)) + kinds(world.hear(SELECTED)) == [
        "partner.suspended.v1",
        "partner.selected.v1",
    ]


def test_a_listing_waits_through_an_application_that_was_not_selected() -> None:
    world = heard(LISTED, APPLIED, NOT_SELECTED, APPLIED)
    assert kinds(world.hear(SELECTED)) == ["partner.selected.v1", "expert.listed.v1"]


@pytest.mark.parametrize("before", [[APPLIED, NOT_SELECTED], [APPLIED, SELECTED, NOT_SELECTED]])
def test_a_partner_that_was_ruled_out_lists_nobody(before: list[Body]) -> None:
    heard(*before).refusal(LISTED)


def test_a_suspended_partner_changes_nothing_but_can_retire_its_experts() -> None:
    world = heard(APPLIED, SELECTED, LISTED, NOT_SELECTED)
    world.refusal(CHANGED)
    assert kinds(world.hear(AVAILABILITY)) == ["availability.changed.v1"]
    assert kinds(world.hear(RETIRED)) == ["expert.retired.v1"]


def test_the_same_said_twice_of_an_expert_is_harmless() -> None:
    twice = [body for body in (APPLIED, SELECTED, LISTED, CHANGED, AVAILABILITY, RETIRED) for _ in range(2)]
    world = World()
    for body in twice:
        world.hear(body)
        assert world.was_taken()
    once = heard(APPLIED, SELECTED, LISTED, CHANGED, AVAILABILITY, RETIRED)
    assert world.said == once.said


def test_an_expert_of_one_partner_is_not_listed_by_another() -> None:
    world = heard(APPLIED, SELECTED, LISTED)
    world.refusal(say(said.ExpertListed, partner("FOP"), expert_id="X-1", profile=profile("FOP")))
    receipt = world.refusal(say(said.ExpertChanged, partner(), expert_id="X-1", profile=profile("FOP")))
    assert [problem.field for problem in receipt.problems] == ["profile.partner_id"]
    world.hear(RETIRED)
    world.hear(say(said.ExpertListed, partner("FOP"), expert_id="X-1", profile=profile("FOP")))
    assert world.known.experts[ExpertId("X-1")].step is ExpertStep.WAITING


def test_a_listed_expert_is_changed_and_not_listed_anew() -> None:
    world = heard(APPLIED, SELECTED, LISTED)
    world.refusal(say(said.ExpertListed, partner(), expert_id="X-1", profile=profile(load_limit=3)))


def test_days_off_that_a_changed_profile_does_not_name_stay_as_they_are() -> None:
    def days_off(*bodies: Body) -> list[str]:
        changed = heard(APPLIED, SELECTED, *bodies).said[-1]
        assert isinstance(changed, roster.ExpertChanged)
        return [days.first.isoformat() for days in changed.profile.unavailable]

    none = say(said.ExpertChanged, partner(), expert_id="X-1", profile=profile(load_limit=9, unavailable=[]))
    assert days_off(LISTED, AVAILABILITY, CHANGED) == ["2026-05-01"]
    assert days_off(LISTED, AVAILABILITY, none) == []


@pytest.mark.parametrize("body", [CHANGED, RETIRED, AVAILABILITY, WAIVED])
def test_nothing_can_be_said_of_whom_nobody_knows(body: Body) -> None:
    heard(APPLIED, SELECTED).refusal(body)


@pytest.mark.parametrize("body", [CHANGED, AVAILABILITY])
def test_an_expert_who_has_retired_is_not_changed(body: Body) -> None:
    heard(APPLIED, SELECTED, LISTED, RETIRED).refusal(body)


@pytest.mark.parametrize("zone", ["America/Sprinfield", "Central", "../etc/passwd", "America"])
def test_a_time_zone_nobody_knows_is_refused_when_an_expert_is_listed_and_when_it_is_changed(zone: str) -> None:
    unclear = profile(time_zone=zone)
    for world, kind in ((heard(APPLIED, SELECTED), said.ExpertListed), (heard(LISTED), said.ExpertChanged)):
        receipt = world.refusal(say(kind, partner(), expert_id="X-1", profile=unclear))
        assert [problem.field for problem in receipt.problems] == ["profile.time_zone"]


# Conflicts of interest


def test_a_conflict_with_an_agency_that_is_not_in_the_registry_is_refused_since_it_would_protect_nobody() -> None:
    misspelt = say(said.ConflictDisclosed, expert(), conflict_id="C-1", expert_id="X-1", ori="OH025010O", kind="family")
    receipt = World().refusal(misspelt)
    assert [problem.field for problem in receipt.problems] == ["ori"]
    assert kinds(heard(DISCLOSED).said) == ["conflict.declared.v1"]


def test_a_conflict_is_published_although_neither_expert_nor_partner_is_known_and_without_its_detail() -> None:
    (fact,) = heard(DISCLOSED).said
    assert isinstance(fact, roster.ConflictDeclared)
    assert (fact.expert_id, fact.ori, fact.kind) == ("X-1", ORI, "family")
    assert "cousin" not in fact.model_dump_json()


def test_a_conflict_said_twice_is_published_once_and_its_id_is_taken() -> None:
    world = heard(DISCLOSED, DISCLOSED)
    assert kinds(world.said) == ["conflict.declared.v1"]
    other = say(said.ConflictDisclosed, expert(), conflict_id="C-1", expert_id="X-1", ori="OH0250200", kind="family")
    receipt = world.refusal(other)
    assert [problem.field for problem in receipt.problems] == ["conflict_id"]


@pytest.mark.parametrize("sides", [{}, {"expert_id": "X-1", "partner_id": "IACP"}])
def test_a_conflict_is_of_one_expert_or_of_one_partner(sides: dict[str, str]) -> None:
    receipt = World().refusal(say(said.ConflictDisclosed, office(), conflict_id="C-1", ori=ORI, kind="family", **sides))
    assert {problem.field for problem in receipt.problems} == {"expert_id", "partner_id"}


def test_a_waiver_is_published_once_and_names_whom_it_concerns() -> None:
    world = heard(BARGAINING, WAIVED, WAIVED)
    assert kinds(world.said) == ["conflict.declared.v1", "conflict.waived.v1"]
    waived = world.said[-1]
    assert isinstance(waived, roster.ConflictWaived)
    assert (waived.partner_id, waived.ori, waived.subject) == ("IACP", ORI, "IACP")


def test_a_conflict_disclosed_again_after_its_waiver_stays_waived() -> None:
    world = heard(BARGAINING, WAIVED, BARGAINING)
    assert kinds(world.said) == ["conflict.declared.v1", "conflict.waived.v1"]
