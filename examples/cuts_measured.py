"""How well cuts are judged: synthetic ones held out by space, the real ones, and their masks.

    python examples/cuts_measured.py DATA OUT [--part synthetic real mask] [--final] [--model DIR]
                                     [--run DIR]

DATA holds fib25-ws and fib25-ffn as `cb2-assist import-volume` makes them
(`models/cb2-vit-tiny/recipe.toml` says from what). OUT keeps what was measured of each site, one
JSON file a part and `table.md`; what is there is not made again, so it can be stopped at any time.
One core: measuring 10 minutes, fitting 3, the model's own answers 4.

- synthetic: neighbours of different truth declared one segment, against necks within true bodies.
  Learnt from FIB-25 flood-filling below z 125; what is chosen is chosen on z 140 to 165. With
  ``--final`` also the test part, watershed z >= 185: the sites of `evaluate --merges 150`.
- real: every false merge of both segmentations, judged by models that learnt from synthetic cuts 20
  sections and more away from its slab; beside them the sites proposed in clean segments. With
  --run, the folder of a `train --cross-fit` on both, also by its networks without each slab.
- mask: which side of a cut each pixel and each voxel is on.

Intervals resample truth bodies, those of shares are exact binomial ones.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from torch.nn.functional import interpolate

from cb2_assist.candidates.cuts import cuts
from cb2_assist.candidates.finder import RADIUS_NM, cutout_half_width_nm
from cb2_assist.core.channels import GeometryChannel
from cb2_assist.core.errors import AssistError
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel
from cb2_assist.core.records import Kind, SegmentId, Site
from cb2_assist.datasets.errors_count import count_errors
from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.datasets.source import EmStatistics
from cb2_assist.learning.augment import hide_sides
from cb2_assist.learning.checkpoints import CHECKPOINT, read_checkpoint, state_of
from cb2_assist.learning.cross_fit import slabs
from cb2_assist.learning.examples import (
    Example,
    Volume,
    crop_round,
    cut_answer,
    cut_examples,
    pure_bodies,
    touching_pairs,
)
from cb2_assist.learning.metrics import auroc, exact_interval, figures, mask_iou
from cb2_assist.learning.prepare import (
    grey_statistics,
    load_volume,
    open_part,
    volume_examples,
)
from cb2_assist.learning.recall import true_cuts
from cb2_assist.model.card import ViewSpec, reads_neighbours, reads_passage
from cb2_assist.model.checkpoint import load_model, save_model
from cb2_assist.model.inputs import network_input
from cb2_assist.model.network import MultiTaskViT, NetworkSpec
from cb2_assist.model.predictor import Predictor
from cb2_assist.suggestions.calibration import calibrator_from_card
from cb2_assist.views.features import FEATURE_NAMES
from cb2_assist.views.passage import PASSAGE_NAMES
from cb2_assist.views.site import SiteWindow, build_window
from cb2_assist.views.stack import render
from cb2_assist.views.surroundings import MEASURED_NAMES, site_vector

LEARN_Z, CHOOSE_Z, TEST_Z = 125, (140, 165), 185
MERGES = {"learn": 400, "choose": 250, "test": 150, "rest": 200}
SLAB, GAP = 50, 20
CLEAN = 60
"""Clean segments at which cuts are proposed."""
NEAR_NM = 200.0
SIMPLE = ("log_area", "thick_small", "thick_big", "log_small", "log_big", "log_ratio", "aligned",
          "opposed", "em_mean", "em_std")  # fmt: skip
"""What anybody would measure first of a neck: width, what lies on both sides, how dark it is."""

Floats = NDArray[np.float64]
Ask = Callable[[NDArray[np.float32]], Floats]
Painter = Callable[[SiteWindow, NDArray[np.uint8]], NDArray[np.float16]]


@dataclass(frozen=True, slots=True)
class Sites:
    """Measured cuts: `MEASURED_NAMES` of each, the answer, what intervals resample, and where."""

    x: NDArray[np.float32]
    answer: NDArray[np.bool_]
    group: NDArray[np.int64]
    z: NDArray[np.int64]

    def take(self, rows: NDArray[np.bool_]) -> Sites:
        """Some of them."""
        return Sites(*(getattr(self, k)[rows] for k in self.__slots__))


# --- models: each is fitted to sites and then asked about others


class Trees:
    """Boosted and extremely randomised trees, averaged; each answer has half of the weight."""

    def __init__(self, x: NDArray[Any], y: NDArray[np.bool_]) -> None:
        weight = np.where(y, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
        boosted = HistGradientBoostingClassifier(
            max_iter=200, learning_rate=0.05, max_leaf_nodes=15, min_samples_leaf=20,
            l2_regularization=5, max_features=0.25, random_state=0,
        )  # fmt: skip
        random = ExtraTreesClassifier(200, min_samples_leaf=2, max_features=0.3, random_state=0)
        self._models = [m.fit(x, y, sample_weight=weight) for m in (boosted, random)]

    def __call__(self, x: NDArray[Any]) -> Floats:
        """Probability of each row."""
        out: Floats = np.mean([m.predict_proba(x)[:, 1] for m in self._models], 0)
        return out


def trees_on(names: tuple[str, ...]) -> Callable[[Sites], Ask]:
    """Trees that see some of `MEASURED_NAMES`."""
    at = [MEASURED_NAMES.index(n) for n in names]

    def fit(sites: Sites) -> Ask:
        model = Trees(sites.x[:, at], sites.answer)
        return lambda x: model(x[:, at])

    return fit


MODELS: dict[str, Callable[[Sites], Ask]] = {
    f"trees, {len(SIMPLE)} of a neck": trees_on(SIMPLE),
    f"trees, {len(FEATURE_NAMES)} features": trees_on(FEATURE_NAMES),
    "trees, the way between the sides alone": trees_on(PASSAGE_NAMES),
    "trees, features and the way between the sides": trees_on(MEASURED_NAMES),
}


# --- sites


def measured(volume: Volume, examples: Iterator[tuple[Example, int]], path: Path) -> Sites:
    """What is measured of synthetic cuts, once."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        statistics, rows, x = grey_statistics(volume), [], []
        for example, z in examples:
            x.append(site_vector(example.window, statistics, neighbours=False, way_between=True))
            rows.append((example.answer, example.group, z))
            if len(rows) % 200 == 0:
                say(f"{path.stem}: {len(rows)} sites measured")
        answer, group, at = (np.array(c) for c in zip(*rows, strict=True))
        half = path.with_suffix(".part.npz")
        np.savez(half, x=np.stack(x), answer=answer.astype(bool), group=group, z=at)
        half.replace(path)
    with np.load(path) as file:
        return Sites(*(file[k] for k in Sites.__slots__))


