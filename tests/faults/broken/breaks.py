"""Three faults of the kind that the runtime is built against, as edits of its source."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final


class NotThere(Exception):
    """The text that an edit replaces is not in the source any more: the edit has to be written anew."""


@dataclass(frozen=True)
class Edit:
    """Replaces a text that stands once in a file."""

    file: str
    old: str
    new: str

    def apply(self, tree: Path) -> None:
        """Edits the file in the tree. Raises NotThere."""
        path = tree / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise NotThere(f"{self.file} holds {text.count(self.old)} times: {self.old.strip()}")
        path.write_text(text.replace(self.old, self.new))


@dataclass(frozen=True)
class Break:
    """A promise broken, and the scenarios that show it."""

    name: str
    sentence: str
    edits: tuple[Edit, ...]
    scenarios: tuple[str, ...]


_TRANSACTIONS: Final = "services/runtime/transactions.py"
_RELAY: Final = "services/runtime/relay.py"
_HANDLING: Final = "services/runtime/handling.py"
_INBOX: Final = "services/runtime/inbox.py"

BREAKS: Final = (
    Break(
        name="broken-fence",
        sentence="A position is moved without a look at who owns it and where it stands",
        edits=(
            Edit(
                _TRANSACTIONS,
                "if position is None or position.epoch != claims[slot].epoch:\n",
                "if position is None:\n",
            ),
            Edit(
                _TRANSACTIONS,
                "                elif position.next_offset != start:\n                    lost.add(slot)\n",
                "",
            ),
        ),
        scenarios=("zombie",),
    ),
    Break(
        name="cursor-paged-outbox",
        sentence="The relay reads on after the highest id it has published, instead of from the lowest there is",
        edits=(
            Edit(_RELAY, "        self._asked = 0.0\n", "        self._asked = 0.0\n        self._last = 0\n"),
            Edit(_RELAY, "WHERE id <> ALL($3) ORDER BY", "WHERE id <> ALL($3) AND id > $6 ORDER BY"),
            Edit(_RELAY, "_BYTES_AT_A_TIME\n            )", "_BYTES_AT_A_TIME, self._last\n            )"),
            Edit(
                _RELAY,
                '                self._published.append(row["id"])\n',
                '                self._published.append(row["id"])\n'
                '                self._last = max(self._last, row["id"])\n',
            ),
        ),
        scenarios=("hiccups",),
    ),
    Break(
        name="missing-sequence-check",
        sentence="Every fact that comes is taken for the next one of its key",
        edits=(
            Edit(
                _HANDLING,
                '            if sequence <= standing.sequence:\n                return ("duplicate", "")\n'
                '            if standing.blocked == "refused":',
                '            if standing.blocked == "refused":',
            ),
            Edit(_HANDLING, "            if sequence > standing.sequence + 1:\n", "            if sequence < 0:\n"),
            Edit(_HANDLING, "return (envelope.sequence or 0) <= standing.sequence\n", "return standing.sequence < 0\n"),
            Edit(_INBOX, "    WHERE known.sequence <= excluded.sequence\n", ""),
        ),
        scenarios=("relay-killed", "relay-past-its-lease"),
    ),
)
