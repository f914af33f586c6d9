"""Everything that can go wrong and is not our fault, in one tree.

    AssistError (500)
    ├─ UsageError (400)              what was asked cannot be understood
    │  ├─ BadPointError
    │  ├─ BadIdError
    │  └─ BadRequestError
    ├─ DatasetError (502)            the data cannot be had
    │  ├─ UnknownDatasetError (404)
    │  ├─ BadVolumeError (400)
    │  ├─ OutOfBoundsError (404)
    │  ├─ BackgroundError (404)
    │  ├─ SegmentNotFoundError (404)
    │  ├─ NoAnswerError (504)        a server is down, or too slow
    │  ├─ SupersededError (409)      nobody waits for the answer any more
    │  ├─ EditRefusedError (409)     a graph's server has not made an edit
    │  └─ LoginError (401)           a token is missing, invalid or not enough
    │     └─ UntrustedHostError (401)  a token would go to a host that nobody approved
    ├─ ModelError (500)              weights and card do not fit
    ├─ LabelError (500)              the label file cannot be used
    │  ├─ LabelFileLockedError (423)
    │  ├─ LabelFileReadOnlyError (507)
    │  └─ LabelsUnreachableError (503)  the server of a team's labels does not answer
    ├─ DecisionError (409)           a verdict that cannot be taken now
    └─ ServerError (500)
       └─ PortBusyError (500)

Each message says what was given, what is known and what to do next. The command line prints it on
stderr and exits 1 (2 for `UsageError`); the page shows it in the status line.
"""

from __future__ import annotations

from collections.abc import Iterable


class AssistError(Exception):
    """Base of every error whose message is meant for the person at the keyboard."""

    http_status = 500
    exit_code = 1


class UsageError(AssistError):
    """What was asked cannot be understood."""

    http_status = 400
    exit_code = 2


class BadPointError(UsageError, ValueError):
    """Not a point, box or voxel size."""


class BadIdError(UsageError, ValueError):
    """Not an unsigned 64-bit segment id."""


class BadRequestError(UsageError, ValueError):
    """A message from the page or a script that does not have the agreed form."""


class DatasetError(AssistError):
    """The data cannot be had."""

    http_status = 502


class UnknownDatasetError(DatasetError, LookupError):
    """No dataset goes by this name."""

    http_status = 404

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(
            f"There is no dataset {name!r}. Known: {', '.join(sorted(known)) or 'none'}. "
            "Open your own with --dataset-file FILE.toml (cb2-assist import-volume makes one)."
        )


class BadVolumeError(DatasetError, ValueError):
    """A volume that cannot be read or does not fit its partner."""

    http_status = 400


class OutOfBoundsError(DatasetError, LookupError):
    """A point outside the volume."""

    http_status = 404


class BackgroundError(DatasetError, LookupError):
    """A point on background, where there is no segment."""

    http_status = 404


class SegmentNotFoundError(DatasetError, LookupError):
    """A segment id that does not occur where it was said to be."""

    http_status = 404


class NoAnswerError(DatasetError):
    """A server is down, or did not answer in time."""

    http_status = 504


class SupersededError(DatasetError):
    """Something newer was asked for meanwhile; nobody waits for this answer any more."""

    http_status = 409


class EditRefusedError(DatasetError):
    """An edit of a graph was not made, for sure.

    Attributes:
        is_final: Whether asking again would be refused again.
    """

    http_status = 409

    def __init__(self, message: str, *, is_final: bool) -> None:
        super().__init__(message)
        self.is_final = is_final


class LoginError(DatasetError):
    """A token is missing, invalid, or does not allow what was asked.

    Attributes:
        reason: ``missing``, ``invalid``, ``terms`` (not accepted), ``permission`` or ``host``.
        page: Where a person can do something about it; empty where no page helps.
        server: The global server whose token it is; empty where that is not known.
    """

    http_status = 401

    def __init__(self, message: str, *, reason: str, page: str = "", server: str = "") -> None:
        super().__init__(message)
        self.reason, self.page, self.server = reason, page, server


class UntrustedHostError(LoginError):
    """A token would go to a host that is neither built in nor approved by name."""

    def __init__(self, host: str, named_by: str) -> None:
        super().__init__(
            f"{named_by} names the host {host}, which is not one of the known servers: your token "
            "would be sent there. If you know who runs it and want that, approve it once: "
            f"cb2-assist doctor --trust {host}",
            reason="host",
        )
        self.host = host


class ModelError(AssistError):
    """Weights, card and code do not fit together."""


class LabelError(AssistError):
    """The label file cannot be used as asked."""


class LabelFileLockedError(LabelError):
    """Another server holds the label file."""

    http_status = 423


class LabelFileReadOnlyError(LabelError):
    """The label file cannot be written: read-only or disk full. Nothing was recorded."""

    http_status = 507


class LabelsUnreachableError(LabelError):
    """The server of a team's labels does not answer, or the connection to it was lost."""

    http_status = 503


class DecisionError(AssistError):
    """A verdict, undo or redo that cannot be taken in the present state."""

    http_status = 409


class ServerError(AssistError):
    """The local server cannot run as asked."""


class PortBusyError(ServerError):
    """Something else listens on the port."""
