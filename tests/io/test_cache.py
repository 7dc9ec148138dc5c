from __future__ import annotations

import threading

import pytest
import torch

from sd4match.errors import SD4MatchError
from sd4match.hashing import digest
from sd4match.io.cache import DamagedEntryWarning, Store


def test_digests_tell_content_apart():
    ones = torch.ones(4)
    same = digest("x", ones)
    assert same == digest("x", torch.ones(4))
    assert len({same, digest("x", ones.half()), digest("x", ones[None]), digest("y", ones), digest(("x", 1))}) == 5


def test_what_is_put_comes_back(tmp_path):
    store = Store(tmp_path)
    value = torch.randn(3, 4)[:, ::2]
    store.put("ab", {"values": value}, {"unit": "cells"})
    tensors, metadata = store.get("ab")
    assert torch.equal(tensors["values"], value)
    assert metadata == {"unit": "cells"}
    assert "ab" in store
    assert store.get("cd") is None


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 400])
def test_a_damaged_entry_is_told_and_removed(tmp_path, content):
    store = Store(tmp_path)
    store.put("ab", {"values": torch.ones(2)})
    store.path("ab").write_bytes(content)
    with pytest.warns(DamagedEntryWarning, match="it is computed again"):
        assert store.get("ab") is None
    assert "ab" not in store


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SD4MatchError, match="cannot write"):
        Store(tmp_path / "file").put("ab", {"x": torch.ones(1)})


def test_several_writers_and_readers(tmp_path):
    """An entry is never seen half written."""
    store, value, seen = Store(tmp_path), torch.arange(40_000.0), []

    def write():
        for _ in range(20):
            store.put("ab", {"x": value})

    def read():
        for _ in range(60):
            entry = store.get("ab")
            seen.append(entry is None or torch.equal(entry[0]["x"], value))

    threads = [threading.Thread(target=run) for run in (write, write, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(seen)
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["ab.safetensors"]
