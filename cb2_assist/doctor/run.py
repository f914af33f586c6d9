"""All checks, in the order in which a person would look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cb2_assist.core.errors import AssistError
from cb2_assist.doctor.installation import (
    TorchCheck,
    check_model,
    check_numba,
    check_packages,
    check_page,
    check_python,
)
from cb2_assist.doctor.labels import check_labels, check_team
from cb2_assist.doctor.machine import check_browser, check_demo, check_folder, check_port
from cb2_assist.doctor.report import Check, broken, examine, ok
from cb2_assist.labels.team_url import is_team_url


@dataclass(frozen=True, slots=True)
class Patient:
    """What is looked at. Everything may be left out."""

    dataset: str | None = None
    dataset_file: Path | None = None
    labels: str | None = None
    model: Path | None = None


def diagnose(patient: Patient) -> Iterator[Check]:
    """Look at everything, one by one; nothing that is broken ends it."""
    torch = TorchCheck()  # takes seconds, and runs beside the others
    try:
        yield examine("python", check_python)
        yield examine("packages", check_packages)
        yield examine("page", check_page)
        yield examine("model", lambda: check_model(patient.model))
        yield examine("numba cache", check_numba)
        yield from _whole("places", _places(patient))
        yield from _whole("dataset", _dataset(patient))
    finally:
        last = examine("torch", torch)
    yield last


def _whole(name: str, checks: Iterator[Check]) -> Iterator[Check]:
    """The checks of a part, and a finding where looking for what to check goes wrong."""
    try:
        yield from checks
    except Exception as e:  # noqa: BLE001 - one broken thing hides no other
        yield broken(name, e)


def _places(patient: Patient) -> Iterator[Check]:
    import platformdirs

    from cb2_assist.resources import CACHE_VARIABLE, cache_folder

    data, cache = platformdirs.user_data_path("cb2-assist", appauthor=False), cache_folder()
    yield examine(
        "data folder",
        lambda: check_folder(
            "data folder", data, "Name a place for labels: --labels sqlite:///PATH."
        ),
    )
    yield examine(
        "cache folder",
        lambda: check_folder("cache folder", cache, f"Set {CACHE_VARIABLE} to another folder."),
    )
    yield examine("browser", check_browser)
    path = None
    if patient.labels and is_team_url(patient.labels):
        yield examine("labels", partial(check_team, patient.labels))
    elif patient.labels or patient.dataset or patient.dataset_file:
        try:
            path = _label_file(patient)
        except Exception as e:  # noqa: BLE001 - the other places are looked at all the same
            yield broken("labels", e)
    if path is not None:
        yield examine("labels", partial(check_labels, path))
    yield examine("port", partial(_port, path))
    yield examine("demo", lambda: check_demo(cache))


def _label_file(patient: Patient) -> Path | None:
    """Of the dataset; None when the dataset has no name to go by."""
    from cb2_assist.labels.store import default_labels_url, label_file

    if patient.labels:
        return label_file(patient.labels)
    name = patient.dataset
    if patient.dataset_file is not None:
        from cb2_assist.datasets.dataset_file import read_dataset_file

        try:
            name = read_dataset_file(patient.dataset_file).name
        except AssistError:  # told by the check of the dataset
            return None
    return label_file(default_labels_url(name)) if name else None


def _port(labels: Path | None) -> Check:
    from cb2_assist.labels.lock import holder_of
    from cb2_assist.review.state import last_port

    if labels is None:
        return check_port(None, None)
    last = last_port(labels.with_name(labels.name + ".session.json"))
    holder = holder_of(labels) or {}
    return check_port(last, holder.get("url"))


def _dataset(patient: Patient) -> Iterator[Check]:
    if patient.dataset is None and patient.dataset_file is None:
        return
    file = patient.dataset_file
    if patient.dataset == "demo":
        from cb2_assist.datasets.demo import unpacked_already
        from cb2_assist.resources import cache_folder

        try:
            file = unpacked_already(cache_folder())
        except AssistError:
            return  # told by the check of the demo
        if file is None:
            return
    if file is None:
        yield from _by_name(str(patient.dataset))
        return
    yield from _parts(file)


def _by_name(name: str) -> Iterator[Check]:
    from cb2_assist.datasets.catalogue import PUBLIC, Graph, flat_file
    from cb2_assist.datasets.health import parts_of

    entry = next((e for e in PUBLIC if e.name == name), None)
    if entry is None:
        yield examine("dataset", lambda: _open(name))
        return
    yield ok("dataset", f"{entry.name} ({entry.specimen.species}, {entry.specimen.licence})")
    if isinstance(entry.where, Graph):
        from cb2_assist.datasets.cave.checks import parts_of_graph
        from cb2_assist.datasets.cave.opening import stack_of_entry

        parts = parts_of_graph(stack_of_entry(entry))
    else:
        parts = parts_of(flat_file(entry))
    for part, look in parts:
        yield examine(part, partial(_part, part, look))


def _parts(file: Path) -> Iterator[Check]:
    from cb2_assist.datasets.dataset_file import read_dataset_file
    from cb2_assist.datasets.health import parts_of

    try:
        dataset = read_dataset_file(file)
    except Exception as e:  # noqa: BLE001 - it is told, whatever it is
        yield broken("dataset", e)
        return
    yield ok("dataset", f"{dataset.name} ({dataset.species}, {dataset.licence}), {file}")
    parts = parts_of(dataset)
    if dataset.cave is not None:
        from cb2_assist.datasets.cave.checks import parts_of_graph
        from cb2_assist.datasets.cave.opening import stack_of_file

        parts = parts_of_graph(stack_of_file(dataset, file))
    for name, look in parts:
        yield examine(name, partial(_part, name, look))


def _part(name: str, look: Callable[[], str]) -> Check:
    return ok(name, look())


def _open(name: str) -> Check:
    """A dataset that is more than a file here: open it and read one voxel."""
    from cb2_assist.core.geometry import PointNm
    from cb2_assist.datasets.registry import open_dataset

    source = open_dataset(name, None)
    try:
        b, r = source.bounds, source.resolution
        middle = [(lo + hi) / 2 * s for lo, hi, s in zip(b.lo, b.hi, r, strict=True)]
        segment = source.segment_at(PointNm.of(middle))
        return ok("dataset", f"{source.info.name}, segment {segment} in its middle")
    finally:
        source.close()
