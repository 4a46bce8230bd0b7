"""Packed texts are the list they were made of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actlab.data.csv_file import PackedTexts

# whatever a decoded file can hold: anything but lone surrogates
TEXTS = st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=20), max_size=5)


def packed_of(blocks: list[list[str]]) -> PackedTexts:
    packed = PackedTexts()
    for block in blocks:
        packed.extend(block)
    return packed


@given(TEXTS)
def test_it_reads_like_the_list(blocks: list[list[str]]) -> None:
    whole = [text for block in blocks for text in block]
    packed = packed_of(blocks)
    assert len(packed) == len(whole)
    assert list(packed) == whole
    assert [packed[i] for i in range(-len(whole), len(whole))] == whole + whole
    assert list(packed[1:-1:2]) == whole[1:-1:2]
    assert all(type(text) is str for text in packed)


def test_a_place_outside_is_refused() -> None:
    with pytest.raises(IndexError):
        packed_of([["a"], ["b"]])[2]
