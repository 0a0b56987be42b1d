"""Topic `receipts`: intake's answer to every submission. Keyed by the submission's source, without a sequence."""

from typing import ClassVar, Final, get_args

from pydantic import Field

from schemas.body import Fact, Problem, Text
from schemas.topics import RECEIPTS


class Receipt(Fact):
    """Answers one submission, known by the source and id its sender gave it."""

    TOPIC: ClassVar[str] = RECEIPTS.name
    submission_source: Text
    submission_id: Text
    submission_type: Text

    @property
    def subject(self) -> str:
        return self.submission_source


class SubmissionTaken(Receipt):
    """The submission is understood, its actor may say it, and it has been acted on."""

    TYPE: ClassVar[str] = "submission.taken.v1"


class SubmissionRefused(Receipt):
    """The submission changed nothing, for this reason."""

    TYPE: ClassVar[str] = "submission.refused.v1"
    reason: Text
    problems: tuple[Problem, ...] = Field(default=())
    """The fields at fault."""


ReceiptBody = SubmissionTaken | SubmissionRefused

BODIES: Final[dict[str, type[ReceiptBody]]] = {body.TYPE: body for body in get_args(ReceiptBody)}
