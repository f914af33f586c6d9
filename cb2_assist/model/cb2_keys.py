"""Names of ConnectomeBench2's weights and where each goes in `cb2_network.Cb2ViT`.

Their file is the training state dict of a torchvision ViT and its heads (arXiv 2606.21116,
github.com/timfarkas/ConnectomeBench2, src/neurips_training/model.py). No tensor is transposed:
torchvision and timm order rows, heads and positions alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from cb2_assist.core.errors import ModelError
from cb2_assist.core.records import Kind

ENCODERS = {768: "vit_base_patch16_224", 1024: "vit_large_patch16_224"}
"""timm's name of their ``vit_b_16`` and ``vit_l_16``, by width. Their ``vit_h_14`` cannot run."""
WIDTH_OF = "backbone.class_token"

_WRAPPER = "module."  # torch's DistributedDataParallel
_COPY = "mask_head."
_UNUSED = "mask_head.view_emb.weight"
_OLD = (("mlp.linear_1.", "mlp.0."), ("mlp.linear_2.", "mlp.3."))  # torchvision before 0.14
_OUTSIDE = {
    "encoder.cls_token": "backbone.class_token",
    "encoder.pos_embed": "backbone.encoder.pos_embedding",
    "encoder.patch_embed.proj": "backbone.conv_proj",
    "encoder.norm": "backbone.encoder.ln",
    "em_patches": "conv_proj_em",
    f"heads.{Kind.JOIN.value}": "cls_endpoint.1",
    f"heads.{Kind.CUT.value}": "cls_junction.1",
    "heads.synapse": "cls_synapse.1",
}
_BLOCK = {
    "norm1.weight": "ln_1.weight",
    "norm1.bias": "ln_1.bias",
    "attn.qkv.weight": "self_attention.in_proj_weight",
    "attn.qkv.bias": "self_attention.in_proj_bias",
    "attn.proj.weight": "self_attention.out_proj.weight",
    "attn.proj.bias": "self_attention.out_proj.bias",
    "norm2.weight": "ln_2.weight",
    "norm2.bias": "ln_2.bias",
    "mlp.fc1.weight": "mlp.0.weight",
    "mlp.fc1.bias": "mlp.0.bias",
    "mlp.fc2.weight": "mlp.3.weight",
    "mlp.fc2.bias": "mlp.3.bias",
}


def encoder_of(state: Mapping[str, Tensor]) -> str:
    """Name in timm of the encoder, from the width of the class token.

    Raises:
        ModelError: There is no class token, or none of a known width.
    """
    token = state.get(WIDTH_OF)
    if token is None:
        raise ModelError(
            f"There is no {WIDTH_OF!r} among its {len(state)} tensors, which begin with "
            f"{_some(state)}. ConnectomeBench2's trainer saves a whole network, not a part of it."
        )
    width = int(token.shape[-1]) if token.ndim else 0
    if width not in ENCODERS:
        raise ModelError(
            f"Its class token is {width} wide. Known: "
            f"{', '.join(f'{w} ({name})' for w, name in ENCODERS.items())}."
        )
    return ENCODERS[width]


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their present names: without the wrapper of parallel training, not torchvision's old ones."""
    wrapped = bool(state) and all(k.startswith(_WRAPPER) for k in state)
    out = {}
    for key, value in state.items():
        name = key.removeprefix(_WRAPPER) if wrapped else key
        for old, new in _OLD:
            name = name.replace(old, new)
        out[name] = value
    return out


def to_network(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their weights under our names, float32.

    The copies of the backbone under ``mask_head.`` and the view embedding, which their network
    keeps and does not use, may be there or not; where they are, they must be what they are copies
    of.

    Args:
        state: Theirs, with `plain_names`.
        wanted: State dict of a `Cb2ViT`, for names, shapes and kinds of number; may have no memory.

    Raises:
        ModelError: A tensor is missing, unknown, of another shape, not of numbers that can be
            used, or a copy that differs. The message names the first few.
    """
    theirs = {ours: _their_name(ours) for ours in wanted}
    copies = {_COPY + k: k for k in theirs.values() if k.startswith("backbone.")}
    _refuse("lacks", sorted(set(theirs.values()) - set(state)))
    _refuse("has unknown", sorted(set(state) - set(theirs.values()) - set(copies) - {_UNUSED}))
    shapes = [
        f"{name} is {_size(state[name])}, not {_size(wanted[ours])}"
        for ours, name in theirs.items()
        if state[name].shape != wanted[ours].shape
    ]
    _refuse("has other shapes in", shapes)
    _refuse(
        "has something else than finite floating-point numbers in",
        [n for ours, n in theirs.items() if not _is_usable(state[n], wanted[ours])],
    )
    _refuse(
        "has two versions that differ of",
        [k for copy, k in copies.items() if copy in state and not _same(state[copy], state[k])],
    )
    return {
        ours: state[name].to(wanted[ours].dtype).contiguous().clone()
        for ours, name in theirs.items()
    }


def _their_name(ours: str) -> str:
    if ours.startswith("encoder.blocks."):
        number, _, rest = ours.removeprefix("encoder.blocks.").partition(".")
        return f"backbone.encoder.layers.encoder_layer_{number}.{_BLOCK[rest]}"
    if ours in _OUTSIDE:
        return _OUTSIDE[ours]
    if ours.startswith("mask."):
        return "mask_head.decoder." + ours.removeprefix("mask.")
    module, _, leaf = ours.rpartition(".")
    return f"{_OUTSIDE[module]}.{leaf}"


def _is_usable(value: Tensor, wanted: Tensor) -> bool:
    if value.layout is not torch.strided or value.device.type != "cpu":
        return False
    if not wanted.is_floating_point():  # how many batches a norm has seen
        return not value.is_floating_point() and not value.is_complex()
    return value.is_floating_point() and bool(torch.isfinite(value).all())


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.layout is b.layout and bool(torch.equal(a, b))


def _refuse(what: str, names: list[str]) -> None:
    if names:
        raise ModelError(f"It {what} {len(names)} of its tensors: {_some(names)}.")


def _some(names: Iterable[str], most: int = 3) -> str:
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def _size(value: Tensor) -> str:
    return " x ".join(str(n) for n in value.shape) or "a single number"
