"""What is said of partners, experts and conflicts of interest; and the roster facts that follow."""

from typing import Final, assert_never

from pydantic import TypeAdapter

from schemas import body as parts
from schemas import roster
from schemas import submissions as said
from services.intake.decisions import authority
from services.intake.decisions import roster as people
from services.intake.decisions.authority import Speaker
from services.intake.decisions.problems import Refusal
from services.intake.handlers.answer import Answer, as_part, as_state
from services.intake.store import Known
from services.runtime.service import FactBody

_PROFILE: Final = TypeAdapter(people.Profile)


def partner_applied(known: Known, body: said.PartnerApplied) -> Answer:
    """A membership association applies."""
    before = known.partners.get(body.partner_id)
    application = people.Application(body.name, body.acronym, body.capacity)
    after = people.applied(before or people.Partner(body.partner_id), application)
    return (Known(), []) if after is before else (Known(partners={body.partner_id: after}), [])


def application_ruled(known: Known, body: said.ApplicationRuled) -> Answer:
    """The programme office rules on a partner; once it is selected, the listings that waited for that go out."""
    before = known.partners.get(body.partner_id) or people.Partner(body.partner_id)
    after = people.selected(before, body.capacity, body.period) if body.selected else people.not_selected(before)
    if isinstance(after, Refusal):
        return after
    if after is before:
        return Known(), []
    changes = Known(partners={body.partner_id: after})
    if after.award is None:
        suspended = roster.PartnerSuspended(partner_id=body.partner_id, reason=body.reason)
        return changes, [suspended] if after.step is people.PartnerStep.SUSPENDED else []
    award = after.award
    facts: list[FactBody] = [
        roster.PartnerSelected(
            partner_id=body.partner_id,
            name=award.name,
            acronym=award.acronym,
            capacity=award.capacity,
            period=award.period,
        )
    ]
    for expert_id in before.waiting:
        waiting = known.experts[expert_id]
        expert = people.no_longer_waiting(waiting, body.partner_id)
        if expert is not waiting:
            changes.experts[expert_id] = expert
            facts.append(_listed(expert))
    return changes, facts


def expert_listed(known: Known, body: said.ExpertListed) -> Answer:
    """A partner lists an expert: at once where it is selected, later where no ruling on it is known here yet."""
    profile = as_state(_PROFILE, body.profile)
    before = known.experts.get(body.expert_id)
    partner = known.partners.get(profile.partner_id) or people.Partner(profile.partner_id)
    after = people.listed(before, body.expert_id, profile, partner)
    if isinstance(after, Refusal):
        return after
    if after.expert is before:
        return Known(), []
    changes = Known(experts={body.expert_id: after.expert})
    if after.partner is not partner:
        changes.partners[profile.partner_id] = after.partner
    return changes, [_listed(after.expert)] if after.expert.step is people.ExpertStep.LISTED else []


def of_expert(
    known: Known, speaker: Speaker, body: said.ExpertChanged | said.ExpertRetired | said.AvailabilityChanged
) -> Answer:
    """Something is said of an expert who was listed before; a listing that waits is changed in silence."""
    expert = known.experts.get(body.expert_id)
    if expert is None:
        return people.unknown("expert_id", body.expert_id)
    fact: FactBody
    match body:
        case said.ExpertChanged():
            profile = body.profile
            if "unavailable" not in profile.model_fields_set:
                # The expert may have told them itself; only who names days off changes them.
                profile = profile.model_copy(update={"unavailable": expert.profile.unavailable})
            partner = known.partners.get(profile.partner_id) or people.Partner(profile.partner_id)
            fact = roster.ExpertChanged(expert_id=body.expert_id, profile=profile)
            after = authority.partner(speaker, expert.partner_id) or people.changed(
                expert, as_state(_PROFILE, profile), partner
            )
        case said.ExpertRetired():
            fact = roster.ExpertRetired(expert_id=body.expert_id)
            after = authority.partner(speaker, expert.partner_id) or people.retired(expert)
        case said.AvailabilityChanged():
            fact = roster.AvailabilityChanged(expert_id=body.expert_id, unavailable=body.unavailable)
            after = authority.expert_or_its_partner(speaker, expert) or people.available_except(
                expert, body.unavailable
            )
        case _:
            assert_never(body)
    if isinstance(after, Refusal):
        return after
    if after is expert:
        return Known(), []
    return Known(experts={body.expert_id: after}), [fact] if expert.step is people.ExpertStep.LISTED else []


def conflict_disclosed(known: Known, speaker: Speaker, body: said.ConflictDisclosed) -> Answer:
    """A conflict of interest is disclosed. Its detail goes into no fact."""
    disclosure = people.Conflict(
        body.conflict_id, body.ori, body.kind, body.expert_id, body.partner_id, detail=body.detail
    )
    before = known.conflicts.get(body.conflict_id)
    expert = None if body.expert_id is None else known.experts.get(body.expert_id)
    after = authority.discloser(speaker, disclosure, expert) or people.disclosed(
        before, disclosure, registered=body.ori in known.registered
    )
    if isinstance(after, Refusal):
        return after
    if after is before:
        return Known(), []
    fact = roster.ConflictDeclared(**body.model_dump(exclude={"actor", "detail"}))
    return Known(conflicts={body.conflict_id: after}), [fact]


def conflict_waived(known: Known, speaker: Speaker, body: said.ConflictWaived) -> Answer:
    """An agency's executive waives a conflict."""
    conflict = known.conflicts.get(body.conflict_id)
    if conflict is None:
        return people.unknown("conflict_id", body.conflict_id)
    after = authority.executive(speaker, conflict.ori) or people.waived(conflict)
    if isinstance(after, Refusal):
        return after
    if after is conflict:
        return Known(), []
    return Known(conflicts={body.conflict_id: after}), [as_part(roster.ConflictWaived, conflict)]


def _listed(expert: people.Expert) -> FactBody:
    return roster.ExpertListed(expert_id=expert.expert_id, profile=as_part(parts.ExpertProfile, expert.profile))
