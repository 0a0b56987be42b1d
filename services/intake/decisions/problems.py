"""Why something is not as it should be, in plain words."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """A field at fault, by its dotted path, and what is wrong with it."""

    field: str
    problem: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A submission changes nothing, for this reason."""

    reason: str
    problems: tuple[Problem, ...] = ()
