"""Two-term forms: every significand is made, and no lane's shift or bin is larger than said."""

import pytest

from golden.format import SIGNIFICANDS
from golden.forms import SHARED, SHIFTED, find_forms


@pytest.mark.parametrize("forms", [SHIFTED, SHARED], ids=["shifted", "shared"])
def test_every_significand_is_made(forms):
    # The seventh code is no weight; lanes need some form for it.
    assert len(forms.codes) == 8 and forms.codes[7] == forms.codes[6]
    made = [forms.multiple(form) << form.shift for form in forms.codes[:7]]
    assert made == list(SIGNIFICANDS)
    assert forms.spread == max(form.shift for form in forms.codes)
    assert forms.largest == max(map(forms.multiple, forms.codes))
    assert forms.bare == any(form.term is None for form in forms.codes)


@pytest.mark.parametrize("forms", [SHIFTED, SHARED], ids=["shifted", "shared"])
@pytest.mark.parametrize("align", range(5))
@pytest.mark.parametrize("exponents", [8, 16])
def test_largest_in_bin(forms, align, exponents):
    largest = 0
    for form, significand in zip(forms.codes, SIGNIFICANDS, strict=False):
        for exponent in range(exponents):
            place = exponent + form.shift
            inside = forms.multiple(form) << (place % (1 << align))
            # A bin counts in units of its lowest exponent.
            assert inside << (place >> align << align) == significand << exponent
            largest = max(largest, inside)
    assert forms.largest_in_bin(exponents, align) == largest


def test_the_smallest_shift_is_taken():
    forms = find_forms([3, 6, 12], (1, 2), (1, 4))
    assert [form.shift for form in forms.codes] == [0, 0, 1]  # 2 + 1, 2 + 4, (2 + 4) << 1


def test_what_no_form_makes_is_named():
    with pytest.raises(ValueError, match="significand 11 is no"):
        find_forms([11], (1, 2), (1, 4))