def synthetic_sites(ffn: Volume, out: Path, what: str, z: tuple[int, int], plane: int) -> Sites:
    """Synthetic cuts of flood-filling segments and of true bodies."""
    volume = ffn.below_z(plane)
    found = volume_examples(
        volume, ViewSpec(), kinds=(Kind.CUT,), z_range=z, seed=0, merges=MERGES[what]
    )
    return measured(volume, found, out / "sites" / f"{what}.npz")


def test_examples(ws: Volume) -> Iterator[tuple[Example, int]]:
    """The cuts of `cb2-assist evaluate --from-z 185 --merges 150`, with their z."""
    table = touching_pairs(ws)
    above = table.take(table.contact_z >= TEST_Z)
    rng = np.random.default_rng(0)
    for example in cut_examples(ws, above, ViewSpec().site_nm, rng=rng, merges=MERGES["test"]):
        yield example, int(example.window.site.point.z // ws.resolution.z)


def window_of(volume: Volume, site: Site) -> SiteWindow | None:
    """The site's window; None where the segment is too thin to have two sides."""
    try:
        return build_window(volume.cutout, site, ViewSpec().site_nm, volume.box)
    except AssistError:
        return None


def answer_of(volume: Volume, window: SiteWindow) -> tuple[bool, int] | None:
    """As for synthetic cuts."""
    return cut_answer(window, crop_round(volume, window.site.point, window.half_width_nm).truth)


# --- synthetic cuts


def synthetic(data: Path, out: Path, model: Path, *, final: bool) -> dict[str, Any]:
    """Every model on the cuts that choices are made on and, at last, on the test part."""
    ffn = load(data, "fib25-ffn")
    learn = synthetic_sites(ffn, out, "learn", (0, LEARN_Z), LEARN_Z)
    sets = {"choose": synthetic_sites(ffn, out, "choose", CHOOSE_Z, CHOOSE_Z[1])}
    found: dict[str, Any] = {"learnt_from": {"n": len(learn.z), "true": int(learn.answer.sum())}}
    if final:
        ws = load(data, "fib25-ws")
        sets["test"] = measured(ws, test_examples(ws), out / "sites" / "test.npz")
        shipped = own_answers(ws, model, (e.window for e, _ in test_examples(ws)))
        found["test"] = {"the model": described(sets["test"], shipped)}
    for name, fit in MODELS.items():
        start = time.process_time()
        ask = fit(learn)
        spent = round(time.process_time() - start, 1)
        for which, sites in sets.items():
            row = {**described(sites, ask(sites.x)), "cpu_seconds": spent}
            found.setdefault(which, {})[name] = row
    return found


def described(sites: Sites, p: Floats) -> dict[str, Any]:
    """Figures with intervals."""
    of = figures(sites.answer, p, sites.group)
    bodies = len(np.unique(sites.group))
    return {
        "n": len(p),
        "true": int(sites.answer.sum()),
        "bodies": bodies,
        **{k: [round(v, 4) for v in (f.value, f.low, f.high)] for k, f in of.items()},
    }


def own_answers(volume: Volume, folder: Path, windows: Iterator[SiteWindow]) -> Floats:
    """Scores of a whole model, images and all."""
    predictor = Predictor.open(folder, "cpu")
    try:
        calibrator = calibrator_from_card(predictor.model.card)
        views, statistics = predictor.model.views, grey_statistics(volume)
        card = predictor.model.card
        scores = []
        for window in windows:
            vector = site_vector(
                window,
                statistics,
                neighbours=reads_neighbours(card),
                way_between=reads_passage(card),
            )
            stack = render(
                window,
                extent_nm=views.extent_nm,
                profile=views.profile,
                statistics=statistics,
                features=vector,
            )
            (output,) = predictor.predict([stack], [Kind.CUT])
            scores.append(calibrator.score(Kind.CUT, output.logit))
        return np.array(scores)
    finally:
        predictor.close()


# --- real false merges


def real(data: Path, out: Path, model: Path, run: Path | None) -> dict[str, Any]:
    """The real false merges and the sites proposed in clean segments, out of fold by slab."""
    ffn, ws = load(data, "fib25-ffn"), load(data, "fib25-ws")
    learn = synthetic_sites(ffn, out, "learn", (0, LEARN_Z), LEARN_Z)
    rest = synthetic_sites(ffn, out, "rest", (LEARN_Z, 1 << 30), 1 << 30)
    both = Sites(*(np.concatenate([getattr(p, k) for p in (learn, rest)]) for k in Sites.__slots__))
    volumes = (ffn, ws)
    asked = asked_sites(volumes, out / "sites" / "real.npz")
    n = sum(count_errors(v.seg, v.truth).false_merges for v in volumes)
    found = {
        name: judged_real(of_trees(fit, both, asked), asked, n) for name, fit in MODELS.items()
    }
    if run is not None:
        p = of_networks(run, model, volumes, asked)
        found["the network, without each slab"] = judged_real(p, asked, n)
    return found


@dataclass(frozen=True, slots=True)
class Asked:
    """Sites proposed in merged and in clean segments.

    ``segment`` numbers the segments; ``merged`` says of which sort; ``proposed`` is False where
    nothing was proposed that parts the bodies, and the place where they meet was asked about.
    ``volume`` is 0 for flood-filling, 1 for watershed; ``own_id`` is the segment's there.
    """

    x: NDArray[np.float32]
    answer: NDArray[np.bool_]
    z: NDArray[np.int64]
    segment: NDArray[np.int64]
    merged: NDArray[np.bool_]
    proposed: NDArray[np.bool_]
    volume: NDArray[np.int64]
    own_id: NDArray[np.uint64]
    point_nm: Floats


def asked_sites(volumes: tuple[Volume, ...], path: Path) -> Asked:
    """Propose and measure, once."""
    if not path.is_file():
        rows: list[tuple[Any, ...]] = []
        number = 0
        for which, volume in enumerate(volumes):
            places: dict[int, list[PointNm]] = {}
            for pair in true_cuts(volume):
                middle = pair.places_nm[len(pair.places_nm) // 2]
                places.setdefault(pair.segments[0], []).append(PointNm.of(middle))
            for segment, at in sorted(places.items()):
                near = sites_near(volume, segment, at, number, merged=True)
                rows += [(*row, which, segment, tuple(at)) for *row, at in near]
                number += 1
                say(f"{volume.name}: segment {segment} asked about")
        for segment, place in clean_places(volumes[0]):
            near = sites_near(volumes[0], segment, [place], number, merged=False)
            rows += [(*row, 0, segment, tuple(at)) for *row, at in near]
            number += 1
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = [np.array(c) for c in zip(*rows, strict=True)]
        columns[-2] = columns[-2].astype(np.uint64)
        np.savez(path, **dict(zip(Asked.__slots__, columns, strict=True)))
    with np.load(path) as file:
        return Asked(*(file[k] for k in Asked.__slots__))


def sites_near(
    volume: Volume, segment: int, cursors: list[PointNm], number: int, *, merged: bool
) -> list[tuple[Any, ...]]:
    """Rows of `Asked`, up to ``proposed``, and the point, from proposals on one segment."""
    statistics = grey_statistics(volume)
    points: dict[tuple[float, ...], PointNm] = {}
    for at in cursors:
        box = BoxVx.around(at, cutout_half_width_nm(RADIUS_NM), volume.resolution)
        near = volume.cutout.crop(box.clip(volume.box))
        points |= {tuple(c.point): c.point for c in cuts(near, SegmentId(segment), at, RADIUS_NM)}
    rows: list[tuple[Any, ...]] = []

    def ask(at: PointNm, *, proposed: bool) -> None:
        window = window_of(volume, Site(Kind.CUT, SegmentId(segment), None, at))
        answer = None if window is None else answer_of(volume, window)
        if window is None or answer is None or not (answer[0] or proposed):
            return
        x = site_vector(window, statistics, neighbours=False, way_between=True)
        z = int(at.z // volume.resolution.z)
        rows.append((x, answer[0], z, number, merged, proposed, at))

    for _, at in sorted(points.items()):
        ask(at, proposed=True)
    if merged and not any(row[1] for row in rows):
        for at in cursors:
            ask(at, proposed=False)
    return rows


def clean_places(volume: Volume) -> list[tuple[int, PointNm]]:
    """Random voxels of segments that are one body, a segment each."""
    pure = pure_bodies(volume, 0.98)
    ids, index, size = np.unique(volume.seg, return_inverse=True, return_counts=True)
    rng = np.random.default_rng(0)
    large = [k for k in np.flatnonzero(size >= 20_000) if int(ids[k]) in pure]
    found = []
    for k in rng.permutation(large)[:CLEAN]:
        places = np.flatnonzero(index.ravel() == k)
        at = np.unravel_index(int(rng.choice(places)), volume.seg.shape)
        voxel = PointVoxel(*(int(a) + o for a, o in zip(at, volume.box.lo, strict=True)))
        found.append((int(ids[k]), voxel.to_nm(volume.resolution)))
    return found


def of_trees(fit: Callable[[Sites], Ask], both: Sites, asked: Asked) -> Floats:
    """Probabilities by models that learnt elsewhere."""
    p = np.zeros(len(asked.z))
    for low in range(0, int(asked.z.max()) + 1, SLAB):
        held = (asked.z >= low) & (asked.z < low + SLAB)
        if held.any():
            away = (both.z < low - GAP) | (both.z >= low + SLAB + GAP)
            p[held] = fit(both.take(away))(asked.x[held])
    return p


def of_networks(run: Path, model: Path, volumes: tuple[Volume, ...], asked: Asked) -> Floats:
    """Scores by the networks of `train --cross-fit`, each of the slab that it has not seen."""
    whole = load_model(model)
    parts = [open_part(folder) for folder in sorted((run / "parts").iterdir())]
    folds = sorted(run.glob("without-slab-*"))
    p = np.zeros(len(asked.z))
    for folder, slab in zip(folds, slabs(parts, len(folds)), strict=True):
        net = averaged_network(folder)
        with TemporaryDirectory() as temporary:
            # the scale is that of all folds together, as in use
            save_model(Path(temporary), net, whole.views, whole.ood, whole.card)
            for which, volume in enumerate(volumes):
                rows = (asked.volume == which) & (asked.z > slab.low) & (asked.z <= slab.high)
                sites = [
                    Site(Kind.CUT, SegmentId(int(i)), None, PointNm(*map(float, at)))
                    for i, at in zip(asked.own_id[rows], asked.point_nm[rows], strict=True)
                ]
                seen = (window_of(volume, site) for site in sites)
                p[rows] = own_answers(volume, Path(temporary), (w for w in seen if w is not None))
        say(f"{folder.name}: judged")
    return p


def averaged_network(folder: Path) -> MultiTaskViT:
    """What `train` left in the folder of a slab."""
    meta, saved = read_checkpoint(folder / CHECKPOINT)
    net = MultiTaskViT(NetworkSpec(**json.loads(meta["network"])))
    net.load_state_dict(state_of(saved, "ema"))
    return net.eval()


def judged_real(p: Floats, asked: Asked, n: int) -> dict[str, Any]:
    """Hits, ranks and false alarms of one kind of model."""
    hits, ranks = 0, []
    for k in np.unique(asked.segment[asked.merged]):
        mine = asked.segment == k
        true = mine & asked.answer
        if true.any():
            best = float(p[true].max())
            hits += best > 0.5
            among = mine & asked.proposed
            if (true & asked.proposed).any():
                ranks.append([int((p[among] > best).sum()) + 1, int(among.sum())])
    clean = ~asked.merged & ~asked.answer
    alarms = int((p[clean] > 0.5).sum())
    kept = asked.answer & asked.merged | clean
    return {
        "real": n,
        "asked": len(np.unique(asked.segment[asked.merged & asked.answer])),
        "hits": int(hits),
        "hits_ci95": exact_interval(int(hits), n),
        "proposed": len(ranks),
        "rank_of": ranks,
        "first": sum(r == 1 for r, _ in ranks),
        "clean_sites": int(clean.sum()),
        "alarms": alarms,
        "alarms_ci95": exact_interval(alarms, int(clean.sum())),
        "auroc_against_clean": round(auroc(asked.answer[kept], p[kept]), 4),
    }


# --- masks


def mask(data: Path, model: Path, *, final: bool) -> dict[str, Any]:
    """The sides of a cut by the model's mask head, by its views' partition and by a plane."""
    predictor = Predictor.open(model, "cpu")
    try:
        network, views = predictor.model.network, predictor.model.views
        if not isinstance(network, MultiTaskViT):
            raise SystemExit(f"{model} has no mask head of its own.")
        found = {}
        for name, volume, windows in masked_sets(data, final=final):
            rows: dict[str, list[float]] = {}
            show = painter(views, grey_statistics(volume))
            for window in windows:
                for way, value in ious(volume, window, network, show).items():
                    rows.setdefault(way, []).append(value)
            found[name] = {k: spread(np.array(v)) for k, v in rows.items()}
            say(f"{name}: {found[name]}")
        return found
    finally:
        predictor.close()


def masked_sets(data: Path, *, final: bool) -> Iterator[tuple[str, Volume, Iterator[SiteWindow]]]:
    """True cuts by set."""
    ffn = load(data, "fib25-ffn")
    part = ffn.below_z(CHOOSE_Z[1])
    chosen = volume_examples(
        part, ViewSpec(), kinds=(Kind.CUT,), z_range=CHOOSE_Z, seed=0, merges=100, on_truth=False
    )
    yield "synthetic, z 140 to 165", part, (e.window for e, _ in chosen if e.answer)
    if final:
        ws = load(data, "fib25-ws")
        tested = (e.window for e, _ in test_examples(ws) if e.answer)
        yield "synthetic, watershed, z >= 185", ws, tested
        for name, volume in (("fib25-ffn", ffn), ("fib25-ws", ws)):
            yield f"real, {name}", volume, real_windows(volume)


def real_windows(volume: Volume) -> Iterator[SiteWindow]:
    """Real false merges, cut where their bodies meet."""
    for pair in true_cuts(volume):
        at = PointNm.of(pair.places_nm[len(pair.places_nm) // 2])
        window = window_of(volume, Site(Kind.CUT, SegmentId(pair.segments[0]), None, at))
        if window is not None and (answer_of(volume, window) or (False, 0))[0]:
            yield window


def true_sides(volume: Volume, window: SiteWindow) -> NDArray[np.uint8]:
    """1 and 2 where the body is the one that has most of that side near the point, else 0."""
    body = crop_round(volume, window.site.point, window.half_width_nm).truth
    at, res = np.array(window.point_vx), np.array(tuple(window.resolution))
    grid = np.indices(body.shape, sparse=True)
    away = sum(((g + 0.5 - a) * r) ** 2 for g, a, r in zip(grid, at, res, strict=True))
    out = np.zeros(body.shape, np.uint8, order="F")
    for side in (1, 2):
        ids, count = np.unique(
            body[(window.label == side) & (body > 0) & (away < 300.0**2)], return_counts=True
        )
        out[(window.label > 0) & (body == ids[count.argmax()])] = side
    return out


def plane_sides(window: SiteWindow) -> NDArray[np.uint8]:
    """The sides of the plane through the point across the segment's axis near it."""
    at, res = np.array(window.point_vx), np.array(tuple(window.resolution))
    voxels = np.argwhere(window.label > 0)
    place = (voxels + 0.5 - at) * res
    near = place[np.linalg.norm(place, axis=1) < NEAR_NM]
    axis = np.linalg.eigh(np.cov(near.T))[1][:, -1]
    out = np.zeros(window.label.shape, np.uint8, order="F")
    out[tuple(voxels.T)] = np.where(place @ axis > 0, 1, 2)
    return out


def ious(
    volume: Volume, window: SiteWindow, network: MultiTaskViT, show: Painter
) -> dict[str, float]:
    """Order-invariant mean IoU of each way, over voxels and over pixels."""
    truth = true_sides(volume, window)
    ways = {"neck": window.label, "plane": plane_sides(window)}
    out = {f"{k}, voxels": mask_iou(truth, v) for k, v in ways.items()}
    right = sides_of(show(window, truth))
    said = {f"{k}, pixels": sides_of(show(window, v)) for k, v in ways.items()}
    said["mask head, pixels"] = head_says(show(window, window.label), network)
    for k, v in said.items():
        each = np.array([mask_iou(t, s) for t, s in zip(right, v, strict=True)])
        out[k] = float(np.nanmean(each)) if np.isfinite(each).any() else np.nan
    return out


def painter(views: ViewSpec, statistics: EmStatistics) -> Painter:
    """Makes the geometry, (3, 7, px, px), of a window with given sides."""

    def show(window: SiteWindow, label: NDArray[np.uint8]) -> NDArray[np.float16]:
        stack = render(
            replace(window, label=label),
            extent_nm=views.extent_nm,
            profile=views.profile,
            statistics=statistics,
            features=np.zeros(0, np.float32),
        )
        return network_input(stack, views.image_px).geometry

    return show


def sides_of(geometry: NDArray[np.float16]) -> NDArray[np.int64]:
    """Side of each pixel, (3, px, px); 0 where none or both are seen."""
    a, b = (geometry[:, c] > 0.5 for c in (GeometryChannel.MASK_A, GeometryChannel.MASK_B))
    return np.where(a & ~b, 1, 0) + np.where(b & ~a, 2, 0)


def head_says(geometry: NDArray[np.float16], network: MultiTaskViT) -> NDArray[np.int64]:
    """The mask head on views that do not show which side is which."""
    whole = np.stack([hide_sides(v.astype(np.float32)) for v in geometry])
    none = torch.zeros(0, 3, *whole.shape[-2:])
    with torch.inference_mode():
        _, patches = network.encode_views(
            torch.from_numpy(whole),
            torch.arange(len(whole)),
            none,
            torch.zeros(0, dtype=torch.int64),
        )
        logits = interpolate(network.masks(patches), whole.shape[-2:], mode="bilinear")
    said: NDArray[np.int64] = logits.argmax(1).numpy() + 1
    return said


def spread(v: Floats) -> dict[str, Any]:
    """Mean with a percentile interval over resampled cuts."""
    v = v[np.isfinite(v)]
    if not len(v):
        return {"n": 0}
    drawn = np.random.default_rng(0).choice(v, (1000, len(v))).mean(1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {"n": len(v), "mean": round(float(v.mean()), 4), "ci95": [round(low, 4), round(high, 4)]}


# --- the program


def main() -> None:
    """Measure what is missing, then print the table."""
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("data", type=Path)
    ask.add_argument("out", type=Path)
    every = ("synthetic", "real", "mask")
    ask.add_argument("--part", nargs="*", choices=every, default=every)
    ask.add_argument("--final", action="store_true", help="also the test part, once")
    ask.add_argument("--model", type=Path, default=Path("models/cb2-vit-tiny"))
    ask.add_argument("--run", type=Path, help="of train --cross-fit, for its networks")
    given = ask.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    jobs: dict[str, Callable[[], dict[str, Any]]] = {
        "synthetic": lambda: synthetic(given.data, given.out, given.model, final=given.final),
        "real": lambda: real(given.data, given.out, given.model, given.run),
        "mask": lambda: mask(given.data, given.model, final=given.final),
    }
    for part in given.part:
        name = part if part == "real" or not given.final else f"{part}-final"
        path = given.out / f"{name}.json"
        if not path.is_file():
            start = time.process_time()
            found = jobs[part]()
            found["cpu_minutes"] = round((time.process_time() - start) / 60, 1)
            path.write_text(json.dumps(found, indent=1))
    write_table(given.out)


def write_table(out: Path) -> None:
    """`table.md`, of every part that is there."""
    lines: list[str] = []
    for path in sorted(out.glob("*.json")):
        found = json.loads(path.read_text())
        lines += [f"## {path.stem} ({found.pop('cpu_minutes')} minutes of one core)", ""]
        for name, value in found.items():
            lines += [f"- {name}: {json.dumps(value)}"]
        lines.append("")
    text = "\n".join(lines)
    (out / "table.md").write_text(text)
    print(text)


def load(data: Path, name: str) -> Volume:
    """A dataset with truth."""
    source = open_dataset_file(data / name / "dataset.toml")
    try:
        return load_volume(source)
    finally:
        source.close()


def say(text: str) -> None:
    """Progress goes to stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
