"""Brings a database to the release's version: numbered SQL files, each applied once, never edited."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final

from services.runtime.database import Connection, UnusableDatabase, address

_LEDGER: Final = """
CREATE SCHEMA IF NOT EXISTS runtime;
CREATE TABLE IF NOT EXISTS runtime.schema_version (
    part text NOT NULL, number integer NOT NULL, name text NOT NULL, checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (part, number));
"""
_LONGEST_SECONDS: Final = 86_400.0
_LOCK: Final = 0x4669656C64  # one number that all releases agree on


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file of SQL; `part` is the runtime or the service it belongs to."""

    part: str
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations_of(part: str, package: str) -> list[Migration]:
    """The numbered SQL files of a package, in their order."""
    folder = resources.files(package)
    found = [entry for entry in folder.iterdir() if entry.name.endswith(".sql")]
    return sorted(
        (
            Migration(part, int(entry.name.split("_")[0]), entry.name, entry.read_text(encoding="utf-8"))
            for entry in found
        ),
        key=lambda migration: migration.number,
    )


async def migrate(db: Connection, service: str, package: str, url: str) -> Sequence[Migration]:
    """Applies what is missing, all of it or nothing, and returns it. Several processes may call this at once.

    Raises UnusableDatabase where the database was made by a newer release or from an edited file.
    """
    applied_now: list[Migration] = []
    async with db.transaction():
        await db.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await db.execute("SET LOCAL client_min_messages = warning")
        # An index of a table that has grown large takes longer than any statement of a slice may.
        await db.execute("SET LOCAL statement_timeout = 0")
        await db.execute(_LEDGER)
        for part, files in (("runtime", "services.runtime.migrations"), (service, package)):
            rows = await db.fetch("SELECT number, name, checksum FROM runtime.schema_version WHERE part = $1", part)
            applied = {int(row["number"]): row for row in rows}
            known = migrations_of(part, files)
            newer = sorted(set(applied) - {migration.number for migration in known})
            if newer:
                raise UnusableDatabase(
                    f"The database at {address(url)} was made by a newer release: it has migration "
                    f"{applied[newer[-1]]['name']} of {part}, this release ends at "
                    f"{known[-1].name if known else 'none'}. Install the newer release, or use another database."
                )
            for migration in known:
                row = applied.get(migration.number)
                if row is None:
                    await db.execute(migration.sql, timeout=_LONGEST_SECONDS)
                    await db.execute(
                        "INSERT INTO runtime.schema_version (part, number, name, checksum) VALUES ($1, $2, $3, $4)",
                        part,
                        migration.number,
                        migration.name,
                        migration.checksum,
                    )
                    applied_now.append(migration)
                elif row["checksum"] != migration.checksum:
                    raise UnusableDatabase(
                        f"Migration {migration.name} of {part} was edited after the database at {address(url)} was "
                        "made with it. Bring the file back as it was, or use another database."
                    )
    return applied_now
