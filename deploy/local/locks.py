"""A lock between processes (and threads) that ends with its holder, however the holder ends."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(path: Path, on_wait: Callable[[], None]) -> Generator[None]:
    """Hold the lock `path`; `on_wait` is called once if someone else holds it."""
    import fcntl  # absent on Windows, where nothing is started but a clear refusal is due

    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
