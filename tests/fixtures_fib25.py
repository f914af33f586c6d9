"""FIB-25 medulla (Takemura et al. 2015) as local datasets, for tests with the shared data.

Import from here and write a fixture, e.g. `return open_dataset_file(fib25_ffn(shared_data, tmp))`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cb2_assist.datasets.importer import check_em, check_ids, grid_of, shift_ids
from cb2_assist.datasets.writer import Description, Volume, write_dataset

ID_OFFSET = 2**60
"""Added to every id, so that ids need all 64 bits."""
CROP = (slice(None), slice(None), slice(None))

_LICENCE = "CC BY 3.0 US"
_CITATION = (
    "Takemura et al. 2015 PNAS 112:13711 (FIB-25); Parag et al. 2015 PLoS ONE 10(5):e0125825; "
    "Januszewski et al. 2018 Nat Methods 15:605 (FFN)"
)


def fib25_arrays(shared_data: Path, which: str) -> dict[str, NDArray]:
    """`em`, `seg` (`ffn` or `ws`, ids as published) and `truth`, axes z, y, x."""
    folder = shared_data / "fib25_medulla_ts2"
    with np.load(folder / "em_zyx_u8.npz", allow_pickle=False) as f:
        em = f["em"]
    with np.load(folder / "labels_zyx.npz", allow_pickle=False) as f:
        truth = f["gt_body"]
        if which == "ffn":
            seg = f["ffn_seg"]
        else:
            supervoxels, pairs = f["ws_supervoxel"], f["ws_sv_to_segment"]
            segment_of = np.zeros(int(supervoxels.max()) + 1, np.uint64)
            segment_of[pairs[:, 0]] = pairs[:, 1]
            seg = segment_of[supervoxels]
    return {"em": em, "seg": seg, "truth": truth}


def fib25(shared_data: Path, out: Path, which: str, crop_zyx: tuple[slice, ...] = CROP) -> Path:
    """Write `out` and return its dataset.toml; `crop_zyx` keeps tests quick."""
    arrays = {k: v[crop_zyx].T for k, v in fib25_arrays(shared_data, which).items()}
    offset_nm = tuple(10.0 * (s.start or 0) for s in reversed(crop_zyx))
    volume = Volume(
        grid_of((10.0, 10.0, 10.0), offset_nm),
        check_em("em", arrays["em"]),
        shift_ids(check_ids(which, arrays["seg"]), ID_OFFSET),
        check_ids("truth", arrays["truth"]),
    )
    about = Description(f"fib25-{which}", "fly", _LICENCE, _CITATION)
    return write_dataset(out, volume, about)


def fib25_ffn(shared_data: Path, tmp: Path, crop_zyx: tuple[slice, ...] = CROP) -> Path:
    """FIB-25 with the flood-filling segmentation (Januszewski et al. 2018): dataset.toml."""
    return fib25(shared_data, tmp / "fib25-ffn", "ffn", crop_zyx)
