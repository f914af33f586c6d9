"""Real data: FIB-25 imported and compared voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest
from contracts.source import SourceContract
from fixtures_fib25 import ID_OFFSET, fib25, fib25_arrays

from cb2_assist.datasets.importer import import_volume
from cb2_assist.datasets.local import open_dataset_file

CROP = (slice(10, 110), slice(40, 130), slice(100, 180))
"""z, y, x; across several chunks."""

pytestmark = pytest.mark.shared


@pytest.mark.parametrize("which", ["ffn", "ws"])
def test_every_voxel_is_kept_with_ids_of_64_bits(shared_data, tmp_path, which):
    source = open_dataset_file(fib25(shared_data, tmp_path / which, which, CROP))
    cut = source.cutout(source.bounds)
    wanted = {k: v[CROP].T for k, v in fib25_arrays(shared_data, which).items()}
    assert tuple(source.bounds.lo) == (100, 40, 10)
    np.testing.assert_array_equal(cut.em, wanted["em"])
    ids = wanted["seg"].astype(np.uint64)
    np.testing.assert_array_equal(cut.seg, np.where(ids == 0, 0, ids + np.uint64(ID_OFFSET)))
    np.testing.assert_array_equal(source.truth_cutout(source.bounds), wanted["truth"])


def test_files_as_published_are_imported_by_key(shared_data, tmp_path):
    folder = shared_data / "fib25_medulla_ts2"
    path = import_volume(
        em=str(folder / "em_zyx_u8.npz"),
        segmentation=f"{folder / 'labels_zyx.npz'}:ffn_seg",
        truth=f"{folder / 'labels_zyx.npz'}:gt_body",
        voxel_nm=(10, 10, 10),
        id_offset=ID_OFFSET,
        out=tmp_path / "ffn",
        mesh_min_voxels=10**9,
    )
    source = open_dataset_file(path)
    assert source.bounds.shape == (250, 250, 250)
    seg = source.cutout(source.bounds).seg
    assert len(np.unique(seg)) == 255
    ffn = fib25_arrays(shared_data, "ffn")["seg"].T
    np.testing.assert_array_equal((seg % ID_OFFSET).astype(np.uint8), ffn)


class TestFib25(SourceContract):
    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, shared_data, tmp_path_factory):
        out = tmp_path_factory.mktemp("fib25") / "ffn"
        return open_dataset_file(fib25(shared_data, out, "ffn", CROP))
