"""How a command ends: what a person did wrong is 2, what went wrong is 1; both in one line."""

SUCCESS = 0
FAILURE = 1
USAGE = 2
INTERRUPTED = 130  # 128 + SIGINT


class CommandError(Exception):
    """A command failed; the text names the object and what is wrong."""


class UsageError(CommandError):
    """A command was asked for something that it cannot do; the text says what is allowed."""
