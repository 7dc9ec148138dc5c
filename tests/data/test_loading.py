"""Decoding and preprocessing of photos on threads."""

from __future__ import annotations

import os
import threading
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sd4match.backbones.preprocessing import squash
from sd4match.data.collate import make_images, make_pairs
from sd4match.data.loading import Prefetcher, Prepared, prepare_all
from sd4match.errors import PhotoError
from sd4match.testing import FakePairs


def views():
    return {"small": lambda photo: squash(photo, (8, 8)), "large": lambda photo: squash(photo, (16, 16))}


class OneBad(FakePairs):
    def photo(self, image_id):
        if image_id == "2":
            raise PhotoError("2 is no photo")
        return super().photo(image_id)


def test_threads_prepare_the_same_as_a_loop():
    data, ids = FakePairs(photos=9), [str(number) for number in (3, 0, 8, 3)]
    plain = make_images([data.photo(image_id) for image_id in ids], [None] * 4, views())
    for number, prepared in enumerate(prepare_all(data, ids, views())):
        assert isinstance(prepared, Prepared)
        for name, view in prepared.views.items():
            assert torch.equal(view.pixels, plain.views[name].pixels[number])
            assert view.digest == plain.views[name].views[number].digest


def test_an_unreadable_photo_does_not_affect_the_others():
    found = prepare_all(OneBad(), ["1", "2", "3"], views())
    assert [isinstance(result, PhotoError) for result in found] == [False, True, False]
    data = OneBad(photos=3)
    record = next(record for record in data if "2" in (record.source_id, record.target_id))
    with pytest.raises(PhotoError, match="2 is no photo"):
        make_pairs([record], data, views())


def test_photos_are_prepared_at_the_same_time():
    together = threading.Barrier(min(2, os.cpu_count() or 1), timeout=5)

    def meet(photo):
        together.wait()
        return squash(photo, (8, 8))

    assert all(isinstance(result, Prepared) for result in prepare_all(FakePairs(), ["0", "1"], {"small": meet}))


@given(st.lists(st.tuples(st.integers(0, 9), st.none() | st.integers(0, 9)), max_size=20))
def test_prefetcher_returns_the_value_of_the_key_whatever_was_announced(asked):
    def load(key):
        if key == 7:
            raise PhotoError("seven")
        return key * 10

    prefetcher = Prefetcher(load)
    for key, next_key in asked:
        if key == 7:
            with pytest.raises(PhotoError, match="seven"):
                prefetcher.get(key, next_key=next_key)
        else:
            assert prefetcher.get(key, next_key=next_key) == key * 10


def test_prefetcher_loads_the_next_value_once_on_another_thread():
    loaded = []

    def load(key):
        loaded.append((key, threading.current_thread() is threading.main_thread()))
        return key

    prefetcher = Prefetcher(load)
    prefetcher.get(1, next_key=2)
    until = time.monotonic() + 5
    while len(loaded) < 2 and time.monotonic() < until:
        time.sleep(0.001)
    assert prefetcher.get(2) == 2
    assert loaded == [(1, True), (2, False)]


def test_torch_uses_one_thread_on_photo_threads_and_its_own_number_elsewhere():
    here = torch.get_num_threads()

    def threads_of_torch(photo):
        counts.append(torch.get_num_threads())
        return squash(photo, (8, 8))

    counts = []
    Prefetcher(lambda key: prepare_all(FakePairs(), ["0", "1"], {"small": threads_of_torch})).get(0, next_key=1)
    prepare_all(FakePairs(), ["0", "1"], {"small": threads_of_torch})
    assert set(counts) == {1}
    assert torch.get_num_threads() == here
    elsewhere = []
    other = threading.Thread(target=lambda: elsewhere.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert elsewhere == [here]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_starts_its_own_threads():
    prepare_all(FakePairs(), ["0", "1"], {})
    child = os.fork()
    if child == 0:
        os._exit(0 if len(prepare_all(FakePairs(), ["0", "1"], {})) == 2 else 1)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0
            return
        time.sleep(0.01)
    os.kill(child, 9)
    pytest.fail("the forked process waits for threads that it does not have")
