"""`fieldbridge check`: asks whether everything is accounted for, once and in order."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from schemas.topics import SUBMISSIONS
from services.console.checker.accounting import Account, Acknowledged, Check, audit
from services.console.checker.books import read_books
from services.console.screen import AsJson, out, say, show_json, table
from services.console.surroundings import Stack, here
from services.console.trouble import Trouble

_MOST_SHOWN: Final = 20


def check(
    ledger: Annotated[
        Path | None, typer.Option(help="Ledger of a publisher: every submission in it must be accounted for.")
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait until nothing moves any more.", min=0)] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Check from outside that nothing is lost, doubled, out of order or in conflict. Exit status 1 if anything is."""
    account = asyncio.run(examine(here().stack(), ledger, wait))
    if as_json:
        show_json(asdict(account) | {"findings": account.findings})
    else:
        show(account)
    if account.findings:
        raise typer.Exit(1)


async def examine(stack: Stack, ledger: Path | None, seconds: float) -> Account:
    """The account of a stack once it is at rest; that it does not come to rest is a finding, too. Raises Trouble."""
    acknowledged = [] if ledger is None else read_ledger(ledger)
    books, restless = await read_books(stack, seconds, say)
    account = audit(books, acknowledged)
    at_rest = Check("everything has been handled", 1, () if restless is None else (restless,))
    return Account((at_rest, *account.checks), account.submissions, account.requests, account.notes)


def read_ledger(path: Path) -> list[Acknowledged]:
    """The submissions in a ledger that `simulate --ledger` wrote. Raises Trouble."""
    acknowledged: list[Acknowledged] = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                entry: dict[str, Any] = json.loads(line)
                if entry["topic"] == SUBMISSIONS.name:
                    acknowledged.append(
                        Acknowledged(entry["source"], entry["id"], int(entry["partition"]), int(entry["offset"]))
                    )
            except (ValueError, KeyError, TypeError) as error:
                raise Trouble(f"{path}, line {number}: this is no line of a ledger ({error}).") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Trouble(f"The ledger {path} cannot be read: {error}.") from None
    return acknowledged


def show(account: Account) -> None:
    """The account as tables for people."""
    out.print(table("Submissions in the log", ("became", "count#"), _with_total(account.submissions)))
    out.print(table("Requests taken", ("stand at", "count#"), _with_total(account.requests)))
    rows = [
        (check.name, check.looked_at, f"{len(check.findings)} findings" if check.findings else "holds")
        for check in account.checks
    ]
    out.print(table("Conservation", ("check", "looked at#", "verdict"), rows))
    for check in account.checks:
        if check.findings:
            shown = [(finding,) for finding in check.findings[:_MOST_SHOWN]]
            more = len(check.findings) - len(shown)
            out.print(table(check.name, ("finding",), [*shown, *([(f"and {more:,} more",)] if more else [])]))
    for note in account.notes:
        say(f"note: {note}")
    if account.findings:
        say(f"{len(account.findings)} findings: not everything is accounted for.")
    else:
        say("Everything is accounted for, once and in order.")


def _with_total(counts: dict[str, int]) -> list[tuple[str, int]]:
    return [*((name.replace("_", " "), count) for name, count in counts.items()), ("together", sum(counts.values()))]
