"""Named points where a fault campaign ends, stops or holds up the process; none unless a setting names them."""

import os
import random
import signal
import time
from collections.abc import Callable
from typing import Final

Reach = Callable[[str], None]
"""Called with the name of a point whenever the process comes by there."""

POINTS: Final = (
    "before_transaction",
    "before_commit",
    "after_commit",
    "before_hint",
    "after_hint",
    "after_publish",
    "after_delete",
    "in_round",
    "in_decision",
)
BLOCKED_SECONDS: Final = 30.0
"""How long `block` holds the event loop up: longer than the watchdog waits by default."""


class Injected(Exception):
    """What a failpoint raises where it was asked to."""


def unarmed(_: str) -> None:
    """No failpoint is set."""


def checked(text: str) -> str:
    """The text, if `armed` understands it; else raises ValueError."""
    armed(text)
    return text


def armed(text: str) -> Reach:
    """Failpoints from a text such as `after_commit=kill@0.02;in_round=stop@3`.

    Each is a point, what happens there (kill, stop, block, raise) and when: a chance below 1 at each passage, or the
    number of the passage. Raises ValueError where the text says something else.
    """
    if not text:
        return unarmed
    set_ = dict(_parsed(part) for part in text.split(";"))
    passages = dict.fromkeys(set_, 0)

    def reach(point: str) -> None:
        if point not in set_:
            return
        action, when = set_[point]
        passages[point] += 1
        if random.random() < when if when < 1 else passages[point] == when:  # noqa: S311 - drawn by lot, no secret
            action()

    return reach


def _parsed(part: str) -> tuple[str, tuple[Callable[[], None], float]]:
    point, _, what = part.partition("=")
    action, _, when = what.partition("@")
    if point not in POINTS or action not in _ACTIONS or not when.replace(".", "", 1).isdecimal() or float(when) <= 0:
        raise ValueError(
            f"{part!r} is no failpoint: expected POINT=ACTION@WHEN with a point of {', '.join(POINTS)}, an action of "
            f"{', '.join(_ACTIONS)}, and a chance below 1 or the number of a passage"
        )
    return point, (_ACTIONS[action], float(when))


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _block() -> None:
    time.sleep(BLOCKED_SECONDS)


def _raise() -> None:
    raise Injected("a failpoint raises here")


_ACTIONS: Final[dict[str, Callable[[], None]]] = {"kill": _kill, "stop": _stop, "block": _block, "raise": _raise}
