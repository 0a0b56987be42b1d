"""Who may be proposed to whom, told from the log of the roster alone."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final, NamedTuple

from schemas.vocabulary import WAIVABLE, ConflictKind
from services.console.checker.lives import Life, Match

_COOLING_OFF: Final = timedelta(days=3 * 365 - 5)
"""Employment ends being a conflict after three years; the checker leaves days at the edge to the rule's own reading."""


_KNOWN_AFTER: Final = timedelta(minutes=2)
"""There is no order between topics: so long after it was declared, a conflict is known to matching at the latest."""

_OF_THE_COUNTY: Final = frozenset({ConflictKind.LITIGATION, ConflictKind.LABOUR_DISPUTE})
"""Kinds of conflict with one agency that are conflicts with every agency of its county."""


class Conflict(NamedTuple):
    """A declared conflict of an expert or a whole partner with an agency."""

    conflict_id: str
    who: str
    ori: str
    kind: str
    declared_at: datetime
    """The later of what the fact says and when it was published: a clock may have been wrong."""


@dataclass(slots=True)
class Roster:
    """What the log says of partners, experts and conflicts."""

    conflicts: dict[str, list[Conflict]] = field(default_factory=dict[str, "list[Conflict]"])
    """By the county of the agency they are with."""
    waived: set[str] = field(default_factory=set[str])
    employments: dict[str, list[tuple[str, date | None]]] = field(
        default_factory=dict[str, list[tuple[str, "date | None"]]]
    )
    vendor_topics: dict[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    load_limits: dict[str, int] = field(default_factory=dict[str, int])
    """Greatest load an expert was ever allowed."""
    capacities: dict[str, int] = field(default_factory=dict[str, int])
    """Greatest capacity a partner was ever awarded."""

    def take(self, event_type: str, known: datetime, body: Mapping[str, Any]) -> None:
        """Takes in one fact that was decided and published at this time at the latest."""
        match event_type:
            case "partner.selected.v1":
                partner_id = body["partner_id"]
                self.capacities[partner_id] = max(body["capacity"], self.capacities.get(partner_id, 0))
            case "expert.listed.v1" | "expert.changed.v1":
                self._take_profile(body["expert_id"], body["profile"])
            case "conflict.declared.v1":
                who = body.get("expert_id") or body.get("partner_id") or ""
                conflict = Conflict(body["conflict_id"], who, body["ori"], body["kind"], known)
                self.conflicts.setdefault(_county(conflict.ori), []).append(conflict)
            case "conflict.waived.v1":
                self.waived.add(body["conflict_id"])
            case _:
                return

    def known_conflicts_of(self, life: Life, match: Match) -> Iterable[str]:
        """Why this match must never have been proposed: what was declared so early that it was known by then."""
        return self._declared(life, match, match.proposed_at - _KNOWN_AFTER)

    def conflicts_of(self, life: Life, match: Match) -> Iterable[str]:
        """Why this match must not be now, in plain words."""
        yield from self._declared(life, match, None)
        agencies = _agencies(life)
        for expert in match.experts:
            for ori, until in self.employments.get(expert, ()):
                if ori in agencies and (until is None or until > match.proposed_at.date() - _COOLING_OFF):
                    yield f"{expert} works or worked for {ori} until {until or 'now'}"
            if sold := self.vendor_topics.get(expert, frozenset[str]()) & set(life.topics):
                yield f"{expert} has a commercial interest in {', '.join(sorted(sold))}"

    def _declared(self, life: Life, match: Match, before: datetime | None) -> Iterator[str]:
        agencies = _agencies(life)
        for county in {_county(ori) for ori in agencies}:
            for conflict in self.conflicts.get(county, ()):
                bars = conflict.ori in agencies or conflict.kind in _OF_THE_COUNTY
                concerned = conflict.who in (match.partner_id, *match.experts) and not self._is_waived(conflict)
                if bars and concerned and (before is None or conflict.declared_at < before):
                    yield f"{conflict.who} has declared a conflict ({conflict.kind}) with {conflict.ori}"

    def _is_waived(self, conflict: Conflict) -> bool:
        return conflict.conflict_id in self.waived and conflict.kind in WAIVABLE

    def _take_profile(self, expert_id: str, profile: Mapping[str, Any]) -> None:
        self.employments[expert_id] = [
            (one["ori"], None if one.get("until") is None else date.fromisoformat(one["until"]))
            for one in profile.get("employments", ())
        ]
        self.vendor_topics[expert_id] = frozenset(profile.get("vendor_topics", ()))
        self.load_limits[expert_id] = max(profile.get("load_limit", 5), self.load_limits.get(expert_id, 0))


def _county(ori: str) -> str:
    """State and county are the first five characters of an ORI."""
    return ori[:5]


def _agencies(life: Life) -> set[str]:
    return {ori for ori in (life.ori, *life.participating) if ori is not None}
