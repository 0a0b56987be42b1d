"""`python -m tests.faults`: the fault campaign, with a report."""

from tests.faults.command import app

app()
