"""The folder of a harvest: what was asked for, answers that never change, and what came of edits.

    harvest.json    dataset, roots, rules, and the time up to which later edits count
    answers.jsonl   change logs and details of operations as the servers told them
    edits.jsonl     one line an edit: its decisions, or why there are none

A line is durable before the next edit is begun, so that a harvest can be killed at any time and go
on. A line that was cut short is taken away on opening; its edit is looked at again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from cb2_assist.core.errors import AssistError, DatasetError, LabelFileLockedError, UsageError
from cb2_assist.labels.filesystem import sync_folder
from cb2_assist.labels.lock import acquire_server_lock

Row = dict[str, Any]

HEADER, ANSWERS, EDITS = "harvest.json", "answers.jsonl", "edits.jsonl"


class Lines:
    """A file of JSON objects, one a line, that only grows.

    Args:
        path: Made when missing.
        durable: Whether a line must survive a power cut once it is added. Of others damaged ones
            are passed over.
    """

    def __init__(self, path: Path, *, durable: bool) -> None:
        self.path, self._durable = path, durable
        self._file: IO[bytes] = path.open("a+b")
        try:
            self._file.truncate(self._whole())
        except BaseException:
            self._file.close()
            raise

    def __iter__(self) -> Iterator[Row]:
        """The lines, oldest first.

        Raises:
            DatasetError: One is damaged.
        """
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield json.loads(line)
                except ValueError:
                    if not self._durable:
                        continue
                    raise DatasetError(
                        f"{self.path}, line {number} is damaged. Harvest into another folder."
                    ) from None

    def add(self, row: Mapping[str, Any]) -> None:
        """Put a line at the end."""
        self._file.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
        self._file.flush()
        if self._durable:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _whole(self) -> int:
        """Bytes up to the end of the last whole line."""
        self._file.seek(0)
        size = 0
        for line in self._file:
            if line.endswith(b"\n"):
                size += len(line)
        return size


class HarvestFolder:
    """A harvest on disk, held by this process alone.

    Args:
        folder: Made when missing.
        asked: What a harvest is defined by; that of one under way must be the same.
        more: Goes into the header of a new one, and comes from that of one under way.

    Raises:
        UsageError: The folder holds another harvest, is a file, or another process has it.
        AssistError: It cannot be written.
    """

    def __init__(self, folder: Path, asked: Mapping[str, Any], more: Mapping[str, Any]) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise UsageError(f"--out names a folder, but {folder} is a file.") from None
        except OSError as e:
            raise AssistError(f"{folder} cannot be made: {e.strerror or e}.") from e
        try:
            self._lock = acquire_server_lock(folder / HEADER, {"what": "script"})
        except LabelFileLockedError:
            raise UsageError(
                f"Another process harvests into {folder}. Wait for it, or name another folder "
                "with --out."
            ) from None
        try:
            self.header = self._begin(dict(asked), dict(more))
            self.answers = Lines(folder / ANSWERS, durable=False)
            try:
                self.edits = Lines(folder / EDITS, durable=True)
            except BaseException:
                self.answers.close()
                raise
        except BaseException:
            self._lock.close()
            raise

    def latest(self) -> dict[int, bool]:
        """Edits that were looked at, by number: whether that was to the end."""
        return {int(line["edit"]): not line.get("again") for line in self.edits}

    def results(self) -> Iterator[Row]:
        """The last line of each edit, in the order of their numbers."""
        last: dict[int, int] = {}
        with self.edits.path.open("rb") as file:
            at = 0
            for line in file:
                last[int(json.loads(line)["edit"])] = at
                at += len(line)
            for number in sorted(last):
                file.seek(last[number])
                yield json.loads(file.readline())

    def close(self) -> None:
        """Let go of the files."""
        self.answers.close()
        self.edits.close()
        self._lock.close()

    def _begin(self, asked: Row, more: Row) -> Row:
        path = self.folder / HEADER
        if not path.exists():
            new = {**asked, **more}
            write_whole(path, [json.dumps(new, indent=1) + "\n"])
            return new
        try:
            header: Row = json.loads(path.read_text(encoding="utf-8"))
            others = [name for name in asked if header[name] != asked[name]]
            missing = [name for name in more if name not in header]
        except (OSError, ValueError, TypeError, KeyError):
            raise UsageError(
                f"{path} is no harvest's, or damaged. Name another folder with --out."
            ) from None
        if others or missing:
            name = (others + missing)[0]
            raise UsageError(
                f"{self.folder} holds a harvest with another {name} "
                f"({_short(header.get(name))}, not {_short(asked.get(name))}). Give the same "
                "options to go on with it, or name another folder with --out."
            )
        return header


def write_whole(path: Path, lines: Iterable[str]) -> None:
    """Write a text whole or not at all.

    Raises:
        AssistError: It cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except OSError as e:
        raise AssistError(
            f"{path} cannot be written: {e.strerror or e}. Free some space and run this again; it "
            "goes on where it stopped."
        ) from e


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
