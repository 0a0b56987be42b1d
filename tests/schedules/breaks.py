"""The runtime broken on purpose, one promise at a time: the schedules have to notice each."""

from collections.abc import Callable
from typing import Final

import pytest

from services.runtime import inbox, relay
from services.runtime.database import Database
from services.runtime.handling import Handling, Taken


def _change(patch: pytest.MonkeyPatch, module: object, name: str, *changes: tuple[str, str]) -> None:
    """Changes a statement of the product; fails where it no longer says what is to be changed."""
    statement: str = getattr(module, name)
    for before, after in changes:
        assert before in statement, f"{name} no longer says {before!r}: break it another way"
        statement = statement.replace(before, after)
    patch.setattr(module, name, statement)


def fence_without_epoch(patch: pytest.MonkeyPatch) -> None:
    """Who claims a partition leaves its epoch as it was, so that comparing it lets the owner before through."""
    _change(patch, inbox, "_CLAIM", ("epoch = known.epoch + 1, ", ""))


def outbox_paged_by_cursor(patch: pytest.MonkeyPatch) -> None:
    """The relay remembers the last id it has published, and reads on behind it."""
    published = "(SELECT max(id) FROM unnest($3::bigint[]) AS id)"
    cursor = "simulated.outbox_cursor"
    _change(
        patch,
        relay,
        "_NEXT",
        ("), upcoming AS (", f"), moved AS (UPDATE {cursor} SET last = greatest(last, {published})), upcoming AS ("),
        ("id <> ALL($3)", f"id > greatest((SELECT last FROM {cursor}), {published})"),
    )


def relay_without_fence(patch: pytest.MonkeyPatch) -> None:
    """A relay goes on after another has taken the lead."""
    _change(patch, relay, "_NEXT", ("AND epoch = $1", "AND epoch >= $1"))


def no_sequence_check(patch: pytest.MonkeyPatch) -> None:
    """Whatever can be read is handled, whether it is its turn, and whether it was handled before."""

    def sort_out(_: Handling, one: Taken, *__: object) -> tuple[str, str] | None:
        return None if one.unreadable is None else ("unreadable", one.unreadable)

    def repeated(*_: object) -> bool:
        return False

    patch.setattr(Handling, "_sort_out", sort_out)
    patch.setattr(Handling, "_repeated", repeated)
    _change(patch, inbox, "_MOVE_ON", ("WHERE known.sequence <= excluded.sequence", ""))


def redriver_that_holds_nothing(patch: pytest.MonkeyPatch) -> None:
    """The redriver reads the parked events of a key while the pump may add to them."""

    async def pass_by(_: Database, __: object) -> None: ...

    patch.setattr(inbox, "hold_streams", pass_by)


Break = Callable[[pytest.MonkeyPatch], None]
BREAKS: Final[dict[str, Break]] = {
    one.__name__: one
    for one in (
        fence_without_epoch,
        outbox_paged_by_cursor,
        relay_without_fence,
        no_sequence_check,
        redriver_that_holds_nothing,
    )
}
