"""The page of families and well-known models."""

import pytest

from rf8.report import support


@pytest.mark.parametrize("kind", ["olmo2", "gemma3_text"])
def test_a_family(kind):
    found = support.check_family(kind, rtl=False)
    assert not found.error and found.gguf and found.differences is None
    assert found.nearest > 0.9 and found.compensated > 0.9
    assert found.decoded > 0.99 and found.exact > 0.9999


def test_rtl_is_compared():
    found = support.check_family("qwen3")
    assert found.compared > 10_000 and found.differences == 0


def test_sizes_are_those_of_the_model():
    """Three smaller models say what the whole one is; small ones are rounded up to pages."""
    known = support.Known("small", "llama", (4, 64, 4, 2, 16, 128, 5000, True))
    found = support.sizes(known, "ecp5")
    whole = support._measured(known.config(4, 5000), "small", support.get_config("ecp5"), 60)
    memory, *others = whole
    assert abs(found.memory - memory) < 0.1 * memory
    for told, exact in zip((found.token, found.cycles), others, strict=True):
        assert abs(told - exact) < 0.01 * exact


def test_models_that_do_not_fit_say_why():
    wide = support.Known("wide", "llama", (2, 64, 4, 2, 16, 4097, 5000, True))
    assert "dot products of 4097 elements" in support.sizes(wide, "ecp5").error
    deep = support.Known("deep", "llama", (10**6, 64, 4, 2, 16, 128, 5000, True))
    assert "GiB of memory, 4 are addressed" in support.sizes(deep, "ecp5").error


def test_page():
    checks = [
        support.Check("llama", "Llama", 0.98, 0.1, 0.99, 0.999, 0.99999, 1234, 0, True),
        support.Check("gemma2", "Gemma 2", error="a soft cap"),
    ]
    sizes = [support.Size("One", "llama", "sim", 5_000_000, 1_000_000, 100, "too large")]
    text = support.page(checks, sizes)
    assert "| Llama | `llama` | 0.9800 | 0.100 | 0.9900 | 0.99900 | 0.999990 | 1,234 | 0 |" in text
    assert "| Gemma 2 | `gemma2` | not yet: a soft cap |" in text
    assert "| One | `llama` | 5 MB | 1.0 MB | 100 | 5,000,000.0 | no: too large |" in text
