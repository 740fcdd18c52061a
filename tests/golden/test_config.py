import pytest

from golden.config import CONFIGS, AccelConfig, get_config
from golden.format import INTEGERS


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("act_bits", [8, 16])
@pytest.mark.parametrize("align", range(5))
@pytest.mark.parametrize("span", [16, 12, 10, 8])
def test_widths_hold_the_largest_sum_and_no_more(name, act_bits, align, span):
    config = CONFIGS[name].replace(act_bits=act_bits, align=align, span=span)
    largest = (int(INTEGERS.max()) >> (16 - span)) << (act_bits - 1)
    total = config.max_k * largest
    assert -(1 << config.acc_bits - 1) <= -total and total < 1 << config.acc_bits - 1
    assert total >= 1 << config.acc_bits - 2  # one bit less would not do
    # 30 is the largest multiple that lanes without bins make, 20 that of the others.
    top = 30 << span - 1 if config.bins == 1 else 20 << (1 << align) - 1
    in_bin = config.max_k * top << act_bits - 1
    assert (1 << config.bin_bits - 2) <= in_bin < 1 << config.bin_bits - 1
    exponents = span + (0 if config.bins == 1 else 2)
    assert config.bins * (1 << align) >= exponents > (config.bins - 1) * (1 << align)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rows", 0),
        ("rows", 12),
        ("cols", 0),
        ("bus_bytes", 2),
        ("bus_bytes", 32),
        ("act_bits", 7),
        ("align", 5),
        ("span", 9),
        ("max_k", 0),
        ("scratch_words", 1000),
        ("burst_beats", 512),
        ("fifo_beats", 8),
        ("queue", 1),
        ("addr_bits", 40),
    ],
)
def test_impossible_configs_name_field_and_value(field, value):
    with pytest.raises(ValueError, match=f"config 'tiny': {field} is {value}, must be "):
        CONFIGS["tiny"].replace(**{field: value})


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="no config 'big'; there are: tiny, ecp5, sim"):
        get_config("big")


def test_configs_travel_as_plain_values():
    for config in CONFIGS.values():
        assert AccelConfig(**config.as_dict()) == config
