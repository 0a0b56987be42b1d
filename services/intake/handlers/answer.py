"""What a submission is answered with, and the way from the contract's parts to the decisions' values and back."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter

from schemas import body as parts
from services.intake.decisions.problems import Problem, Refusal
from services.intake.store import Known
from services.runtime.service import FactBody

Answer = tuple[Known, list[FactBody]] | Refusal
"""What changes and the facts that follow, or why nothing does."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """A submission nobody can read: its type is unknown, or its body breaks the schema. It holds none of the input."""

    reason: str
    problems: tuple[Problem, ...] = ()


_State = TypeVar("_State")
_Model = TypeVar("_Model", bound=BaseModel)


def stated(problems: Iterable[Problem]) -> tuple[parts.Problem, ...]:
    """Problems as the contract says them."""
    return tuple(parts.Problem(field=one.field, problem=one.problem) for one in problems)


def as_state(adapter: TypeAdapter[_State], part: parts.Part) -> _State:
    """A part of a body as the value decisions know."""
    return adapter.validate_python(part.model_dump())


def as_part(model: type[_Model], state: object) -> _Model:
    """A value of the decisions as the contract says it."""
    return model.model_validate(state, from_attributes=True)
