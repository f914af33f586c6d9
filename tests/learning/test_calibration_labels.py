"""Which labels may calibrate, and how much each counts."""

from dataclasses import replace

import numpy as np
import pytest
from label_makers import DATASET, VERSION, decision, suggestion

from cb2_assist.core.records import Draw, Kind, Verdict
from cb2_assist.decisions.log import alternative
from cb2_assist.labels.queue_store import Waiting
from cb2_assist.labels.store import EventKind, NewEvent, labels_url, open_store
from cb2_assist.learning.calibration_labels import (
    LEAST_CLUSTERS,
    Drawn,
    calibration_labels,
    draw_weights,
)
from cb2_assist.learning.calibrators import effective_n
from cb2_assist.learning.queue import pick, ranked
from cb2_assist.suggestions.recalibration import sigmoid

OWN = {"model_sha256": "ab" * 32, "calibrator": "cal-1"}


def draw(n, *, explore=True, probability=0.05, n_open=10):
    site = suggestion(n).id
    return Draw(n + 1, site, "{}", "margin", explore, 0.1, probability, n_open).propensity()


@pytest.fixture
def store(tmp_path):
    with open_store(labels_url(tmp_path / "labels.sqlite")) as opened:
        yield opened


def found(store):
    return calibration_labels(store.labels(dataset=DATASET), **OWN)


def test_drawn_sites_count_and_others_are_counted_by_why_not(store):
    given = [
        decision(0, propensity=draw(0)),
        decision(1, Verdict.REJECT, propensity=draw(1, explore=False)),
        decision(2, propensity={"how": "cursor"}),
        decision(3, propensity={"how": "queue_list", "draw": 1, "site": "x"}),
        decision(4, Verdict.UNSURE, propensity=draw(4)),
        decision(5, propensity=draw(5), model_sha256="cd" * 32),
        decision(6, propensity=draw(6), calibrator="cal-2"),
        decision(7, propensity={"how": "queue"}),
        decision(8, propensity=draw(8), calibrator="cal-1+12345678"),
        decision(9, kind=Kind.CUT, propensity=draw(9)),
    ]
    store.append_all([NewEvent.of(d) for d in given])
    labels = found(store)

    assert [d.draw for d in labels.drawn] == [1, 2, 9, 10]
    assert labels.sample(Kind.JOIN).answer.tolist() == [True, False, True]
    assert labels.random(Kind.JOIN)[1].tolist() == [True, True]
    assert labels.views(Kind.JOIN) == [("front", "em_xy")]
    assert labels.left_out[Kind.JOIN] == {
        "asked at the cursor": 1,
        "on the list beside a drawn site": 1,
        "unsure": 1,
        "another model's score": 2,
        "chance of the draw not known": 1,
    }
    assert not labels.left_out[Kind.CUT]
    assert labels.last_event == len(given)


def test_sites_where_the_model_is_not_reliable_are_left_out_and_counted(store):
    def asked(n, ood):
        site = replace(suggestion(n), ood=replace(suggestion(n).ood, flag=ood))
        return decision(n, suggestion=site, propensity=draw(n, probability=0.5, n_open=4 - n))

    store.append_all([NewEvent.of(asked(n, n == 1)) for n in range(3)])
    labels = found(store)
    assert [d.draw for d in labels.drawn] == [1, 3]
    assert labels.left_out[Kind.JOIN] == {"where the model is not reliable": 1}
    assert labels.weight.mean() == pytest.approx(1)
    assert len(labels.sample(Kind.JOIN).answer) == 2


def test_what_is_undone_or_answered_again_does_not_count(store):
    first, _ = store.append_all(
        [NewEvent.of(decision(0, propensity=draw(0))), NewEvent.of(decision(1, propensity=draw(1)))]
    )
    user = first.user
    store.append(NewEvent(EventKind.UNDO, user, DATASET, VERSION, "undo", target=first.id))
    store.append(NewEvent.of(decision(1, Verdict.REJECT, propensity=draw(1))))

    assert found(store).sample(Kind.JOIN).answer.tolist() == [False]


