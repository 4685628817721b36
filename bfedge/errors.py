"""The one exception that reaches users as a message instead of a traceback."""

from __future__ import annotations


class BfedgeError(Exception):
    """Something the user can put right: a bad file, option or environment.

    The command line prints `error: <message>` and, if there is one, `hint: <hint>`, and exits with 1.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
