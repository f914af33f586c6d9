"""`cb2-assist harvest`: the edit history of a graph as decisions with answers.

Asks the graph for the change logs of some objects and looks at each edit (`harvest_edits`). Every
answer that cannot change is kept, and so is what came of each edit, so that a harvest which was
broken off anywhere goes on where it stopped, without doubling or losing anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cb2_assist.core.errors import (
    AssistError,
    BadIdError,
    DatasetError,
    LoginError,
    NoAnswerError,
    UsageError,
)
from cb2_assist.core.records import SegmentId, segment_id
from cb2_assist.datasets.source import DatasetInfo
from cb2_assist.labels.filesystem import make_private_folder
from cb2_assist.learning.export_rows import pseudonym
from cb2_assist.learning.harvest_edits import CONTROL_UNKNOWN, Found, Rules, decisions_of
from cb2_assist.learning.harvest_folder import HarvestFolder

if TYPE_CHECKING:
    from cb2_assist.datasets.cave.history import Edit, History, Operation

T = TypeVar("T")
Row = dict[str, Any]

PAUSES_S = (2.0, 5.0, 15.0, 30.0, 60.0)
"""After so long a question is asked again that a server did not answer."""
NOT_ANSWERED = "the server did not answer; run this again to try once more"
NOT_READ = "the data could not be read; run this again to try once more"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to harvest.

    Attributes:
        roots: Objects whose past it is; the first that has an edit keeps it.
        since: Edits of then or later; None: all.
        near_nm: See `harvest_edits.NEAR_NM`.
        controls: See `harvest_edits.CONTROLS`.
        salt: For pseudonyms.
    """

    roots: tuple[SegmentId, ...]
    since: datetime | None
    near_nm: float
    controls: int
    salt: bytes


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a harvest has come."""

    done: int
    total: int
    """Edits."""
    decisions: int
    """Found in this run."""
    left_s: float | None
    """Expected; None before the first edit."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a harvest holds.

    Attributes:
        edits: Edits in the change logs.
        used: Edits with a decision.
        by_type: Decisions by sample type.
        left_out: Edits and controls that are no decisions, by reason.
        unread: Roots whose log cannot be read, and why.
        waiting: Edits that are to be looked at again, some of which gave decisions already.
    """

    edits: int
    used: int
    by_type: Mapping[str, int]
    left_out: Mapping[str, int]
    unread: Mapping[str, str]
    waiting: int

    def to_json(self) -> Row:
        """For `harvest --json`."""
        return asdict(self)


class Harvest:
    """A harvest into a folder.

    Args:
        history: Of the graph.
        info: Of the dataset.
        wanted: What to harvest.
        out: See `harvest_folder`.
        until: Later edits are looked at up to then; that of a harvest under way stays.
        pauses_s: See `PAUSES_S`.

    Raises:
        UsageError: The folder holds another harvest.
        AssistError: It cannot be written.
    """

    def __init__(
        self,
        history: History,
        info: DatasetInfo,
        wanted: Wanted,
        out: Path,
        until: datetime,
        *,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self._history, self._info, self._wanted = history, info, wanted
        self._pauses_s = pauses_s
        asked = {
            "format": _FORMAT,
            "dataset": info.name,
            "graph": history.table,
            "roots": [str(r) for r in wanted.roots],
            "since": None if wanted.since is None else wanted.since.isoformat(),
            "near_nm": wanted.near_nm,
            "controls": wanted.controls,
        }
        self.folder = HarvestFolder(out, asked, {"until": until.isoformat()})
        self._rules = Rules(
            datetime.fromisoformat(self.folder.header["until"]), wanted.near_nm, wanted.controls
        )
        self._unread: dict[str, str] = {}
        try:
            self._logs, self._details = _kept(self.folder.answers)
        except BaseException:
            self.close()
            raise

    def run(self, on_progress: Callable[[Progress], None] = lambda _p: None) -> Report:
        """Look at every edit that has not been looked at; returns what there is then.

        Args:
            on_progress: Called after every edit.

        Raises:
            LoginError: The server refuses the token.
            NoAnswerError: The server is down; what was found so far is kept.
        """
        edits = self._plan()
        finished = {n for n, whole in self.folder.latest().items() if whole}
        left = [(root, edit) for root, edit in edits if edit.number not in finished]
        begun, decisions = time.monotonic(), 0
        for n, (root, edit) in enumerate(left, 1):
            line = self._line(root, edit)
            self.folder.edits.add(line)
            decisions += len(line["decisions"])
            spent = (time.monotonic() - begun) / n
            done = len(edits) - len(left) + n
            on_progress(Progress(done, len(edits), decisions, spent * (len(left) - n)))
        return self._report(len(edits))

    def rows(self) -> Iterator[Row]:
        """Every decision, with what is the same for all."""
        info = self._info
        for line in self.folder.results():
            for d in line["decisions"]:
                yield {
                    "id": _name(info.name, self._history.table, d),
                    **d,
                    # a number in folders of earlier versions
                    "operation_id": str(d["operation_id"]),
                    "label": int(d["verdict"] == "accept"),
                    "root_id": line["root"],
                    "dataset": info.name,
                    "version": self._history.table,
                    "species": info.species,
                    "licence": info.licence,
                    "citation": info.citation,
                }

    def close(self) -> None:
        """Let go of the folder."""
        self.folder.close()

    def operations(self, numbers: Iterable[int]) -> dict[int, Operation]:
        """Details of operations: the ones that are kept, else asked for and kept."""
        wanted = set(numbers)
        unknown = wanted - self._details.keys()
        if unknown:
            for number, told in self._history.operations(unknown).items():
                self._details[number] = told
                self.folder.answers.add({"operation": told.to_json()})
        return {n: self._details[n] for n in wanted if n in self._details}

    def _plan(self) -> list[tuple[SegmentId, Edit]]:
        """Edits of all roots, each once, in the order of roots and times."""
        seen: set[int] = set()
        plan: list[tuple[SegmentId, Edit]] = []
        for root in self._wanted.roots:
            for edit in self._log(root):
                late = self._wanted.since is None or edit.at >= self._wanted.since
                if late and edit.number not in seen:
                    seen.add(edit.number)
                    plan.append((root, edit))
        return plan

    def _log(self, root: SegmentId) -> list[Edit]:
        if root not in self._logs:
            try:
                edits = self._patiently(lambda: self._history.edits(root))
            except (LoginError, NoAnswerError):
                raise
            except DatasetError as e:
                self._unread[str(root)] = str(e)
                return []
            # a name that is written anywhere is a pseudonym already
            edits = [replace(e, user=pseudonym(e.user, self._wanted.salt)) for e in edits]
            self._logs[root] = edits
            self.folder.answers.add({"root": str(root), "edits": [_edit_json(e) for e in edits]})
        return self._logs[root]

    def _line(self, root: SegmentId, edit: Edit) -> Row:
        found, again = self._found(root, edit)
        return {
            "edit": edit.number,
            "root": str(root),
            "decisions": list(found.decisions),
            "left_out": list(found.left_out),
            **({"again": True} if again else {}),
        }

    def _found(self, root: SegmentId, edit: Edit) -> tuple[Found, bool]:
        """What comes of an edit, and whether it must be looked at again another time."""
        answers_others = 0
        for pause_s in (0.0, *self._pauses_s):
            time.sleep(pause_s)
            try:
                return self._look(edit, self._rules), False
            except LoginError:
                raise
            except NoAnswerError:
                answers_others += self._answers(root)
                if answers_others > 1:
                    break
            except DatasetError:
                return Found((), (NOT_READ,)), True
        self._history.check_server(root)
        # it is this question alone that gets no answer
        try:
            found = self._look(edit, replace(self._rules, lenient=True))
        except NoAnswerError:
            return Found((), (NOT_ANSWERED,)), True
        return found, CONTROL_UNKNOWN in found.left_out

    def _answers(self, root: SegmentId) -> bool:
        try:
            self._history.check_server(root)
        except NoAnswerError:
            return False
        return True

    def _look(self, edit: Edit, rules: Rules) -> Found:
        return decisions_of(edit, self._history, self, rules)

    def _patiently(self, question: Callable[[], T]) -> T:
        for pause_s in self._pauses_s:
            try:
                return question()
            except NoAnswerError:
                time.sleep(pause_s)
        return question()

    def _report(self, edits: int) -> Report:
        by_type: Counter[str] = Counter()
        left_out: Counter[str] = Counter()
        used = waiting = 0
        for line in self.folder.results():
            by_type.update(d["sample_type"] for d in line["decisions"])
            left_out.update(line["left_out"])
            used += bool(line["decisions"])
            waiting += bool(line.get("again"))
        return Report(
            edits,
            used,
            dict(sorted(by_type.items())),
            dict(sorted(left_out.items())),
            dict(self._unread),
            waiting,
        )


def _kept(answers: Iterable[Row]) -> tuple[dict[int, list[Edit]], dict[int, Operation]]:
    from cb2_assist.datasets.cave.history import Operation

    logs: dict[int, list[Edit]] = {}
    details: dict[int, Operation] = {}
    for line in answers:
        if "operation" in line:
            told = Operation.of_json(line["operation"])
            details[told.number] = told
        else:
            logs[int(line["root"])] = [_edit_of(e) for e in line["edits"]]
    return logs, details


def _edit_json(edit: Edit) -> Row:
    return {**asdict(edit), "at": edit.at.isoformat()}


def _edit_of(row: Row) -> Edit:
    from cb2_assist.datasets.cave.history import Edit

    return Edit(
        row["number"],
        datetime.fromisoformat(row["at"]),
        row["user"],
        row["is_merge"],
        tuple(row["before"]),
        tuple(row["after"]),
    )


def _name(dataset: str, graph: str, d: Row) -> str:
    """Names a decision: the same in every harvest of it."""
    parts = (int(d["operation_id"]), d["sample_type"], d["segment"], d["partner"])
    text = json.dumps([dataset, graph, *parts])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def pseudonym_salt() -> bytes:
    """What pseudonyms of this machine's harvests are made with; kept out of their folders.

    Raises:
        AssistError: It cannot be kept.
    """
    import platformdirs

    path = platformdirs.user_data_path("cb2-assist", appauthor=False) / "harvest_salt"
    try:
        make_private_folder(path.parent)
        if not path.exists():
            part = path.with_name(f".{path.name}-{secrets.token_hex(4)}.part")
            part.touch(0o600)
            part.write_text(secrets.token_hex(32), encoding="ascii")
            # whoever is first: two harvests that begin at once share one
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(part)
            part.unlink()
        salt = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as e:
        raise AssistError(f"{path}, from which pseudonyms are made, cannot be used: {e}.") from e
    return salt


def read_roots(path: Path) -> tuple[SegmentId, ...]:
    """Ids from a text file: the first word of each line; after # stands a remark.

    Raises:
        UsageError: The file cannot be read, a line begins with no id, or there is none.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as e:
        raise UsageError(f"--roots {path} cannot be read: {e}.") from None
    found: dict[SegmentId, None] = {}
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].replace(",", " ").split()
        if not words or (number == 1 and not words[0].isdigit()):  # a header
            continue
        try:
            found[segment_id(words[0])] = None
        except BadIdError as e:
            raise UsageError(f"--roots {path}, line {number}: {e}") from None
    if not found:
        raise UsageError(f"--roots {path} holds no id: one a line, in digits.")
    return tuple(found)
