"""`pretrain`: an image encoder from data without truth."""

from __future__ import annotations

from pathlib import Path

import click

from cb2_assist.cli.options import amp_option, device_option, minutes_option, px_option
from cb2_assist.cli.output import tell


@click.command()
@click.option(
    "--dataset-file",
    "dataset_files",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Dataset on this machine; give it again for more. Truth is not read.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--below-z", type=click.IntRange(1), help="Nothing beyond this voxel plane is read.")
@click.option(
    "--sites",
    type=click.IntRange(1),
    default=20_000,
    show_default=True,
    help="Places where two segments touch, of all datasets together; each pair is as likely.",
)
@click.option("--epochs", type=click.IntRange(1), default=20, show_default=True)
@click.option(
    "--encoder",
    default="vit_tiny_patch16_224",
    show_default=True,
    help="As for train: any plain vision transformer of timm.",
)
@px_option
@click.option(
    "--batch", type=click.IntRange(1), default=64, show_default=True, help="Sites a step."
)
@click.option(
    "--mask",
    type=float,
    default=0.75,
    show_default=True,
    help="Share of the patches of each image that is hidden.",
)
@click.option("--lr", type=float, default=1e-3, show_default=True, help="Peak of the rate.")
@amp_option
@click.option("--seed", type=int, default=0, show_default=True)
@minutes_option
@device_option
def pretrain(
    dataset_files: tuple[Path, ...],
    out: Path,
    below_z: int | None,
    sites: int,
    epochs: int,
    encoder: str,
    px: int,
    batch: int,
    mask: float,
    lr: float,
    amp: str,
    seed: int,
    minutes: float,
    device: str,
) -> None:
    """Pretrain an image encoder on datasets without truth, for train --init-from OUT.

    Of a geometry and an EM view of a site most patches are hidden, and the network learns to say
    what they hold from the others. The same command again goes on where it stopped.

    --out gets the rendered views, a checkpoint, history.json with the loss and its curve as SVG,
    beside the mean of what is shown on sites that are held out by space, and at the end
    encoder.safetensors and pretrain.json with the data's licences.
    """
    from cb2_assist.learning.pretrain import PretrainPlan, run_pretraining
    from cb2_assist.learning.pretrain_trainer import PretrainRecipe
    from cb2_assist.model.card import ViewSpec
    from cb2_assist.model.masked import MaskedSpec

    folder = run_pretraining(
        PretrainPlan(
            datasets=dataset_files,
            out=out,
            below_z=below_z,
            sites=sites,
            device=device,
            minutes=minutes,
            recipe=PretrainRecipe(seed=seed, epochs=epochs, batch=batch, lr=lr, mask=mask, amp=amp),
            views=ViewSpec(image_px=px),
            network=MaskedSpec(encoder=encoder, image_px=px),
        ),
        tell,
    )
    if folder:
        click.echo(str(folder))


COMMANDS = (pretrain,)
