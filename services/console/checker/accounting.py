"""The checker of the whole path: is everything accounted for, once and in order? Pure checks of what was read.

It shares nothing with the services but the contract, so that a mistake of theirs is not its own.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Final, NamedTuple

from schemas.topics import DEAD_SUFFIX, RECEIPTS, REQUESTS, SUBMISSIONS, TOPICS, Topic
from services.console.checker.books import Books, MessageId, Position
from services.console.checker.lives import TRIAGED, Taken

_DEAD: Final = SUBMISSIONS.name + DEAD_SUFFIX
_CLOSED_FOR_INTAKE: Final = frozenset({"declined", "referred_out", "withdrawn", "cancelled", "closed", "on_hold"})


class Acknowledged(NamedTuple):
    """A line of a publisher's ledger: the broker has acknowledged this submission at this place."""

    source: str
    id: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Check:
    """One question to the books: what was asked, of how many things, and what does not hold."""

    name: str
    looked_at: int
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """The verdict, and where everything went."""

    checks: tuple[Check, ...]
    submissions: dict[str, int]
    """What became of all submissions in the log."""
    requests: dict[str, int]
    """Step at which each request that was taken stands."""
    notes: tuple[str, ...]

    @property
    def findings(self) -> list[str]:
        """Everything that does not hold; empty where all is accounted for."""
        return [f"{check.name}: {finding}" for check in self.checks for finding in check.findings]


def audit(books: Books, ledger: Sequence[Acknowledged] = ()) -> Account:
    """Checks the books of a stack at rest, and a ledger against them."""
    checks = tuple(_check(name, look, books) for name, look in _CHECKS)
    if ledger:
        checks = (Check("acknowledged submissions are in the log", len(ledger), tuple(_ledger(books, ledger))), *checks)
    parked = _parked(books)
    fates = Counter(_fate(books, message, parked) for message in books.submissions)
    steps = Counter(life.step for life in books.lives.values() if life.first is not None)
    return Account(checks, dict(sorted(fates.items())), dict(sorted(steps.items())), tuple(_notes(books)))


def _check(name: str, look: "Look", books: Books) -> Check:
    looked_at = 0
    findings: list[str] = []
    for finding in look(books):
        looked_at += 1
        if finding is not None:
            findings.append(finding)
    return Check(name, looked_at, tuple(findings))


Look = Callable[[Books], Iterator[str | None]]
"""Yields once for each thing looked at: what is wrong with it, or None."""


def _ledger(books: Books, ledger: Iterable[Acknowledged]) -> Iterator[str]:
    for one in ledger:
        if one.offset < books.starts.get((SUBMISSIONS.name, one.partition), 0):
            continue  # older than the log is kept
        found = books.places.get((one.partition, one.offset))
        if found != (one.source, one.id):
            yield f"{one.source} {one.id} is not at {one.partition}/{one.offset}, where the broker acknowledged it"


def _fate(books: Books, message: MessageId, parked: set[MessageId]) -> str:
    receipts = books.receipts.get(message)
    if receipts:
        return "taken" if any(receipts.values()) else "refused"
    return "parked" if message in parked else "unanswered"


def _parked(books: Books) -> set[MessageId]:
    """Submissions that intake could not handle. Those that an operator discarded have no receipt for ever."""
    return {books.places[place] for place in books.dead if place in books.places}


def _is_whole(books: Books, topic: Topic) -> bool:
    """Whether the log still has its beginning. Kafka forgets each partition by itself, so no age tells what is gone."""
    return all(start == 0 for (name, _), start in books.starts.items() if name == topic.name)


def _receipts(books: Books) -> Iterator[str | None]:
    excused = _parked(books)
    all_kept = _is_whole(books, RECEIPTS)
    for message in books.submissions:
        receipts = books.receipts.get(message, {})
        if len(receipts) > 1:
            yield f"{message[0]} {message[1]} has {len(receipts)} receipts"
        elif not receipts and all_kept and message not in excused:
            yield f"{message[0]} {message[1]} has no receipt and is not parked"
        else:
            yield None
    for message in books.receipts.keys() - books.submissions.keys() if _is_whole(books, SUBMISSIONS) else ():
        yield f"{message[0]} {message[1]} has a receipt, but nobody submitted it"


