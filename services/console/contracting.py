"""`fieldbridge schemas`: the generated files of the contract."""

from pathlib import Path
from typing import Annotated, Final

import typer

import schemas
from services.console import contract
from services.console.screen import AsJson, say, show_json
from services.console.trouble import Trouble

_HERE: Final = Path(schemas.__file__).parent

app: Final = typer.Typer(help="The contract as JSON Schemas and an AsyncAPI document.", no_args_is_help=True)

Folder = Annotated[Path, typer.Option(help="Folder of the schemas.", show_default=False)]


@app.command()
def write(folder: Folder = _HERE, as_json: AsJson = False) -> None:
    """Write the generated files that are stale."""
    try:
        written = contract.write(folder)
    except contract.PublishedContractBroken as broken:
        raise Trouble(str(broken)) from None
    except OSError as error:
        raise Trouble(f"{error.filename or folder} cannot be written: {error.strerror}.") from None
    if as_json:
        show_json(written)
        return
    for name in written:
        say(f"wrote {name}")
    say(f"{len(written)} files written." if written else "Everything is up to date.")


@app.command()
def check(folder: Folder = _HERE, as_json: AsJson = False) -> None:
    """Say which generated files are stale. Exit status 1 if any is."""
    stale = contract.stale(folder)
    if as_json:
        show_json(stale)
    else:
        for name in stale:
            say(f"stale: {name}")
        say("Run `fieldbridge schemas write`." if stale else "Everything is up to date.")
    if stale:
        raise typer.Exit(1)
