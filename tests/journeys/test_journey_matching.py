"""Who is proposed, who never is, and what follows when a proposal falls through."""

import pytest

from schemas import submissions as said
from schemas.matches import MatchConfirmed, MatchNotFound, MatchProposed, MatchReleased
from schemas.requests import OfferAccepted, ProposalAccepted, RequestHeld
from schemas.requests import ProposalDeclined as DeclineHeard
from schemas.roster import ConflictDeclared, ExpertListed
from schemas.vocabulary import ConflictId, ConflictKind, ExpertId
from tests.journeys.island import Case, Island, settle
from tests.journeys.outside import Outside


async def disclose(island: Island, expert_id: ExpertId) -> None:
    conflict_id = ConflictId(f"C-{expert_id}")
    about = {"conflict_id": conflict_id, "expert_id": expert_id, "ori": island.ori, "kind": ConflictKind.FAMILY}
    await island.do(said.ConflictDisclosed, **about)
    await island.outside.hear(ConflictDeclared, expert_id)


def lead(proposal: MatchProposed) -> ExpertId:
    (expert,) = proposal.experts
    return expert.expert_id


async def test_a_declined_proposal_leads_to_another_expert(outside: Outside) -> None:
    island = await settle(outside, experts=2)
    case = await island.ask()
    first = lead(await case.proposed())
    await case.do(said.ProposalDeclined, match_id=case.match_id, reason="We know each other too well.")
    released = await outside.hear(MatchReleased, case.request_id, match_id=case.match_id)
    assert released.expert_ids == (first,)
    second = lead(await case.with_next_match().proposed())
    assert {first, second} == set(island.experts)


async def test_a_declined_offer_does_not_go_to_the_same_partner_again(outside: Outside) -> None:
    island = await settle(outside, experts=2)
    case = await island.ask()
    await case.proposed()
    await case.do(said.OfferDeclined, match_id=case.match_id, reason="All of our trainers are abroad.")
    await outside.hear(MatchReleased, case.request_id, match_id=case.match_id)
    not_found = await outside.hear(MatchNotFound, case.request_id)
    assert {one.code: one.experts for one in not_found.reasons}["declined_before"] == len(island.experts)


async def test_a_declined_match_stays_declined_although_it_is_accepted_late(outside: Outside) -> None:
    island = await settle(outside)
    case = await island.ask()
    await case.proposed()
    await case.do(said.ProposalDeclined, match_id=case.match_id, reason="Not now.")
    await outside.hear(DeclineHeard, case.request_id)
    await case.do(said.ProposalAccepted, match_id=case.match_id)
    await case.do(said.OfferAccepted, match_id=case.match_id)
    await outside.rest()
    assert outside.told(MatchConfirmed, case.request_id) == []


async def test_an_expert_with_a_declared_conflict_is_never_proposed(outside: Outside) -> None:
    island = await settle(outside, experts=3)
    conflicted, *free = island.experts
    await disclose(island, conflicted)
    await outside.rest()

    case = await island.ask()
    proposed: list[ExpertId] = []
    for _ in free:
        proposed.append(lead(await case.proposed()))
        await case.do(said.ProposalDeclined, match_id=case.match_id, reason="Somebody else, please.")
        await outside.hear(MatchReleased, case.request_id, match_id=case.match_id)
        case = case.with_next_match()
    not_found = await outside.hear(MatchNotFound, case.request_id)

    assert set(proposed) == set(free)
    assert {one.code: one.experts for one in not_found.reasons}["conflict_of_interest"] == 1
    await outside.rest()
    assert len(outside.told(MatchProposed, case.request_id)) == len(free)


@pytest.mark.parametrize("step", ["proposed", "matched"])
async def test_a_conflict_disclosed_after_the_proposal_releases_it(outside: Outside, step: str) -> None:
    island = await settle(outside, experts=2)
    case = await island.ask()
    first = lead(await case.proposed())
    if step == "matched":
        await case.matched()
    await disclose(island, first)
    released = await outside.hear(MatchReleased, case.request_id, match_id=case.match_id)
    assert released.expert_ids == (first,)
    assert lead(await case.with_next_match().proposed()) != first


async def test_a_request_on_hold_is_matched_only_once_it_is_resumed(outside: Outside) -> None:
    island = await settle(outside, experts=0)
    case = await island.ask()
    await outside.hear(MatchNotFound, case.request_id)
    await case.do(said.HoldAsked, reason="The budget is not decided.")
    await outside.hear(RequestHeld, case.request_id)
    await outside.rest()
    expert_id = await island.list_expert()
    await outside.hear(ExpertListed, expert_id)
    await outside.rest()
    assert outside.told(MatchProposed, case.request_id) == []

    await case.do(said.HoldAsked, on_hold=False, reason="The budget is decided.")
    assert lead(await case.proposed()) == expert_id


@pytest.mark.parametrize("late", [said.ProposalAccepted, said.OfferAccepted])
async def test_one_side_alone_confirms_nothing(
    outside: Outside, late: type[said.ProposalAccepted] | type[said.OfferAccepted]
) -> None:
    island = await settle(outside)
    case = await island.ask()
    await case.proposed()
    early = said.OfferAccepted if late is said.ProposalAccepted else said.ProposalAccepted
    await accepted(case, early)
    await outside.rest()
    assert outside.told(MatchConfirmed, case.request_id) == []
    await accepted(case, late)
    await outside.hear(MatchConfirmed, case.request_id)


async def accepted(case: Case, by: type[said.ProposalAccepted] | type[said.OfferAccepted]) -> None:
    await case.do(by, match_id=case.match_id)
    heard = ProposalAccepted if by is said.ProposalAccepted else OfferAccepted
    await case.outside.hear(heard, case.request_id, match_id=case.match_id)
