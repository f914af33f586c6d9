"""Each distance against an independent computation of its formula."""

import numpy as np
import pytest
from scipy.spatial import distance as scipy_distance
from scipy.stats import wasserstein_distance
from sklearn.neighbors import NearestNeighbors

from cb2_assist.model.ood.distances import (
    DISTANCES,
    K_NEAREST,
    Space,
    class_mahalanobis,
    directions,
    nearest_neighbour,
    on_sphere,
    relative_mahalanobis,
    sliced_wasserstein,
)

WIDTH = 6


def gaussian(seed):
    """A covariance and the W of its inverse, by Cholesky instead of eigenvectors."""
    a = np.random.default_rng(seed).normal(size=(WIDTH, WIDTH))
    covariance = a @ a.T + 0.5 * np.eye(WIDTH)
    return np.linalg.inv(covariance), np.linalg.cholesky(np.linalg.inv(covariance))


@pytest.fixture
def x():
    return np.random.default_rng(1).normal(size=(25, WIDTH)).astype(np.float32)


MEANS = np.random.default_rng(2).normal(size=(2, WIDTH))


def by_scipy(x, inverse):
    return [min(scipy_distance.mahalanobis(row, m, inverse) for m in MEANS) for row in x]


def test_class_mahalanobis_is_the_distance_to_the_nearest_class(x):
    inverse, whiten = gaussian(3)

    assert class_mahalanobis(x, MEANS, whiten) == pytest.approx(by_scipy(x, inverse))


def test_relative_mahalanobis_takes_the_background_off(x):
    inverse, whiten = gaussian(3)
    of_all, whiten_all = gaussian(4)
    middle = np.full((1, WIDTH), 0.3)
    background = [scipy_distance.mahalanobis(row, middle[0], of_all) ** 2 for row in x]

    found = relative_mahalanobis(x, MEANS, whiten, middle, whiten_all)

    assert found == pytest.approx(np.square(by_scipy(x, inverse)) - background)


@pytest.mark.parametrize("m", [3, K_NEAREST, 40])
def test_nearest_neighbour_is_scikit_learns(x, m):
    sample = on_sphere(np.random.default_rng(5).normal(size=(m, WIDTH)))
    k = min(K_NEAREST, m)
    far, _ = NearestNeighbors(n_neighbors=k).fit(sample).kneighbors(on_sphere(x))

    assert nearest_neighbour(x, sample) == pytest.approx(far[:, -1], abs=1e-6)


def test_nearest_neighbour_does_not_see_length(x):
    sample = on_sphere(x[:12])

    assert nearest_neighbour(7 * x, sample) == pytest.approx(nearest_neighbour(x, sample))


@pytest.mark.parametrize(("n", "m"), [(25, 25), (25, 40), (3, 1)])
def test_sliced_wasserstein_is_the_mean_of_distances_on_lines(x, n, m):
    x = x[:n]
    y = np.random.default_rng(6).normal(0.5, 2.0, size=(m, WIDTH))
    lines = directions(WIDTH).T
    by_line = [wasserstein_distance(x @ t, y @ t) for t in lines]

    assert np.linalg.norm(lines, axis=1) == pytest.approx(1.0)
    assert sliced_wasserstein(x, y) == pytest.approx(np.mean(by_line))
    assert sliced_wasserstein(y, x) == pytest.approx(np.mean(by_line))


def test_sliced_wasserstein_of_a_set_that_was_moved_is_how_far(x):
    moved = x + np.arange(WIDTH, dtype=np.float32)

    far = np.abs(np.arange(WIDTH) @ directions(WIDTH)).mean()
    assert sliced_wasserstein(x, moved) == pytest.approx(far, rel=1e-5)
    assert sliced_wasserstein(x, x[::-1]) == pytest.approx(0.0, abs=1e-12)


def test_nothing_has_no_distance_to_a_set(x):
    assert np.isnan(sliced_wasserstein(x[:0], x))
    assert np.isnan(sliced_wasserstein(x, x[:0]))


@pytest.mark.parametrize("name", DISTANCES)
def test_every_distance_of_single_decisions_grows_away_from_training(name):
    rng = np.random.default_rng(7)
    _, whiten = gaussian(3)
    tensors = {
        "means": np.ones((1, WIDTH)),
        "whiten": 4 * whiten,
        "background_mean": np.zeros((1, WIDTH)),
        "background_whiten": whiten,
        "sample": on_sphere(rng.normal(1.0, 0.1, size=(30, WIDTH))),
        "seen_means": np.ones((1, WIDTH)),
        "seen_whiten": 2 * whiten,
        "scales": np.array([3.0, 2.0]),
    }
    step = np.linspace(0, 1, 6)[:, None] * np.array([-2.0, 1, -2, 1, -2, 1])

    x = 1 + step
    if DISTANCES[name].space is Space.BOTH:
        x = np.hstack([x, x])

    found = DISTANCES[name].of(x, *(tensors[k] for k in DISTANCES[name].needs))

    assert found.shape == (6,)
    assert (np.diff(found) > 0).all()
