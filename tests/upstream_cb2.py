"""ConnectomeBench2's network and file, said again from its description; none of our code.

arXiv 2606.21116: a torchvision ViT (pre-norm blocks, exact GELU, LayerNorm eps 1e-6, heads of 64)
on a 7-channel patch embedding, a second one for EM, heads of two logits on the class token, a mask
decoder on the patch tokens. Module names give the keys of their state dict.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

TASKS = {"join": "cls_endpoint", "cut": "cls_junction", "synapse": "cls_synapse"}


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(width, width // 64, batch_first=True)
        self.ln_2 = nn.LayerNorm(width, eps=1e-6)
        hidden = nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0.1)
        self.mlp = nn.Sequential(*hidden, nn.Linear(4 * width, width), nn.Dropout(0.1))

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Backbone(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.class_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.conv_proj = nn.Conv2d(7, width, 16, 16)
        self.encoder = nn.Module()
        self.encoder.pos_embedding = nn.Parameter(torch.randn(1, 197, width) * 0.02)
        blocks = [(f"encoder_layer_{i}", Block(width)) for i in range(depth)]
        self.encoder.layers = nn.Sequential(OrderedDict(blocks))
        self.encoder.ln = nn.LayerNorm(width, eps=1e-6)

    def forward(self, images, patches):
        x = patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1)
        return self.encoder.ln(self.encoder.layers(x + self.encoder.pos_embedding))


class Upstream(nn.Module):
    def __init__(self, width=192, depth=12):
        super().__init__()
        self.backbone = Backbone(width, depth)
        self.conv_proj_em = nn.Conv2d(3, width, 16, 16)
        for name in TASKS.values():
            setattr(self, name, nn.Sequential(nn.Dropout(0.1), nn.Linear(width, 2)))
        self.mask_head = nn.Module()
        self.mask_head.backbone = self.backbone
        self.mask_head.view_emb = nn.Embedding(3, width)
        up = lambda a, b: nn.ConvTranspose2d(a, b, 2, 2)  # noqa: E731
        norm = lambda n: (nn.BatchNorm2d(n), nn.ReLU())  # noqa: E731
        self.mask_head.decoder = nn.Sequential(
            up(width, 256), *norm(256), up(256, 128), *norm(128), up(128, 64), *norm(64), up(64, 2)
        )

    def tokens(self, images):
        """(n, 197, width) of 7-channel geometry or 3-channel EM images."""
        is_geometry = images.shape[1] == 7
        return self.backbone(images, self.backbone.conv_proj if is_geometry else self.conv_proj_em)

    def logits(self, images):
        """By task, of both classes, each image for itself."""
        cls = self.tokens(images)[:, 0]
        return {task: getattr(self, name)(cls) for task, name in TASKS.items()}

    def probability(self, images, task):
        return self.logits(images)[task].softmax(1)[:, 1]

    def masks(self, geometry):
        patches = self.tokens(geometry)[:, 1:]
        grid = patches.transpose(1, 2).unflatten(2, (14, 14))
        return self.mask_head.decoder(grid)


def upstream(seed=0, width=192, depth=12):
    """Random weights with answers that differ from image to image, in evaluation mode."""
    torch.manual_seed(seed)
    network = Upstream(width, depth)
    for name in TASKS.values():
        nn.init.normal_(getattr(network, name)[1].weight, std=2 / width**0.5)
    for layer in network.mask_head.decoder:
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 2)
            layer.num_batches_tracked.fill_(7)
    return network.eval()


CFG = {"backbone": "vit_b_16", "dropout": 0.1, "task_weights": (1.0, 1.0, 1.0, 0.25), "init": None}


def save(network, path: Path, **changes) -> Path:
    """As their trainer writes a file; `changes` replace entries, or with None leave them out."""
    whole = {
        "model": network.state_dict(),
        "cfg": vars(SimpleNamespace(**CFG)),
        "epoch": 9,
        "metrics": {"val/endpoint_bacc": 0.91, "val/mask_miou": float("nan")},
    } | changes
    torch.save({k: v for k, v in whole.items() if v is not None}, path)
    return path
