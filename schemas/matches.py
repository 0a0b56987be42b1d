"""Topic `matches`: the partner and experts proposed, confirmed or released for a request. Published by matching."""

from typing import Annotated, ClassVar, Final, get_args

from pydantic import Field

from schemas.body import ExpertKey, Fact, Line, MatchKey, Part, PartnerKey, RequestKey, Text
from schemas.topics import MATCHES


class MatchFact(Fact):
    """Has happened to the match of one request."""

    TOPIC: ClassVar[str] = MATCHES.name
    request_id: RequestKey

    @property
    def subject(self) -> str:
        return self.request_id


class MatchedExpert(Part):
    """One expert of a match, and why this one."""

    expert_id: ExpertKey
    role: Line = "lead"
    affinity: Annotated[int, Field(ge=0, le=1000)]
    """Score of fit, in thousandths."""
    reasons: tuple[Line, ...] = Field(min_length=1)


class MatchProposed(MatchFact):
    """This partner and these experts are proposed; agency and partner are asked."""

    TYPE: ClassVar[str] = "match.proposed.v1"
    match_id: MatchKey
    partner_id: PartnerKey
    experts: tuple[MatchedExpert, ...] = Field(min_length=1)


class MatchConfirmed(MatchFact):
    """The agency has accepted the proposal and the partner takes the work."""

    TYPE: ClassVar[str] = "match.confirmed.v1"
    match_id: MatchKey
    partner_id: PartnerKey
    expert_ids: tuple[ExpertKey, ...] = Field(min_length=1)


class Shortfall(Part):
    """Why some of the experts could not be proposed."""

    code: Line
    """Short name of the reason, such as `conflict_of_interest` or `at_capacity`."""
    experts: Annotated[int, Field(ge=0)]
    """Number of experts this reason ruled out first."""
    says: Text


class MatchNotFound(MatchFact):
    """Nobody can be proposed now; the request stays in the pool."""

    TYPE: ClassVar[str] = "match.not_found.v1"
    reasons: tuple[Shortfall, ...]
    would_help: tuple[Text, ...] = ()


class MatchReleased(MatchFact):
    """The match no longer holds; its experts are free for others."""

    TYPE: ClassVar[str] = "match.released.v1"
    match_id: MatchKey
    expert_ids: tuple[ExpertKey, ...] = Field(min_length=1)
    reason: Text


MatchBody = MatchProposed | MatchConfirmed | MatchNotFound | MatchReleased

BODIES: Final[dict[str, type[MatchBody]]] = {body.TYPE: body for body in get_args(MatchBody)}
