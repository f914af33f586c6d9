"""`calibrate`: a dataset's base rates and confidence from its labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cb2_assist.cli.options import chosen, dataset_options, json_option, labels_option, model_option
from cb2_assist.core.errors import AssistError, UsageError

if TYPE_CHECKING:
    from cb2_assist.labels.store import LabelStore


@click.command()
@dataset_options
@labels_option
@model_option
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--reset", is_flag=True, help="Go back to the model's own numbers.")
@json_option
def calibrate(
    dataset: str | None,
    dataset_file: Path | None,
    labels: str | None,
    model: Path | None,
    dry_run: bool,
    reset: bool,
    as_json: bool,
) -> None:
    """Fit base rates and confidence to the labels of a dataset.

    Only sites that the queue drew count (q on the page): what was asked at the cursor is no sample.
    The score never changes. A running server takes the result up on request: on its page, under the
    model's name, "take up the new calibration".
    """
    from cb2_assist.app import dataset_name, saved_state_file

    if reset and (dry_run or labels or model):
        raise UsageError("--reset takes the dataset alone: it forgets what calibrate has saved.")
    name = dataset_name(chosen(dataset, dataset_file))
    if reset:
        _reset(saved_state_file(name), name, as_json)
        return
    document = _calibrate(name, labels, model, write=not dry_run)
    click.echo(json.dumps(document, allow_nan=False) if as_json else "\n".join(_lines(document)))
    if not any(k["base_rate"] for k in document["kinds"].values()):
        why = "; ".join(f"{k}s: {v['reason']}" for k, v in document["kinds"].items())
        raise AssistError(
            f"Not enough evidence yet, so {name} keeps its numbers. {why}. Press q on the page and "
            "answer what the queue brings up, then run calibrate again."
        )


def _calibrate(
    dataset: str, labels: str | None, model: Path | None, *, write: bool
) -> dict[str, Any]:
    """Fit a dataset's saved state to its labels, and keep it; the document of ``--json``."""
    from cb2_assist.app import saved_state_file
    from cb2_assist.labels.store import default_labels_url, open_store
    from cb2_assist.learning.recalibrate import Model, recalibrate
    from cb2_assist.model.card import check_card
    from cb2_assist.suggestions.base_rate import read_state, write_state
    from cb2_assist.suggestions.calibration import calibrator_from_card

    path = saved_state_file(dataset)
    before = read_state(path)
    with open_store(labels or default_labels_url(dataset), read_only=True) as store:
        if model is None:
            model = _serving(dataset, store)
        loaded = check_card(model)
        own = Model(loaded.sha256, loaded.card, calibrator_from_card(loaded.card))
        state, document = recalibrate(store, dataset, own, before)
    written = write and state is not before
    if written:
        write_state(path, state)
    return {**document, "version": state.version, "written": written}


def _reset(path: Path, name: str, as_json: bool) -> None:
    try:
        path.unlink()
        was = True
    except FileNotFoundError:
        was = False
    except OSError as e:
        raise AssistError(f"{path} cannot be deleted: {e.strerror}. Delete it by hand.") from e
    if as_json:
        click.echo(json.dumps({"dataset": name, "reset": was}))
    else:
        had = "is forgotten" if was else "was none"
        click.echo(f"{name}: the saved calibration {had}; the model's own numbers are in force")


def _serving(dataset: str, store: LabelStore) -> Path:
    """The shipped model of a dataset: by its voxels, or else what most of its labels were given to.

    Of a dataset file only the name is known here.
    """
    from cb2_assist.model.shipped import shipped_for

    decisions = (label.event.decision for label in store.labels(dataset=dataset))
    return shipped_for(dataset, (d.model_sha256 for d in decisions if d is not None))


def _lines(document: dict[str, Any]) -> list[str]:
    out = [f"{document['dataset']}, labels {document['labels']}"]
    for kind, k in document["kinds"].items():
        out.append(
            f"{kind}s: {k['n']} drawn labels, {k['n_random']} of them at random, worth "
            f"{k['n_effective']:.0f} equal ones ({k['n_effective_rarer']:.0f} of the rarer answer)"
        )
        out += [f"  left out: {n} {why}" for why, n in k["left_out"].items()]
        rate = k["base_rate"]
        if rate is None:
            out.append(f"  nothing changes: {k['reason']}")
        else:
            low, high = rate["interval"]
            out.append(
                f"  base rate {k['default_rate']:.1%} -> {rate['value']:.1%}, 95 % "
                f"[{low:.1%}, {high:.1%}], {rate['source']} ({rate['n']})"
            )
        out += [line for m in k["maps"] for line in _map_lines(m)]
        out += [
            f"  precision {d['precision']:.0%}: "
            + (d["score"] if isinstance(d["score"], str) else f"from score {d['score']} on")
            for d in k["precision"]["dial"]
        ]
    was, now = document["calibrator"]["before"], document["calibrator"]["after"]
    state = f"saved as version {document['version']}" if document["written"] else "nothing saved"
    out.append(f"calibrator {was} -> {now}, {state}")
    return out


def _map_lines(m: dict[str, Any]) -> list[str]:
    names = (("ece15", "ECE-15"), ("ece15_debiased", "without chance"), ("log_loss", "log loss"))
    figures = ", ".join(f"{w} {m['before'][f]:.3f} -> {m['after'][f]:.3f}" for f, w in names)
    most = m["after"]["ece15_if_perfect_q95"]
    used = "" if m["is_better"] else ", not used"
    return [
        f"  {m['family']} map of {m['n']} labels{used}; held out: {figures}",
        f"  a perfectly calibrated model would show an ECE-15 up to {most:.3f}",
    ]


COMMANDS = (calibrate,)
