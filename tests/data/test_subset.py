from __future__ import annotations

import pytest

from helpers import layouts
from helpers.pairs import check_pairs
from sd4match.data import SPairConfig, Subset, first, of_categories
from sd4match.errors import InputError
from sd4match.testing import FakePairs


def test_subsets_of_categories_keep_the_order(tmp_path):
    layouts.write_spair(tmp_path)
    data = SPairConfig(root=tmp_path, split="test").build()
    cats = of_categories(data, ["cat"])
    check_pairs(cats)
    assert (len(cats), cats.categories, cats.reference) == (3, ("cat",), "box")
    assert of_categories(data, []) is data
    with pytest.raises(InputError, match="no category 'dog' in spair"):
        of_categories(data, ["dog"])


def test_a_category_of_targets_alone_has_no_pairs():
    data = FakePairs(pairs=5)
    data.categories = (*data.categories, "fish")
    with pytest.raises(InputError, match=r"has a source of the category \['fish'\]; sources are of: left"):
        of_categories(data, ["fish"])


def test_subsets_of_indices_keep_their_order():
    data = FakePairs(pairs=5)
    subset = Subset(data, [3, 1])
    assert subset.indices == (3, 1)
    assert [record.pair_id for record in subset] == ["pair-3", "pair-1"]
    assert [key.pair_id for key in first(data, 2).keys] == ["pair-0", "pair-1"]
    assert first(data, 5) is first(data, None) is data
