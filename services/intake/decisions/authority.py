"""Who may say what. Each rule gives None where the speaker may, or a refusal that says who may."""

from dataclasses import dataclass
from typing import Final

from schemas.vocabulary import ActorRole, Ori, PartnerId
from services.intake.decisions.problems import Problem, Refusal
from services.intake.decisions.roster import Conflict, Expert, Partner, PartnerStep

AGENCY: Final = frozenset({ActorRole.AGENCY_EXECUTIVE, ActorRole.POINT_OF_CONTACT})


@dataclass(frozen=True, slots=True)
class Speaker:
    """Whoever a submission comes from: a role, and the ORI, partner, expert or office it speaks for."""

    role: ActorRole
    id: str

    def is_agency(self, ori: Ori) -> bool:
        return self.role in AGENCY and self.id == ori

    def is_executive(self, ori: Ori) -> bool:
        return self.role is ActorRole.AGENCY_EXECUTIVE and self.id == ori

    def is_partner(self, partner_id: PartnerId) -> bool:
        return self.role is ActorRole.PARTNER and self.id == partner_id


def agency(speaker: Speaker, ori: Ori) -> Refusal | None:
    """The requesting agency speaks: its executive or its point of contact. Of a joint request, the lead agency."""
    # Not which agency that is: whoever guesses the id of a request is not to learn who asked.
    says = "only the executive or the point of contact of the requesting agency may say this"
    return None if speaker.is_agency(ori) else _refused(says)


def executive(speaker: Speaker, ori: Ori) -> Refusal | None:
    """The agency's executive speaks: nobody else signs for it."""
    return None if speaker.is_executive(ori) else _refused("only the executive of the agency may say this")


def programme_office(speaker: Speaker) -> Refusal | None:
    """The programme office speaks."""
    return None if speaker.role is ActorRole.PROGRAMME_OFFICE else _refused("only the programme office may say this")


def partner(speaker: Speaker, partner_id: PartnerId) -> Refusal | None:
    """This partner speaks."""
    return None if speaker.is_partner(partner_id) else _refused(f"only the partner {partner_id} may say this")


def selected_partner(speaker: Speaker, known: Partner | None) -> Refusal | None:
    """A selected partner speaks; matching knows whether it is the partner of the match."""
    if speaker.role is ActorRole.PARTNER and known is not None and known.step is PartnerStep.SELECTED:
        return None
    return _refused("only a partner whom the programme has selected may say this")


def reporter(speaker: Speaker, ori: Ori, known: Partner | None) -> Refusal | None:
    """Whoever was at a session speaks: the agency, or a partner, whatever it has been ruled since it was selected.

    Whether it is the partner of the match intake does not know; the fact names it.
    """
    if speaker.is_agency(ori):
        return None
    if speaker.role is ActorRole.PARTNER and known is not None and known.was_selected:
        return None
    return _refused("only the requesting agency or a partner of the programme may report this")


def expert_or_its_partner(speaker: Speaker, expert: Expert) -> Refusal | None:
    """The expert itself or its partner speaks."""
    if speaker.is_partner(expert.partner_id) or _is_expert(speaker, expert.expert_id):
        return None
    return _refused(f"only the expert {expert.expert_id} or its partner {expert.partner_id} may say this")


def discloser(speaker: Speaker, conflict: Conflict, expert: Expert | None) -> Refusal | None:
    """Either side of a conflict, or the programme office, discloses it.

    Any partner may disclose a conflict of an expert whose listing has not arrived here: undeclared is not cleared.
    """
    if speaker.role is ActorRole.PROGRAMME_OFFICE or speaker.is_executive(conflict.ori):
        return None
    if conflict.partner_id is not None and speaker.is_partner(conflict.partner_id):
        return None
    if conflict.expert_id is not None:
        of_partner = speaker.role is ActorRole.PARTNER if expert is None else speaker.is_partner(expert.partner_id)
        if of_partner or _is_expert(speaker, conflict.expert_id):
            return None
    return _refused(
        "only the expert or partner concerned, the expert's partner, the agency's executive or the programme office "
        "may disclose this"
    )


def _is_expert(speaker: Speaker, expert_id: str) -> bool:
    return speaker.role is ActorRole.EXPERT and speaker.id == expert_id


def _refused(says: str) -> Refusal:
    return Refusal(says, (Problem("actor", says),))
