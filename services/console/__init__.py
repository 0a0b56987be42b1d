"""The `fieldbridge` command: runs the stack, speaks to it as other systems do, and checks it from outside."""
