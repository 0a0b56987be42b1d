"""Where the choices of a schedule come from: a seed, or choices that were recorded, which can be made fewer."""

import random
from collections.abc import Awaitable, Callable, Sequence

Fails = Callable[[Sequence[int]], Awaitable[bool]]


class Choices:
    """Draws by a seed, or repeats what was recorded. The first alternative, 0, is always the ordinary one.

    Where a recording ends, or names an alternative that is not there, the ordinary one is taken.
    """

    def __init__(self, seed: int = 0, recorded: Sequence[int] | None = None) -> None:
        self.taken: list[int] = []
        self._random = random.Random(seed)
        self._recorded = recorded

    def choose(self, weights: Sequence[float]) -> int:
        """The place of one alternative; those of weight 0 are never drawn."""
        chosen = self._draw(weights) if self._recorded is None else self._repeat(self._recorded, len(weights))
        self.taken.append(chosen)
        return chosen

    def among(self, alternatives: int) -> int:
        """One of so many alternatives, each as likely."""
        return self.choose([1.0] * alternatives)

    def chance(self, probability: float) -> bool:
        """Whether something extraordinary is to happen."""
        return self.choose([1 - probability, probability]) == 1

    def _draw(self, weights: Sequence[float]) -> int:
        return self._random.choices(range(len(weights)), weights)[0]

    def _repeat(self, recorded: Sequence[int], alternatives: int) -> int:
        place = len(self.taken)
        return recorded[place] if place < len(recorded) and recorded[place] < alternatives else 0


async def simplest(failing: Sequence[int], fails: Fails, most: int) -> list[int]:
    """Fewer and more ordinary choices that fail as well, found within so many tries."""
    best = _without_ordinary_end(failing)
    tries = 0
    improved = True
    while improved:
        improved = False
        for candidate in _simpler(best):
            if tries >= most:
                return best
            tries += 1
            if await fails(candidate):
                best = _without_ordinary_end(candidate)
                improved = True
                break
    return best


def _simpler(choices: Sequence[int]) -> "list[list[int]]":
    """The boldest first: without the end, without a part of it, then with one choice after another made ordinary."""
    found: list[list[int]] = []
    size = len(choices) // 2
    while size:
        for start in range(len(choices) - size, -1, -size):
            found.append([*choices[:start], *choices[start + size :]])
            if any(choices[start : start + size]):
                found.append([*choices[:start], *([0] * size), *choices[start + size :]])
        size //= 2
    found.extend(
        [*choices[:place], lower, *choices[place + 1 :]]
        for place in range(len(choices))
        for lower in range(1, choices[place])
    )
    return found


def _without_ordinary_end(choices: Sequence[int]) -> list[int]:
    kept = len(choices)
    while kept and choices[kept - 1] == 0:
        kept -= 1
    return list(choices[:kept])