def _first_facts(books: Books) -> Iterator[str | None]:
    """Each request that was taken has one first fact, and no request is without a submission that was taken."""
    taken = Counter(
        subject
        for message, (event_type, subject) in books.submissions.items()
        if event_type == "request.submitted.v1" and any(books.receipts.get(message, {}).values())
    )
    for request_id, times in taken.items():
        life = books.lives.get(request_id)
        if times > 1:
            yield f"{request_id} was taken {times} times"
        elif life is None or life.first is None:
            yield f"{request_id} was taken, but no fact tells what became of it"
        elif life.first not in TRIAGED:
            yield f"{request_id} begins with {life.first}"
        else:
            yield None
    if _is_whole(books, SUBMISSIONS) and _is_whole(books, RECEIPTS):
        for request_id in {key for topic, key in books.streams if topic == REQUESTS.name} - taken.keys():
            yield f"{request_id} has facts, but was never taken"


def _sequences(books: Books) -> Iterator[str | None]:
    for stream in books.streams.values():
        if stream.faults:
            yield from stream.faults
        else:
            yield None


def _positions(books: Books) -> Iterator[str | None]:
    for topic in TOPICS:
        for service in topic.readers:
            for (name, number), end in books.ends.items():
                if name == topic.name:
                    position = books.positions[service].get((name, number))
                    yield _position(books, f"{service} in {name}-{number}", (name, number), end, position)


def _position(books: Books, where: str, slot: tuple[str, int], end: int, position: Position | None) -> str | None:
    start = books.starts[slot]
    if position is None:
        return None if start == end else f"{where} has never read {end - start} records"
    if position.next_offset != end:
        return f"{where} stands at {position.next_offset}, the log ends at {end}"
    if position.first_offset > start:
        return f"{where} began at {position.first_offset}, the log at {start}"
    handled = position.applied + position.duplicate + position.parked + position.ignored
    if position.first_offset == start and handled != books.records[slot]:
        return f"{where} accounts for {handled} records, the log holds {books.records[slot]}"
    return None


def _repeats(books: Books) -> Iterator[str | None]:
    """Where nothing was parked, what a service calls a duplicate is exactly what the log says twice."""
    for topic in TOPICS:
        slots = [slot for slot in books.ends if slot[0] == topic.name]
        for service in topic.readers:
            positions = [found for slot in slots if (found := books.positions[service].get(slot)) is not None]
            whole = all(books.starts[slot] == 0 for slot in slots) and not any(one.first_offset for one in positions)
            if not whole or books.foreign[topic.name] or any(one.parked for one in positions):
                continue
            passed_over = sum(one.duplicate for one in positions)
            said_again = books.repeats[topic.name]
            yield (
                None
                if passed_over == said_again
                else f"{service} passed over {passed_over} of {topic.name} as duplicates, the log repeats {said_again}"
            )


def _outboxes(books: Books) -> Iterator[str | None]:
    for service, depth in books.outboxes.items():
        yield f"the outbox of {service} holds {depth}" if depth else None


def _steps_agree(books: Books) -> Iterator[str | None]:
    """Intake's and reporting's tables say of each request what the log says, and reporting counts them all."""
    known = {request_id: life.step for request_id, life in books.lives.items() if life.first is not None}
    for request_id in known.keys() | books.intake_steps.keys() | books.reported_steps.keys():
        step, reported = known.get(request_id), books.reported_steps.get(request_id)
        intake = books.intake_steps.get(request_id)
        if reported != step:
            yield f"{request_id}: reporting says {reported}, the log {step}"
        elif intake != step and (step in _CLOSED_FOR_INTAKE or intake in _CLOSED_FOR_INTAKE):
            yield f"{request_id}: intake says {intake}, the log {step}"
        else:
            yield None
    stand = Counter(known.values())
    for step in sorted(stand.keys() | books.counted_steps.keys()):
        counted = books.counted_steps[step]
        yield f"reporting counts {counted} requests {step}, the log {stand[step]}" if counted != stand[step] else None


def _matches_agree(books: Books) -> Iterator[str | None]:
    """The matches that matching counts as load are those that the log says hold."""
    known = {
        request_id: (match.match_id, match.stage)
        for request_id, life in books.lives.items()
        if (match := life.live_match) is not None
    }
    for request_id in known.keys() | books.matches.keys():
        said, told = books.matches.get(request_id), known.get(request_id)
        yield None if said == told else f"{request_id}: matching says {said}, the log {told}"


