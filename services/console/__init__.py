"""The `fieldbridge` command: starts and stops everything, speaks to it as other systems do, and checks it from outside."""
