"""A datastack over HTTP, read with caveclient and cloud-volume from a stand-in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import requests
from cave_worlds import EDITOR, NEWCOMER, STRANGER, CaveWorld, cave_world, own_home
from contracts.source import SourceContract
from dataset_makers import make_dataset, make_volume

from cb2_assist.core.errors import (
    DatasetError,
    LoginError,
    NoAnswerError,
    OutOfBoundsError,
    SegmentNotFoundError,
    SupersededError,
)
from cb2_assist.core.geometry import PointNm, PointVoxel
from cb2_assist.core.patience import patience
from cb2_assist.core.records import Kind, SegmentId, Site
from cb2_assist.datasets.cave.source import CaveSource
from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.datasets.registry import open_dataset
from cb2_assist.learning.cover import stops_from_here, stops_on_arbours
from cb2_assist.standin.faults import Fault
from cb2_assist.standin.server import StandIn

# where the upper ball of the dumbbell and its partner meet, and inside either
MEET = PointNm(485.0, 365.0, 765.0)
IN_DUMBBELL = PointNm(485.0, 365.0, 645.0)
IN_PARTNER = PointNm(485.0, 365.0, 905.0)
EDGE_NM = 5.0


class TestCaveSource(SourceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory) -> Iterator[CaveSource]:
        folder = tmp_path_factory.mktemp("cave")
        local = make_dataset(folder / "d", make_volume((70, 50, 60)))
        with own_home(folder), cave_world(folder, local) as world:
            source = open_dataset(None, world.file)
            yield source
            source.close()


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory) -> Iterator[pytest.MonkeyPatch]:
    with own_home(tmp_path_factory.mktemp("home")) as patch:
        yield patch


@pytest.fixture
def world(tmp_path, neurites_file) -> Iterator[CaveWorld]:
    with cave_world(tmp_path, neurites_file) as world:
        yield world


@pytest.fixture
def source(world) -> Iterator[CaveSource]:
    opened = open_dataset(None, world.file)
    yield opened
    opened.close()


def merge(cave: StandIn, source: CaveSource, a: PointNm, b: PointNm) -> tuple[int, int]:
    """Another person joins what lies at two points; the operation and the new object."""
    parts = [source._voxels.segment_at(p) for p in (a, b)]
    answer = requests.post(
        f"{cave.url}/segmentation/api/v1/table/{cave.deployment.names.table}/merge",
        headers={"Authorization": f"Bearer {EDITOR.token}"},
        json=[[str(part), *point] for part, point in zip(parts, (a, b), strict=True)],
        timeout=30,
    )
    answer.raise_for_status()
    return answer.json()["operation_id"], int(answer.json()["new_root_ids"][0])


def undo(cave: StandIn, operation: int) -> None:
    """Another person takes an edit back."""
    requests.post(
        f"{cave.url}/segmentation/api/v1/table/{cave.deployment.names.table}/undo",
        headers={"Authorization": f"Bearer {EDITOR.token}"},
        json={"operation_id": operation},
        timeout=30,
    ).raise_for_status()


def test_objects_are_those_of_the_dataset_that_is_served(world, source):
    ours, theirs = source.cutout(source.bounds), world.local.cutout(world.local.bounds)
    np.testing.assert_array_equal(ours.em, theirs.em)
    pairs = np.unique(np.stack([ours.seg.ravel("F"), theirs.seg.ravel("F")]), axis=1)
    # one object of the graph for each segment, and the other way round
    assert len(pairs.T) == len(set(pairs[0].tolist())) == len(set(pairs[1].tolist())) == 4


def test_neighbours_come_from_the_graph_with_affinity_and_area(source):
    own, other = source.segment_at(IN_DUMBBELL), source.segment_at(IN_PARTNER)
    found = source.neighbours(own, MEET, 300.0)
    assert {n.segment for n in found} == {other}
    assert all(n.affinity > 0 and n.area > 0 for n in found)
    assert {source._graph.root_of(n.own, source._objects.time) for n in found} == {own}
    assert [n.affinity for n in found] == sorted((n.affinity for n in found), reverse=True)


def test_a_site_keeps_the_supervoxels_of_its_two_sides(source):
    own, other = source.segment_at(IN_DUMBBELL), source.segment_at(IN_PARTNER)
    a, b = source.supervoxels(Site(Kind.JOIN, own, other, MEET))
    graph, at = source._graph, source._objects.time
    assert (graph.shape.layer(a), graph.shape.layer(b)) == (1, 1)
    assert (graph.root_of(a, at), graph.root_of(b, at)) == (own, other)
    assert source.supervoxels(Site(Kind.CUT, own, None, MEET)) == (a, None)


def test_a_supervoxel_from_the_viewer_means_its_object(source):
    part = source._voxels.segment_at(IN_DUMBBELL)
    assert source.current(part, IN_DUMBBELL) == (source.segment_at(IN_DUMBBELL), "")


def test_the_state_stays_until_a_segment_turns_out_to_be_stale(world, source):
    old, partner = source.segment_at(IN_DUMBBELL), source.segment_at(IN_PARTNER)
    _, new = merge(world.cave, source, IN_DUMBBELL, IN_PARTNER)
    # nobody has looked yet: what is read is one state, the one before the edit
    assert source.segment_at(IN_PARTNER) == partner
    segment, words = source.current(old, IN_DUMBBELL)
    assert segment == new
    assert str(old) in words
    assert source.segment_at(IN_PARTNER) == new
    assert source.segment_at(IN_DUMBBELL) == new


def test_an_object_that_is_newer_than_the_state_moves_it_on(world, source):
    before = source.timestamp
    _, new = merge(world.cave, source, IN_DUMBBELL, IN_PARTNER)
    assert source.current(new, IN_DUMBBELL) == (new, "")
    assert source.timestamp > before
    assert source.segment_at(IN_PARTNER) == new


def test_a_replaced_object_means_its_only_successor_wherever_the_point_is(world, source):
    old = source.segment_at(IN_DUMBBELL)
    _, new = merge(world.cave, source, IN_DUMBBELL, IN_PARTNER)
    corner = PointNm(EDGE_NM, EDGE_NM, EDGE_NM)
    segment, words = source.current(old, corner)
    assert segment == new
    assert f"{old}; this is about {new}" in words
    assert source.latest(old) == (new, words)
    assert source.latest(new) == (new, "")
    with pytest.raises(SegmentNotFoundError, match=f"replaced it by {new}"):
        source.locate(old)


def test_of_several_successors_the_one_at_the_point_is_meant(world, source):
    old = source.segment_at(IN_DUMBBELL)
    operation, whole = merge(world.cave, source, IN_DUMBBELL, IN_PARTNER)
    source.refresh()
    undo(world.cave, operation)
    one, words = source.current(whole, IN_DUMBBELL)
    other, _ = source.current(whole, IN_PARTNER)
    assert len({old, whole, one, other}) == 4
    assert f"{whole} by 2 objects; this is about {one}" in words
    corner = PointNm(EDGE_NM, EDGE_NM, EDGE_NM)
    for ask in (lambda: source.current(whole, corner), lambda: source.latest(whole)):
        with pytest.raises(SegmentNotFoundError, match="Which one is meant") as asked:
            ask()
        assert all(str(root) in str(asked.value) for root in (one, other))


def test_an_old_part_means_the_object_that_it_belongs_to_now(world, source):
    part = int(source._graph.parts(source.segment_at(IN_DUMBBELL))[0])
    _, new = merge(world.cave, source, IN_DUMBBELL, IN_PARTNER)
    assert source.current(part, IN_DUMBBELL)[0] == new


@pytest.mark.parametrize("bad", [5, 2**63 + 1, 7 << 56, (1 << 56) + 999])
def test_ids_that_are_no_objects_are_refused(source, bad):
    with pytest.raises((SegmentNotFoundError, DatasetError), match=r"no object|no objects|not"):
        source.current(bad, IN_DUMBBELL)
    assert source.locate(bad) is None
    assert source.segment_at(IN_DUMBBELL) > 0


def test_an_unknown_root_is_no_object(source):
    unknown = source.segment_at(IN_DUMBBELL) + 12345
    with pytest.raises(SegmentNotFoundError, match="no object"):
        source.current(unknown, IN_DUMBBELL)


def test_a_mesh_is_read_near_the_point_only(world):
    about = f'[dataset]\nname = "m"\ngeometry = "meshes"\n{world.cave.dataset_file()}'
    world.file.write_text(about)
    meshed = open_dataset(None, world.file)
    assert meshed.geometry == "meshes"
    own = meshed.segment_at(IN_DUMBBELL)
    near, wide = (meshed.mesh(own, IN_DUMBBELL, reach) for reach in (10.0, 5000.0))
    assert len(wide.faces) > 50
    assert len(near.faces) <= len(wide.faces)
    middle = (wide.vertices.min(0) + wide.vertices.max(0)) / 2
    np.testing.assert_allclose(middle[:2], [485, 365], atol=60)
    assert meshed.mesh(own + 12345, IN_DUMBBELL, 1000.0) is None
    meshed.close()


class TestFailures:
    @pytest.mark.parametrize(
        "fault",
        [
            Fault("refused", path="roots_binary", status=503, times=2),
            Fault("refused", path="roots_binary", status=429, times=1, seconds=0.0),
            Fault("truncated", path="roots_binary", times=1),
        ],
        ids=lambda f: f"{f.kind}-{f.status}",
    )
    def test_one_that_passes_is_not_noticed(self, world, source, fault):
        world.cave.faults.add(fault)
        assert source._graph.shape.layer(source.segment_at(IN_DUMBBELL)) > 1

    def test_one_that_stays_is_said_and_work_goes_on_after_it(self, world, source):
        world.cave.faults.add(Fault("refused", path="roots_binary", status=500, times=1))
        with pytest.raises(NoAnswerError, match="status 500"):
            source.segment_at(IN_DUMBBELL)
        assert source.segment_at(IN_DUMBBELL) > 0

    def test_a_token_that_expires_meanwhile_is_said_to_and_a_new_one_goes_on(self, world, source):
        world.cave.faults.add(Fault("refused", path="roots_binary", status=401, times=1))
        with pytest.raises(LoginError, match="does not accept the token") as refused:
            source.segment_at(IN_DUMBBELL)
        assert "settings/tokens" in str(refused.value)
        assert source.segment_at(IN_DUMBBELL) > 0

    def test_a_cursor_outside_the_bounds_is_said_to_be_and_work_goes_on(self, source):
        own = source.segment_at(IN_DUMBBELL)
        beyond = PointNm(-50.0, 1e9, 5.0)
        with pytest.raises(OutOfBoundsError, match="outside"):
            source.segment_at(beyond)
        assert source.current(own, beyond) == (own, "")
        assert source.mesh(own, beyond, 100.0) is None
        assert source.neighbours(own, beyond, 100.0) == []
        assert source.look_at(beyond) is False
        assert source.segment_at(IN_DUMBBELL) == own

    def test_a_server_that_hangs_is_given_up(self, world, source):
        own = source.segment_at(IN_DUMBBELL)
        world.cave.faults.add(Fault("latency", path="is_latest_roots", seconds=3.0))
        client, ids = source._graph._client("graph"), np.array([own], np.uint64)
        with pytest.raises(NoAnswerError, match=r"No answer within 0 s: 127\.0\.0\.1"):
            source._graph.ask("whether it is current", lambda: client.is_latest_roots(ids), 0.2)
        with patience(is_over=lambda: True), pytest.raises(SupersededError):
            source.current(own, IN_DUMBBELL)

    def test_without_the_graphs_edges_contacts_of_voxels_remain(self, world, source):
        own = source.segment_at(IN_DUMBBELL)
        world.cave.faults.add(Fault("refused", path="/subgraph", status=500))
        assert source.neighbours(own, MEET, 300.0) is None
        assert set(np.unique(source.cutout(source.bounds).seg)) > {own}

    def test_parts_that_the_server_has_not_measured_stand_in_their_chunks(self, world, source):
        own = source.segment_at(IN_DUMBBELL)
        known = source.arbour(own)
        world.cave.faults.add(Fault("missing_rows", share=1.0))
        blind = source.arbour(own)
        assert len(known.points) == len(blind.points) >= 2
        assert np.isfinite(known.radius).any()
        assert np.isnan(blind.radius).all()
        assert (np.abs(known.points - blind.points) <= np.array(blind.chunk_nm)).all()
        inside = [source.segment_at(PointNm.of(p)) for p in known.points]
        assert inside.count(own) >= len(inside) // 2


def test_the_queue_goes_along_an_object_of_the_graph(source):
    own = source.segment_at(IN_PARTNER)
    stops = stops_on_arbours(source, [own])
    assert {s.segment for s in stops} <= {own}
    assert stops == stops_on_arbours(source, [own])
    with pytest.raises(SegmentNotFoundError):
        stops_on_arbours(source, [SegmentId(own + 99_999)])


def test_the_search_begins_with_what_the_graph_finds_odd_nearest_first(source, monkeypatch):
    own = source.segment_at(IN_PARTNER)
    odd = stops_on_arbours(source, [own], IN_PARTNER)
    assert odd == sorted(odd, key=lambda s: IN_PARTNER.distance_nm(s.at))
    assert set(odd) == set(stops_on_arbours(source, [own]))
    everywhere = stops_from_here(source, own, IN_PARTNER)
    assert everywhere[: len(odd)] == odd
    assert len(everywhere) == len(set(everywhere)) > len(odd)
    # a neuron is not read voxel by voxel
    monkeypatch.setattr("cb2_assist.learning.cover.MOST_FOLLOWED_VX", 0)
    assert stops_from_here(source, own, IN_PARTNER) == odd


class TestTimes:
    def test_a_pinned_state_is_the_version_and_never_moves(self, world, source):
        at = datetime.now(UTC)
        world.file.write_text(f'{world.cave.dataset_file()}timestamp = "{at.isoformat()}"\n')
        with_time = open_dataset(None, world.file)
        old = with_time.segment_at(IN_DUMBBELL)
        _, new = merge(world.cave, source, IN_DUMBBELL, IN_PARTNER)
        with_time.refresh()
        assert with_time.segment_at(IN_DUMBBELL) == old != new
        assert with_time.info.version.endswith(at.isoformat().replace("+00:00", "Z"))
        assert with_time.current(old, IN_DUMBBELL) == (old, "")
        with_time.close()

    def test_what_an_edit_replaced_before_the_kept_state_means_its_successor(self, world, source):
        old = source.segment_at(IN_DUMBBELL)
        _, new = merge(world.cave, source, IN_DUMBBELL, IN_PARTNER)
        at = datetime.now(UTC)
        world.file.write_text(f'{world.cave.dataset_file()}timestamp = "{at.isoformat()}"\n')
        pinned = open_dataset(None, world.file)
        assert pinned.current(old, IN_DUMBBELL)[0] == new
        pinned.close()

    def test_an_object_that_is_newer_than_the_kept_state_is_said_to_be(self, world, source):
        at = datetime.now(UTC) - timedelta(seconds=1)
        world.file.write_text(f'{world.cave.dataset_file()}timestamp = "{at.isoformat()}"\n')
        pinned = open_dataset(None, world.file)
        _, new = merge(world.cave, source, IN_DUMBBELL, IN_PARTNER)
        with pytest.raises(SegmentNotFoundError, match="keeps the state of"):
            pinned.current(new, IN_DUMBBELL)
        with pytest.raises(SegmentNotFoundError, match="no object"):
            pinned.current(new + 12345, IN_DUMBBELL)
        pinned.close()

    def test_a_time_before_the_first_state_says_so(self, world):
        early = datetime(1999, 1, 1, tzinfo=UTC) + timedelta(days=1)
        world.file.write_text(f'{world.cave.dataset_file()}timestamp = "{early.isoformat()}"\n')
        source = open_dataset(None, world.file)
        with pytest.raises(DatasetError, match="before its first state"):
            source.segment_at(IN_DUMBBELL)
        source.close()


class TestBadAccounts:
    @pytest.mark.parametrize(
        ("token", "reason", "words"),
        [
            ("d0" * 16, "invalid", "does not accept the token from CAVE_TOKEN"),
            ("bad", "invalid", "3 characters"),
            (NEWCOMER.token, "terms", "terms of service"),
            (STRANGER.token, "permission", "may not view"),
        ],
    )
    def test_what_is_wrong_and_what_to_do(self, world, token, reason, words):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CAVE_TOKEN", token)
            patch.setattr("webbrowser.open", lambda *_: pytest.fail("a window was opened"))
            with pytest.raises(LoginError, match=words) as refused:
                open_dataset(None, world.file)
        assert refused.value.reason == reason
        assert token not in str(refused.value)

    def test_no_token_names_the_page(self, world):
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("CAVE_TOKEN")
            with pytest.raises(LoginError, match="settings/tokens") as refused:
                open_dataset(None, world.file)
        assert refused.value.reason == "missing"
        assert refused.value.server == world.cave.url

    def test_the_token_is_found_where_caveclient_keeps_it(self, world):
        from cb2_assist.datasets.cave.login import save_token

        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("CAVE_TOKEN")
            path = save_token(world.cave.url, f" {EDITOR.token}\n")
            source = open_dataset(None, world.file)
            assert source.segment_at(IN_DUMBBELL) > 0
            source.close()
        assert path.stat().st_mode & 0o077 == 0
        path.unlink()

    def test_another_datastack_is_a_wrong_name(self, world):
        text = world.file.read_text().replace(world.cave.datastack, "nosuch")
        world.file.write_text(text)
        with pytest.raises(DatasetError, match="has no dataset"):
            open_dataset(None, world.file)


def test_a_huge_mesh_is_read_in_part(world, monkeypatch):
    world.file.write_text(
        f'[dataset]\nname = "m"\ngeometry = "meshes"\n{world.cave.dataset_file()}'
    )
    meshed = open_dataset(None, world.file)
    own = meshed.segment_at(IN_DUMBBELL)
    whole = meshed.mesh(own, IN_DUMBBELL, 5000.0)
    n = len(meshed._graph.parts(own))
    assert n > 1
    monkeypatch.setattr("cb2_assist.datasets.cave.meshes.MOST_PARTS", n - 1)
    meshed._meshes._kept.clear()
    some = meshed.mesh(own, IN_DUMBBELL, 5000.0)
    assert 0 < len(some.faces) < len(whole.faces)
    monkeypatch.setattr("cb2_assist.datasets.cave.meshes.MOST_PARTS", 0)
    meshed._meshes._kept.clear()
    assert len(meshed.mesh(own, IN_DUMBBELL, 5000.0).faces) == len(some.faces)
    meshed.close()


class TestTheViewersMesh:
    def names(self, source, segment) -> list[str]:
        table = source._connection.table
        path = f"meshing/api/v1/table/{table}/manifest/{segment}:0"
        got = source.route.answer("GET", path, {"verify": "1"})
        return json.loads(got.body)["fragments"]

    def test_of_a_large_object_only_the_parts_near_the_cursor_are_drawn(
        self, world, source, monkeypatch
    ):
        own = source.segment_at(IN_DUMBBELL)
        whole = self.names(source, own)
        assert len(whole) == len(source._graph.parts(own)) > 1
        monkeypatch.setattr("cb2_assist.datasets.cave.drawn.MOST_DRAWN_PARTS", 1)
        source.current(own, MEET)
        world.cave.faults.forget()
        near = self.names(source, own)
        assert 0 < len(near) < len(whole)
        (asked,) = [r for r in world.cave.faults.requests() if "manifest" in r.path]
        assert "bounds=" in asked.query

    def test_what_is_drawn_goes_along_with_where_one_looks(self, source, monkeypatch):
        own, far = source.segment_at(IN_DUMBBELL), PointNm(485.0, 365.0, 105.0)
        monkeypatch.setattr("cb2_assist.datasets.cave.drawn.MOST_DRAWN_PARTS", 1)
        assert source.segment_at(far) == own
        assert not source.look_at(MEET), "nothing is drawn in part yet"
        near = self.names(source, own)
        assert not source.look_at(MEET)
        assert source.look_at(far)
        assert not source.look_at(MEET), "what is not asked for again is not drawn any more"
        source.look_at(far)
        away = self.names(source, own)
        assert len(away) > 0
        assert set(away) != set(near)
        assert not source.look_at(far)

    def test_before_anything_was_asked_some_of_it_is_drawn(self, source, monkeypatch):
        own = source.segment_at(IN_DUMBBELL)
        monkeypatch.setattr("cb2_assist.datasets.cave.drawn.MOST_DRAWN_PARTS", 1)
        assert 0 < len(self.names(source, own)) < len(source._graph.parts(own))


@pytest.mark.parametrize("bad", ["nosuch://h/x", "precomputed://nosuch://h/x", "no address"])
def test_a_kind_of_address_that_nobody_knows_is_said(world, bad):
    world.cave.deployment.em = bad
    with pytest.raises(DatasetError, match=r"nosuch://h/x|no address"):
        open_dataset(None, world.file)


def test_a_server_that_was_away_is_asked_again(tmp_path, neurites_file):
    with cave_world(tmp_path, neurites_file) as world:
        source = open_dataset(None, world.file)
        own = source.segment_at(IN_DUMBBELL)
        port = int(world.cave.url.rpartition(":")[2])
    with pytest.raises(NoAnswerError, match="nothing is lost"):
        source.current(own, IN_DUMBBELL)
    with (
        closing(open_dataset_file(neurites_file)) as local,
        StandIn.of(local, accounts=[EDITOR], port=port),
    ):
        assert source.current(own, IN_DUMBBELL) == (own, "")
        assert len(source.arbour(own).points) > 1
    source.close()


def test_a_server_that_goes_away_is_said_and_comes_back(tmp_path, neurites_file):
    with cave_world(tmp_path, neurites_file) as world:
        source = open_dataset(None, world.file)
        voxel = PointVoxel(2, 2, 2).to_nm(source.resolution)
        source.segment_at(voxel)
    with pytest.raises(NoAnswerError, match="cannot be reached"):
        source.current(source._graph.shape.n_layers << 56, IN_DUMBBELL)
    source.close()
    with pytest.raises(NoAnswerError, match="cannot be reached"):
        open_dataset(None, world.file)