def test_none_of_these_rejects_the_drawn_site_and_leaves_those_beside_it_out(store):
    chosen = replace(suggestion(1), joint="end")
    drawn, beside = (
        replace(suggestion(0), joint="end", score=0.3),
        replace(suggestion(2), joint="end"),
    )
    others = tuple(
        alternative(s, propensity=p)
        for s, p in [
            (drawn, draw(0)),
            (chosen, {"how": "queue_list", "draw": 1, "site": drawn.id}),
            (beside, {"how": "queue_list", "draw": 1, "site": drawn.id}),
        ]
    )
    answer = decision(
        1,
        Verdict.NONE,
        suggestion=chosen,
        joint=True,
        alternatives=others,
        propensity={"how": "queue_list", "draw": 1, "site": drawn.id},
    )
    store.append(NewEvent.of(answer))
    labels = found(store)

    assert [(d.score, d.accepted) for d in labels.drawn] == [(0.3, False)]
    assert labels.left_out[Kind.JOIN]["on the list beside a drawn site"] == 2


def asked(n_sites, n_draws, seed):
    """A queue worked off as the page does it: labels, with the truth of all sites."""
    rng = np.random.default_rng(seed)
    score = sigmoid(rng.normal(-1, 2, n_sites))
    answer = rng.random(n_sites) < 0.6 * score
    waiting = [Waiting(f"{k:05}", Kind.JOIN, s, s, 0) for k, s in enumerate(score.tolist())]
    out = []
    for number in range(n_draws):
        sites = ranked(waiting).sites
        p = pick(len(sites), seed * 10_000 + number)
        k = int(sites[p.place].site)
        waiting.remove(sites[p.place])
        row = (float(score[k]), bool(answer[k]), str(k), p.explore, ("v", "{}"), number + 1)
        out.append(Drawn(Kind.JOIN, (), *row, p.probability, len(sites)))
    return out, float(answer.mean())


def test_weights_make_a_ranked_queue_stand_for_all_its_sites():
    plain, weighted, truth = [], [], []
    for seed in range(25):
        drawn, rate = asked(500, 200, seed)
        accepted = np.array([d.accepted for d in drawn])
        plain.append(accepted.mean())
        weighted.append(np.average(accepted, weights=draw_weights(drawn)))
        truth.append(rate)

    assert abs(np.mean(plain) - np.mean(truth)) > 0.05
    assert np.mean(weighted) == pytest.approx(np.mean(truth), abs=0.02)


def test_a_queue_that_is_worked_off_counts_every_label_alike():
    drawn, rate = asked(60, 60, 3)

    np.testing.assert_allclose(draw_weights(drawn), 1)
    assert np.mean([d.accepted for d in drawn]) == pytest.approx(rate)


def test_draws_by_rank_out_of_many_count_for_next_to_nothing():
    drawn, _ = asked(5000, 60, 1)
    weight = draw_weights(drawn)
    random = np.array([d.explore for d in drawn])

    assert weight[random].min() > 50 * weight[~random].max()
    assert effective_n(weight) < 2 * random.sum()


def test_whole_segments_are_resampled_where_there_are_enough(store):
    for n in range(2 * LEAST_CLUSTERS):
        site = replace(suggestion(n).site, segment=5 + n // 2)
        made = replace(suggestion(n), site=site, id=site.key(DATASET, VERSION))
        store.append(NewEvent.of(decision(n, suggestion=made, propensity=draw(n))))
    assert len(set(found(store).sample(Kind.JOIN).group.tolist())) == LEAST_CLUSTERS


def test_labels_of_one_segment_stand_alone(store):
    store.append_all([NewEvent.of(decision(n, propensity=draw(n))) for n in range(5)])
    assert found(store).sample(Kind.JOIN).group.tolist() == [0, 1, 2, 3, 4]


def test_an_empty_file_has_no_labels(store):
    labels = found(store)

    assert labels.drawn == ()
    assert len(labels.sample(Kind.CUT)) == 0
    assert labels.last_event == 0
