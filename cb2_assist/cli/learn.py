"""`train`, `evaluate`, `import-checkpoint`: models, and how well they do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cb2_assist.cli.options import (
    Triple,
    amp_option,
    backend_option,
    device_option,
    minutes_option,
    px_option,
)
from cb2_assist.cli.output import show, tell
from cb2_assist.core.errors import UsageError


@click.command()
@click.option(
    "--dataset-file",
    "dataset_files",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Dataset with truth; give it again for more. The first also gives synthetic cuts.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--name", default="cb2-vit-tiny", show_default=True, help="On the card.")
@click.option(
    "--below-z",
    type=click.IntRange(1),
    required=True,
    help="Learn from contacts below this voxel plane; nothing beyond it is read.",
)
@click.option("--val-z", metavar="LO:HI", help="Contacts that calibrate and are watched.")
@click.option(
    "--cross-fit",
    "folds",
    type=click.IntRange(3, 20),
    help="Calibrate without --val-z: as many slabs of the training part, each judged by a network "
    "that learns from the others. Takes as many times longer.",
)
@click.option(
    "--voxel-nm",
    type=Triple(),
    help="X,Y,Z. Learn from the datasets as a microscope with such voxels would give them, e.g. "
    "8,8,40 for thick sections. Planes stay those of the datasets.",
)
@click.option(
    "--calibration-from",
    type=click.Path(path_type=Path),
    help="Take calibration and base rates from this model, for a final fit on more data.",
)
@click.option(
    "--init-from",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Start from the encoder that pretrain has left in DIR, of the same --encoder and --px.",
)
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True)
@click.option(
    "--encoder",
    default="vit_tiny_patch16_224",
    show_default=True,
    help="Any plain vision transformer of timm, e.g. vit_base_patch16_224.",
)
@px_option
@click.option(
    "--lr",
    type=float,
    default=5e-4,
    show_default=True,
    help="Peak of the encoder; heads: twice.",
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Decisions a step, of all processes together.",
)
@click.option(
    "--micro-batch",
    type=click.IntRange(0),
    default=0,
    help="Decisions at once on a device; gradients add up to the batch. 0: the whole batch.",
)
@amp_option
@click.option(
    "--layer-decay",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Rate of an encoder block over that of the next, e.g. 0.75 for large encoders.",
)
@click.option(
    "--quota",
    "quotas",
    multiple=True,
    metavar="TYPE=SHARE",
    help="Least share of a sample type in the weight of its task's negatives, e.g. parallel=0.1; "
    "again for more. Joins: touching_pair, parallel, crossing, broad, synapse. Cuts: "
    "synthetic_merge, whole_segment.",
)
@click.option(
    "--synapses",
    type=click.Path(path_type=Path),
    multiple=True,
    help="CSV pre,post,x_nm,y_nm,z_nm of each dataset, in their order: contacts there are of type "
    "synapse.",
)
@minutes_option
@click.option("--merges", type=click.IntRange(1), default=500, show_default=True, help="For cuts.")
@click.option("--seed", type=int, default=0, show_default=True)
@device_option
def train(
    dataset_files: tuple[Path, ...],
    out: Path,
    name: str,
    below_z: int,
    val_z: str | None,
    folds: int | None,
    voxel_nm: tuple[float, float, float] | None,
    calibration_from: Path | None,
    init_from: Path | None,
    epochs: int,
    encoder: str,
    px: int,
    lr: float,
    batch: int,
    micro_batch: int,
    amp: str,
    layer_decay: float,
    quotas: tuple[str, ...],
    synapses: tuple[Path, ...],
    minutes: float,
    merges: int,
    seed: int,
    device: str,
) -> None:
    """Train a model on datasets with truth. The same command again goes on where it stopped.

    --out gets the rendered examples, a checkpoint, history.json with loss and validation, their
    curves as SVG, and at the end the model folder. Validation stands at equal priors, at the
    natural one, and by type of contact.

    On several GPUs: torchrun --nproc-per-node N -m cb2_assist train ... with the same options.
    """
    from cb2_assist.learning.recipe import Recipe
    from cb2_assist.learning.run import run_training
    from cb2_assist.learning.training_plan import Plan
    from cb2_assist.model.card import ViewSpec
    from cb2_assist.model.network import NetworkSpec
    from cb2_assist.views.surroundings import CONTACT_NAMES

    recipe = Recipe(
        seed=seed,
        epochs=epochs,
        batch=batch,
        lr=lr,
        lr_heads=2 * lr,
        micro_batch=micro_batch,
        layer_decay=layer_decay,
        amp=amp,
        quotas=dict(_quota(text) for text in quotas),
    )
    folder = run_training(
        Plan(
            datasets=dataset_files,
            out=out,
            name=name,
            below_z=below_z,
            validation_z=slab(val_z, "--val-z"),
            merges=merges,
            folds=folds or 0,
            voxel_nm=voxel_nm,
            calibration_from=calibration_from,
            init_from=init_from,
            device=device,
            minutes=minutes,
            recipe=recipe,
            views=ViewSpec(image_px=px),
            network=NetworkSpec(encoder=encoder, image_px=px, contact_measures=len(CONTACT_NAMES)),
            synapses=synapses,
        ),
        tell,
    )
    if folder:
        click.echo(str(folder))


def _quota(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    try:
        return name.strip(), float(share)
    except ValueError:
        raise UsageError(f"--quota takes TYPE=SHARE, e.g. parallel=0.1, got {text!r}.") from None


def slab(text: str | None, option: str) -> tuple[int, int] | None:
    """Two voxel planes, LO:HI.

    Raises:
        UsageError: It is anything else.
    """
    if text is None:
        return None
    try:
        low, high = (int(v) for v in text.split(":"))
    except ValueError:
        low, high = 0, 0
    if not 0 <= low < high:
        raise UsageError(f"{option} takes two voxel planes LO:HI with LO < HI, got {text!r}.")
    return low, high


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="dataset.toml with truth, or parquet: a cb2-v1 export, ConnectomeBench2 v1 or v2.",
)
@click.option("--model", type=click.Path(path_type=Path), help="Default: the shipped one.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder for the results."
)
@click.option(
    "--compare",
    type=click.Path(path_type=Path),
    metavar="OTHER_MODEL",
    help="Another model, asked the same: McNemar's exact test and paired differences.",
)
@click.option(
    "--split",
    type=click.Choice(("train", "val", "test", "all")),
    help="Of parquet. Default: test where there is one, else all.",
)
@click.option(
    "--any-profile",
    is_flag=True,
    help="Of parquet: show views in another encoding than the model's card asks; results say so.",
)
@click.option("--from-z", type=click.IntRange(0), default=0, help="Only contacts at or above.")
@click.option(
    "--training",
    type=click.Path(path_type=Path),
    help="Dataset file that the model learnt from: trains the baseline beside it.",
)
@click.option("--below-z", type=click.IntRange(0), default=0, help="Training was below this plane.")
@click.option("--merges", type=click.IntRange(0), default=0, help="Synthetic merges for cuts.")
@device_option
@backend_option
@click.option(
    "--draws",
    type=click.IntRange(20),
    default=1000,
    show_default=True,
    help="Resamples behind the intervals.",
)
@click.option("--json", "as_json", is_flag=True, help="metrics.json on stdout, too.")
def evaluate(
    data: Path,
    model: Path | None,
    out: Path,
    compare: Path | None,
    split: str | None,
    any_profile: bool,
    from_z: int,
    training: Path | None,
    below_z: int,
    merges: int,
    device: str,
    backend: str,
    draws: int,
    as_json: bool,
) -> None:
    """Measure a model on decisions with truth.

    They are the touching pairs of a dataset with truth, or rows of parquet with labels: our cb2-v1
    export, or a download of ConnectomeBench2 (v1, tag v1-may06, or v2). A decision is one operation
    with all its views. Rows without a usable answer are left out and counted; a decision whose
    views are damaged counts as wrong. Intervals resample neurons or blocks, never pairs.

    --out gets metrics.json, report.md with tables, and plots (SVG): reliability, ROC, precision and
    recall.
    """
    from cb2_assist.learning.evaluate import Request, model_for
    from cb2_assist.learning.evaluate import evaluate as measure

    if (training is None) != (below_z == 0):
        raise UsageError("--training and --below-z go together.")
    result = measure(
        Request(
            data=data,
            model=model or model_for(data),
            out=out,
            from_z=from_z,
            training=training,
            below_z=below_z,
            merges=merges,
            device=device,
            backend=backend,
            split=split,
            any_profile=any_profile,
            draws=draws,
            compare=compare,
        ),
        tell,
    )
    show(result, _lines(result), as_json=as_json)


def _lines(result: dict[str, Any]) -> Iterator[str]:
    from cb2_assist.learning.evaluation_report import figure

    for task, t in result["tasks"].items():
        sets = t.get("subsets") or {"all": {"model": t}}
        for name, who in sets.items():
            for what, f in who.items():
                row = ", ".join(
                    f"{k} {figure(f[k])}" for k in ("balanced_accuracy", "auroc", "ece15")
                )
                yield f"{task}, {name}, {what}: n {f['n']}, {row}"
    for task, t in result.get("compare", {}).get("tasks", {}).items():
        if t["n"]:
            test, d = t["mcnemar"], t["difference"]["balanced_accuracy"]
            yield (
                f"{task}, against {result['compare']['second']['name']}: n {t['n']}, "
                f"balanced_accuracy difference {figure(d)}, alone right "
                f"{test['only_first_right']} and {test['only_second_right']}, McNemar p "
                f"{test['p']:.3g}"
            )
    for title in ("skipped", "unscored", "mismatches"):
        for why, n in result.get(title, {}).items():
            yield f"{title}: {n}: {why}"


@click.command("import-checkpoint")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.pt")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make.")
@click.option("--name", default="", help="On the card. Default: the file's name.")
@click.option(
    "--species",
    type=click.Choice(["mouse", "fly", "human", "zebrafish"]),
    multiple=True,
    help="What it was trained on; give it again for more.",
)
@click.option("--licence", default="", help="Of the weights. Default: not stated.")
@click.option("--citation", default="", help="What a user of them must cite. Default: not stated.")
@click.option(
    "--extent-nm",
    type=click.FloatRange(0, min_open=True),
    help="Half width of geometry views. Default: the middle of theirs for the dataset's species.",
)
def import_checkpoint(
    file: Path,
    out: Path,
    name: str,
    species: tuple[str, ...],
    licence: str,
    citation: str,
    extent_nm: float | None,
) -> None:
    """Make a model for --model from a ConnectomeBench2 checkpoint.

    FILE.pt is what their trainer saves, *_best.pt or *_last.pt. Every weight must be there and
    have its shape; nothing in the file is run. The model decides as theirs does, by the mean over
    its views. It is not calibrated, and the page says so in place of its confidence.
    """
    from cb2_assist.model.cb2_import import Provenance
    from cb2_assist.model.cb2_import import import_checkpoint as make

    card = make(file, out, Provenance(name, species, licence, citation, extent_nm))
    click.echo(str(out))
    stated = card["data"][0]
    click.echo(
        f"cb2-assist: {card['name']}, {card['network']['encoder']}, "
        f"{card['weights']['bytes'] / 1e6:.0f} MB, not calibrated; licence: {stated['licence']}. "
        f"Open it with cb2-assist --dataset demo --model {out}",
        err=True,
    )


COMMANDS = (train, evaluate, import_checkpoint)
