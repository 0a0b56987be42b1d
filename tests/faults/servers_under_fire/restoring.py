"""F8: one service's database restored to an older backup, while the service runs on."""

import asyncio
from typing import Final

from schemas.topics import TOPICS
from tests.faults.scenario import Field, Scenario
from tests.faults.servers_under_fire.backups import backup_of
from tests.faults.servers_under_fire.readiness import halted, recovers

_AGE_SECONDS: Final = 4.0
"""How old the backup is: well above the second that Kafka's hint may lie behind the database."""
_PUBLISHERS: Final = tuple(sorted({topic.publisher for topic in TOPICS} - {"any system"}))
_READER: Final = "reporting"


async def _reader_restored(field: Field) -> None:
    """Who publishes nothing reads everything again from where the backup stands."""
    backup = backup_of(field.ground, _READER)
    await backup.take()
    await asyncio.sleep(_AGE_SECONDS)
    before = await _handled(field, _READER)
    await backup.restore()
    after = await _handled(field, _READER)
    assert after < before, "the backup is not older than the database was"
    await recovers(field, f"{_READER}'s database going back from {before} to {after} handled events")
    await backup.discard()


async def _publisher_restored(field: Field) -> None:
    """Who has published stops before it decides anew what others have acted on, until its latest state is back."""
    service = field.chance.choice(_PUBLISHERS)
    backup = backup_of(field.ground, service)
    await backup.take()
    await asyncio.sleep(_AGE_SECONDS)
    await backup.restore()
    await halted(field, service, "database_went_back")
    await field.ground.stop(service)
    await backup.undo()
    await field.ground.start_missing()
    await recovers(field, f"{service}'s database being an older one")
    await backup.discard()


async def _handled(field: Field, service: str) -> int:
    return int(
        await field.ground.execute(service, "SELECT sum(next_offset - first_offset) FROM runtime.consumer_position")
    )


READER_RESTORED: Final = Scenario(
    fault="F8",
    name="older-backup-of-a-reader",
    sentence="Reporting's database is replaced by a backup of some seconds ago, while it runs: it reads on from there",
    inject=_reader_restored,
)
PUBLISHER_RESTORED: Final = Scenario(
    fault="F8",
    name="older-backup-of-a-publisher",
    sentence="The database of intake, matching or scheduling is replaced by a backup of some seconds ago: a named hard "
    "stop; it goes on once its latest state is back",
    inject=_publisher_restored,
    uninterrupted=True,
)