def _bookings_agree(books: Books) -> Iterator[str | None]:
    """The time that scheduling has booked is the time of the sessions that the log says are to come."""
    known = {
        (session.session_id, expert_id, session.start, session.end)
        for life in books.lives.values()
        for session in life.live_sessions
        for expert_id in session.experts
    }
    booked = {tuple(booking) for booking in books.bookings}
    for session_id, expert_id, *_ in known - booked:
        yield f"{session_id}: the time of {expert_id} is not booked"
    for session_id, expert_id, *_ in booked - known:
        yield f"{session_id}: the time of {expert_id} is booked for a session that the log does not have"
    yield from (None for _ in known & booked)


def _nobody_twice(books: Books) -> Iterator[str | None]:
    """Nobody was ever to be in two places: neither by scheduling's table nor by the plans that the log tells of."""
    if books.double_bookings:
        yield f"scheduling's table holds {books.double_bookings} overlapping bookings"
    by_expert: dict[str, list[Taken]] = {}
    for life in books.lives.values():
        for taken in life.all_taken:
            for expert_id in taken.session.experts:
                by_expert.setdefault(expert_id, []).append(taken)
    for expert_id, all_taken in by_expert.items():
        all_taken.sort(key=lambda taken: taken.session.start)
        for nth, one in enumerate(all_taken):
            yield None
            for other in takewhile(partial(_starts_within, one), all_taken[nth + 1 :]):
                if _at_one_time(one, other):
                    yield f"{expert_id} is booked for {one.session.session_id} and {other.session.session_id} at once"


def _starts_within(one: Taken, other: Taken) -> bool:
    return other.session.start < one.session.end


def _at_one_time(one: Taken, other: Taken) -> bool:
    """Whether both plans stood for a while: each was published before the other's time was given back.

    When it was decided says less: a decision may wait for locks while another worker gives time back and takes it.
    """
    return (one.until is None or other.known < one.until) and (other.until is None or one.known < other.until)


def _conflicts(books: Books) -> Iterator[str | None]:
    """No match holds across a conflict, and none was ever proposed across one that was known."""
    for request_id, life in books.lives.items():
        for match in life.matches.values():
            live = life.live_match
            holds = live is not None and live.match_id == match.match_id
            look = books.roster.conflicts_of if holds else books.roster.known_conflicts_of
            reasons = list(look(life, match))
            yield f"{match.match_id} of {request_id}: {'; '.join(reasons)}" if reasons else None


def _loads(books: Books) -> Iterator[str | None]:
    """Nobody holds more requests than was ever allowed."""
    experts: Counter[str] = Counter()
    partners: Counter[str] = Counter()
    for life in books.lives.values():
        if (match := life.live_match) is not None:
            experts.update(match.experts)
            partners[match.partner_id] += 1
    for held, allowed in ((experts, books.roster.load_limits), (partners, books.roster.capacities)):
        for who, load in held.items():
            limit = allowed.get(who, 0)
            yield f"{who} holds {load} requests, {limit} are allowed" if load > limit else None


_CHECKS: Final[tuple[tuple[str, Look], ...]] = (
    ("each submission has one receipt", _receipts),
    ("each request taken has one first fact", _first_facts),
    ("events of each key are in sequence", _sequences),
    ("each service has handled each record once", _positions),
    ("duplicates passed over are those in the log", _repeats),
    ("outboxes are empty", _outboxes),
    ("intake, reporting and the log agree on steps", _steps_agree),
    ("matching and the log agree on matches", _matches_agree),
    ("scheduling and the log agree on bookings", _bookings_agree),
    ("nobody is booked twice", _nobody_twice),
    ("no match across a declared conflict", _conflicts),
    ("nobody over load limit or capacity", _loads),
)


def _notes(books: Books) -> Iterator[str]:
    if not _is_whole(books, RECEIPTS):
        yield f"the oldest {RECEIPTS.name} are no longer kept: whether every submission had one cannot be told"
    for topic, count in sorted(books.repeats.items()):
        if topic in (SUBMISSIONS.name, RECEIPTS.name) or count:
            yield f"{count} records of {topic} repeat an earlier one; readers pass them over"
    for topic, count in sorted(books.foreign.items()):
        yield f"{count} records of {topic} are no events, or not of its publisher; readers park them"
    by_reason = Counter((one.service, one.topic, one.reason) for one in books.parked)
    for (service, topic, reason), count in sorted(by_reason.items()):
        yield f"{count} events of {topic} are parked by {service} ({reason}): see `fieldbridge parked list`"
    if books.records.total() and not any(slot[0] == _DEAD for slot in books.ends):
        yield f"topic {_DEAD} is missing"
