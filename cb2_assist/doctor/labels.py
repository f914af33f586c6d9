"""The label file and who uses it, or a team's labels."""

from __future__ import annotations

from pathlib import Path

from cb2_assist.doctor.report import Check, fail, ok, warn
from cb2_assist.labels.inspect import LabelFileFacts, look_at


def check_labels(path: Path) -> Check:
    """Whether decisions can be recorded there, and how safely."""
    facts = look_at(path)
    name, text = "labels", _described(path, facts)
    details = {
        "path": str(path),
        "events": facts.events,
        "schema": facts.schema,
        "file_system": facts.file_system,
        "holder": facts.holder,
    }
    if not facts.is_writable:
        return fail(
            name,
            f"{text}, cannot be written",
            "Name another file: --labels sqlite:///PATH.",
            **details,
        )
    if facts.holder is not None:
        who = f"process {facts.holder.get('pid', 'unknown')}"
        where = facts.holder.get("url") or "an address not known yet"
        return ok(name, f"{text}, served by {who} at {where}", **details)
    if not facts.is_wal_safe:
        return warn(
            name,
            f"{text}, on a network file system ({facts.file_system}): a rollback journal is used",
            "Open it on one machine at a time, or name a file on a local disk with --labels.",
            **details,
        )
    if not facts.is_private:
        return warn(name, f"{text}, others can read it", f"Run chmod 600 {path}", **details)
    return ok(name, text, **details)


def check_team(url: str) -> Check:
    """Whether a team's labels can be read, and what waits here to be recorded there."""
    from cb2_assist.labels.team import look_at_team

    facts = look_at_team(url)
    details = {"events": facts.events, "schema": facts.schema, "waiting": facts.waiting}
    text = f"{facts.place}, made at the first start"
    if facts.events is not None:
        text = f"{facts.place}, {facts.events} events, schema {facts.schema}"
    if facts.waiting:
        return warn(
            "labels",
            f"{text}; {facts.waiting} verdicts wait in {facts.journal}",
            "They are delivered when cb2-assist serve starts with these labels.",
            **details,
        )
    if facts.notices:
        return warn("labels", text, " ".join(facts.notices), **details)
    return ok("labels", text, **details)


def _described(path: Path, facts: LabelFileFacts) -> str:
    if facts.events is None:
        return f"{path}, made at the first start"
    older = "" if facts.schema == facts.newest else ", brought up to date at the next start"
    return f"{path}, {facts.events} events, schema {facts.schema}{older}"
