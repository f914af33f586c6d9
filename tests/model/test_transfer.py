"""One transfer for all arrays, and batches that shrink until they fit."""

import numpy as np
import pytest
import torch

from cb2_assist.core.errors import ModelError
from cb2_assist.model.transfer import InBatches, to_device


def test_arrays_keep_their_shapes_and_values():
    arrays = [
        np.arange(n, dtype=np.float32).reshape(shape)
        for n, shape in ((6, (2, 3)), (1, (1,)), (0, (0, 4)), (24, (2, 3, 4)))
    ]
    got = to_device(arrays, torch.device("cpu"))

    for tensor, array in zip(got, arrays, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), array)


def test_arrays_are_sent_together():
    sent = to_device([np.zeros(3, np.float32), np.ones((2, 2), np.float32)], torch.device("cpu"))

    assert len({t.untyped_storage().data_ptr() for t in sent}) == 1


class Memory:
    """Stands for a GPU that holds so many jobs."""

    def __init__(self, room):
        self.room, self.tried = room, []

    def __call__(self, part):
        self.tried.append(len(part))
        if len(part) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [job * 10 for job in part]


@pytest.mark.parametrize("room", [1, 3, 5, 100])
def test_all_are_answered_in_order_whatever_fits(room):
    assert InBatches(16)(range(37), Memory(room)) == [10 * n for n in range(37)]


def test_batches_that_do_not_fit_are_halved_for_good():
    in_batches, memory = InBatches(16), Memory(5)
    in_batches(range(20), memory)
    assert memory.tried == [16, 8, 4, 4, 4, 4, 4]
    in_batches(range(8), memory)
    assert memory.tried[7:] == [4, 4]


def test_no_room_for_one_is_told_in_words():
    with pytest.raises(ModelError, match=r"not enough for one decision.*--device cpu"):
        InBatches(4)(range(4), Memory(0))


def test_another_error_is_not_taken_for_a_full_memory():
    def broken(_part):
        raise RuntimeError("a kernel failed")

    with pytest.raises(RuntimeError, match="a kernel failed"):
        InBatches(4)(range(4), broken)


def test_nothing_to_do_runs_nothing():
    memory = Memory(1)
    assert InBatches()([], memory) == []
    assert memory.tried == []
