"""docs/isa.md is what `golden.isa_page` writes, and tells of everything there is."""

from pathlib import Path

from golden import isa
from golden.isa_page import page
from golden.registers import COUNTERS, REGISTERS

PAGE = Path(__file__).parents[2] / "docs" / "isa.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == page(), "run python -m golden.isa_page"


def test_everything_is_on_the_page():
    text = page()
    for name in [*isa.FIELDS, *COUNTERS]:
        assert f"| `{name}` |" in text
    for kind in (isa.Opcode, isa.ErrorCode, isa.Function, isa.After, isa.Output):
        for member in kind:
            assert f"| {member.value} | {member.name} |" in text
    for flag in isa.Flag:
        assert f"{flag.value} {flag.name}: " in text
    for name, (offset, _) in REGISTERS.items():
        assert f"| `0x{offset:02x}` | {name} |" in text
    # Only what has no effect has no meaning.
    _, after_fields = text.split("## Opcodes")
    empty = {line for line in after_fields.splitlines() if line.endswith("|  |")}
    assert empty == {"| 0 | NONE |  |"}
