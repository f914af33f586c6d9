"""What lies inside the demo's neurites: mitochondria and synaptic vesicles."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from cb2_assist.datasets.demo_noise import between, new_state, uniform, unit_vector
from cb2_assist.datasets.demo_tissue import AXON, DENDRITE, SPINE, Tissue

F64 = NDArray[np.float64]

MITO_FIELDS = 12
"""a(3), ra, b(3), rb, label, direction across the cristae (3)."""

VESICLE_RADIUS = 21.0
"""Outer radius, nm; synaptic vesicles are about 40 nm across."""


def _runs(capsules: F64) -> list[tuple[int, int]]:
    """``(first, past the last)`` of each unbroken path of capsules."""
    joined = np.all(capsules[1:, 0:3] == capsules[:-1, 4:7], axis=1)
    joined &= capsules[1:, 8] == capsules[:-1, 8]
    edges = [0, *(np.flatnonzero(~joined) + 1).tolist(), len(capsules)]
    return list(itertools.pairwise(edges))


def _mito(part: F64, offset: tuple[float, float], radius: float, across: F64) -> F64:
    """A mitochondrion along some capsules, off their axis by ``offset`` in their frame."""
    shift = part[:, 10:13] * offset[0] + part[:, 13:16] * offset[1]
    out = np.empty((len(part), MITO_FIELDS))
    out[:, 0:3] = part[:, 0:3] + shift
    out[:, 4:7] = part[:, 4:7] + shift
    out[1:, 0:3] = out[:-1, 4:7]
    out[:, 3] = out[:, 7] = radius
    out[:, 8] = part[:, 8]
    out[:, 9:12] = across
    return out


def mitochondria(tissue: Tissue, seed: int) -> F64:
    """Mitochondria of the whole tissue, ``(n, MITO_FIELDS)``.

    Dendrites hold long ones, one after another; axons hold one in about every third swelling.
    """
    s = new_state(seed, 2)
    found: list[F64] = []
    for lo, hi in _runs(tissue.capsules):
        part = tissue.capsules[lo:hi]
        kind = int(part[0, 9])
        if kind == SPINE:
            continue
        i = int(between(s, 0.0, 10.0))
        while i < len(part):
            r = part[i, 3]
            if (kind == AXON and r < 85.0) or r < 75.0:
                i += 1
                continue
            long = between(s, 8.0, 34.0) if kind == DENDRITE else between(s, 5.0, 16.0)
            end = min(len(part), i + int(long))
            body = part[i:end]
            wide = np.median(body[:, 3]) if kind == DENDRITE else np.min(body[:, 3])
            radius = min(between(s, 85.0, 150.0), 0.66 * max(float(wide), 80.0))
            if uniform(s) < (0.75 if kind == DENDRITE else 0.35):
                free = max(0.0, 0.8 * float(wide) - radius - 20.0)
                u, v, _ = unit_vector(s)
                x, y, z = unit_vector(s)
                along = (body[-1, 4:7] - body[0, 0:3]) / (60.0 * len(body))
                found.append(
                    _mito(body, (u * free, v * free), radius, along + 0.35 * np.array([x, y, z]))
                )
            i = end + int(between(s, 4.0, 30.0))
    return np.concatenate(found) if found else np.empty((0, MITO_FIELDS))


def _apart(p: tuple[float, float, float], q: tuple[float, float, float]) -> bool:
    """Whether two vesicles do not touch."""
    return (p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2 + (p[2] - q[2]) ** 2 > 1600.0


def vesicles(tissue: Tissue, seed: int) -> F64:
    """Synaptic vesicles ``(n, 4)``: centre and label; a cloud in each bouton, near its synapse."""
    s = new_state(seed, 3)
    by_label = {int(row[7]): row for row in tissue.synapses}
    out: list[tuple[float, float, float, float]] = []
    for x, y, z, r, label in tissue.boutons.tolist():
        cx, cy, cz, spread, density = x, y, z, r * 0.95, between(s, 1.5, 5.0)
        synapse = by_label.get(int(label))
        if synapse is not None:
            d = synapse[:3] - np.array([x, y, z])
            if d[0] ** 2 + d[1] ** 2 + d[2] ** 2 < (2.0 * r) ** 2:
                cx, cy, cz = (np.array([x, y, z]) + 0.35 * d).tolist()
                density = between(s, 4.0, 8.0)
        n = int(density * 1e-6 * 4.19 * spread**3)
        cloud: list[tuple[float, float, float]] = []
        for _ in range(4 * n):
            u = unit_vector(s)
            q = spread * max(uniform(s), uniform(s), uniform(s))
            p = (cx + u[0] * q, cy + u[1] * q, cz + u[2] * q)
            if all(_apart(p, other) for other in cloud):
                cloud.append(p)
            if len(cloud) >= n:
                break
        out += [(*p, label) for p in cloud]
    return np.array(out).reshape(-1, 4)
