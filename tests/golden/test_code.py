import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden.code import MAX_LENGTH, NOT_A_LEVEL, Table, fit, histogram, levels, ranks, steps
from golden.format import SPANS, VALUES, in_span


@pytest.mark.parametrize("span", SPANS)
def test_levels_are_the_multiples_of_the_unit_among_the_codes(span):
    codes = np.arange(256, dtype=np.uint8)
    own = codes[in_span(codes, span)]
    unit = 2.0 ** max(1, 16 - span)  # the lowest power of two that is a code
    whole = own[VALUES[own] % unit == 0]
    assert sorted(VALUES[whole[whole < 128]]) == list(VALUES[levels(span)])
    assert (VALUES[levels(span)] / unit == steps(span)).all()
    places = ranks(span)
    assert (np.flatnonzero(places != NOT_A_LEVEL) == whole).all()
    assert (levels(span)[places[whole]] == (whole & 0x7F)).all()


def test_the_first_levels_are_all_numbers_but_11_and_13():
    assert list(steps(16)[:24]) == [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 15, 16, 17, 18, 20, 24, 28, 30, 32, 34, 36
    ]  # fmt: skip
    assert (len(levels(16)), steps(16)[-1]) == (91, 30720)
    assert (len(levels(8)), steps(8)[-1]) == (42, 240)


def test_histogram_counts_by_rank_whatever_the_sign():
    codes = levels(8)[[0, 3, 3, 0, 5, 41]] | np.array([0, 128, 0, 0, 128, 0], np.uint8)
    found = histogram(codes.reshape(2, 3), 8)
    assert {i: n for i, n in enumerate(found) if n} == {0: 2, 3: 2, 5: 1, 41: 1}


def test_histogram_refuses_what_is_no_level():
    with pytest.raises(ValueError, match="0x01 is no level of span 16"):
        histogram(np.array([0, 1], np.uint8), 16)
    with pytest.raises(ValueError, match="0x80 is no level"):
        histogram(np.array([0x80], np.uint8), 16)


def shapes(size: int, deepest: int) -> list[tuple[int, ...]]:
    """All codes of ``size`` ranks whose lengths do not fall, up to ``deepest`` bits."""
    found = []
    for lengths in itertools.combinations_with_replacement(range(1, deepest + 1), size):
        if sum(2.0**-n for n in lengths) == 1:
            found.append(lengths)
    return found


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=2, max_size=7))
def test_fit_is_as_short_as_the_best_of_all_tables(counts):
    counts[-1] += 1
    found = fit(counts)
    ordered = np.array(counts)[found.order].tolist()
    best = min(sum(map(int.__mul__, ordered, s)) for s in shapes(len(counts), 6))
    assert int((np.array(counts) * found.lengths).sum()) == best
    assert found.size == len(counts)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 2, 50, 10**6, 10**12]), min_size=1, max_size=91).filter(any))
def test_codewords_are_a_complete_canonical_prefix_code(counts):
    found = fit(counts)
    lengths, words = found.lengths.astype(int), found.codewords.astype(int)
    expected_bits = lengths + (np.arange(found.size) > 0)
    assert lengths.max() <= MAX_LENGTH and (np.diff(lengths[found.order]) >= 0).all()
    assert sorted(found.order) == list(range(found.size))
    lengths, words = lengths[found.order], words[found.order]
    # Left-aligned, each codeword owns a range; in order they fill everything.
    starts = words << (MAX_LENGTH - lengths)
    ends = starts + (1 << (MAX_LENGTH - lengths))
    assert starts[0] == 0 and ends[-1] == 1 << MAX_LENGTH and (starts[1:] == ends[:-1]).all()
    used = np.zeros(91, np.int64)
    used[: len(counts)] = counts
    assert found.size_of(used) == (used[: found.size] * expected_bits).sum()


def test_zeros_alone_cost_a_bit_each():
    table = fit([1000])
    assert table.size == 2 and table.size_of(np.array([1000, 0])) == 1000


def test_a_table_that_leaves_codewords_open_or_has_too_many_is_refused():
    with pytest.raises(ValueError, match="left without meaning"):
        Table((1,) + (0,) * 11)
    with pytest.raises(ValueError, match="missing"):
        Table((1, 3) + (0,) * 10)
    with pytest.raises(ValueError, match="12 counts"):
        Table((2,))
    with pytest.raises(ValueError, match="12 counts"):
        Table((-1, 6) + (0,) * 10)
    with pytest.raises(ValueError, match="zero is 2, must be 0 to 1"):
        Table((2,) + (0,) * 11, zero=2)


def test_a_rank_without_codeword_is_no_part_of_a_size():
    with pytest.raises(ValueError, match="rank 7 has no codeword"):
        fit([5, 3, 1]).size_of(np.array([0, 0, 0, 0, 0, 0, 0, 2]))


@pytest.mark.parametrize("width", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("shape", [1.0, 1.3, 1.6, 2.0])
def test_a_table_is_near_the_entropy_of_weights_that_follow_the_law(shape, width):
    # Generalized Gaussians, as many steps to their deviation.
    rng = np.random.default_rng(8)
    magnitudes = rng.gamma(1 / shape, size=200_000) ** (1 / shape)
    magnitudes *= width / np.sqrt((magnitudes**2).mean())
    table_steps = steps(16)
    middle = (table_steps[1:] + table_steps[:-1]) / 2
    counts = np.bincount(np.searchsorted(middle, magnitudes), minlength=91)
    share = counts[counts > 0] / counts.sum()
    entropy = -(share * np.log2(share)).sum() + 1 - counts[0] / counts.sum()
    coded = fit(counts).size_of(counts) / counts.sum()
    assert entropy <= coded <= 1.025 * entropy
