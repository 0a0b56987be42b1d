"""What goes wrong for a person at the command line."""


class Trouble(Exception):
    """The command cannot do what was asked. The message says what is wrong, where, and what to do about it."""
