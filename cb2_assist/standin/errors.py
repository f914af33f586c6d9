"""What the services refuse, in the words of the real ones."""

from __future__ import annotations


class ApiError(Exception):
    """An answer other than 200, as PyChunkedGraph puts it.

    Args:
        status: HTTP status.
        message: What its JSON says.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def bad_request(message: str) -> ApiError:
    """Status 400; the real server puts the number before its text."""
    return ApiError(400, f"[400]: {message}")
