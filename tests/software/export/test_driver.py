"""The C driver, compiled by a C compiler and run on the Verilated machine."""

import re
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
import tiny_models

import rf8
from golden.config import CONFIGS
from golden.isa import ErrorCode
from golden.machine import run
from golden.registers import COUNTERS, REGISTERS, counter_offset
from rf8.export import DRIVER, registers
from rf8.export.flat import flat_image, save_flat
from sim.build import build_library

TINY = CONFIGS["tiny"]
SEED = 5
CC = ["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]
RESULTS = dict(re.findall(r"(RF8_[A-Z_]+) = (-?\d+)", (DRIVER / "rf8.h").read_text()))


def result(name):
    return RESULTS[f"RF8_{name}"]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_models.save(folder)
    return rf8.compile(rf8.quantize(rf8.load_model(folder)), config="tiny")


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """The test's C program, linked with the driver and the simulator."""
    folder = tmp_path_factory.mktemp("driver")
    (folder / "rf8_regs.h").write_text(registers.c_header(TINY))
    library = build_library(TINY)
    sources = [Path(__file__).with_name("driver_main.c"), DRIVER / "rf8.c"]
    command = [*CC, f"-I{folder}", f"-I{DRIVER}", *map(str, sources), str(library)]
    subprocess.run([*command, "-o", str(folder / "main")], check=True)
    return folder / "main"


@pytest.fixture
def drive(driver, tmp_path):
    def call(image, actions="load", tokens=()):
        (tmp_path / "image").write_bytes(image)
        done = subprocess.run(
            [driver, tmp_path / "image", actions, *map(str, tokens)],
            capture_output=True, text=True, timeout=300, check=True,
        )  # fmt: skip
        lines = [line.split() for line in done.stdout.splitlines()]
        return {words[0]: words[1:] for words in lines if words[0] != "logits"}, [
            [int(word) for word in words[1:]] for words in lines if words[0] == "logits"
        ]

    return call


def test_logits_are_golden_and_errors_are_told(drive, program):
    tokens = np.random.default_rng(SEED).integers(0, 101, 2 * TINY.cols).tolist()
    said, logits = drive(flat_image(program), "run", tokens)

    memory = np.zeros(program.memory_bytes, np.uint8)
    for address, data in program.sections.values():
        memory[address : address + data.size] = data
    prefill, decode = (program.entry(TINY.cols, head).address for head in (False, True))
    assert run(memory, prefill, TINY, 0, tokens[: TINY.cols]).error is ErrorCode.NONE
    golden = run(memory, decode, TINY, TINY.cols, tokens[TINY.cols :])
    assert golden.error is ErrorCode.NONE
    for column in range(TINY.cols):
        at = program.logits.address + column * program.logits.stride
        assert logits[column] == memory[at : at + 4 * 101].view("<i4").tolist()
    assert len(set(logits[0])) > 90
    run(memory, program.entry(1, True).address, TINY, 0, tokens[:1])
    at = program.logits.address
    assert logits[TINY.cols] == memory[at : at + 4 * 101].view("<i4").tolist()

    assert said["open"] == ["0", result("WRONG_ID")]
    assert said["load"] == ["0", "ok"]
    assert said["small"] == [result("OUT_OF_BOUNDS")]
    outside = result("OUT_OF_BOUNDS")
    assert said["bounds"] == [outside, result("NOT_FOUND"), outside, outside]
    assert said["prefill"] == ["0", "NONE"] and said["run"] == ["0", "NONE"]
    counters = dict(zip(said["counters"][::2], map(int, said["counters"][1::2]), strict=True))
    assert list(counters) == list(COUNTERS)
    for name in ("read_weights", "written", "slices", "column_slices", "saturated"):
        assert counters[name] == golden.counters[name]
    assert said["illegal"] == [result("STOPPED"), "ILLEGAL_INSTRUCTION", "at", "0x000ff000"]
    assert said["twice"] == ["0", result("BUSY"), result("TIMEOUT"), result("BUSY")]
    assert said["stopped"][:2] == [result("STOPPED"), "ABORTED"]
    assert said["again"] == ["0", "NONE"]


def changed(image, offset, value, *, checksum=True):
    """``image`` with a word changed, and its checksum made right again."""
    data = bytearray(image)
    struct.pack_into("<I", data, offset, value)
    if checksum:
        struct.pack_into("<I", data, 12, zlib.crc32(data[16:]))
    return bytes(data)


def test_broken_images(drive, program):
    image = flat_image(program)
    entries = 64 + 16 * len(program.sections)
    cases = {
        "BAD_MAGIC": [b"X" + image[1:], bytes(64)],
        "BAD_VERSION": [changed(image, 8, 1)],
        "TRUNCATED": [b"", image[:63], image[:-1], image + b"\0"],
        "BAD_CHECKSUM": [changed(image, len(image) - 4, 1, checksum=False)],
        "WRONG_CONFIG": [
            changed(image, 24, registers.config_word(TINY.replace(act_bits=8))),
            changed(image, 28, 8),
            changed(image, 32, 512),
            changed(image, 36, 2048),
        ],
        "OUT_OF_BOUNDS": [
            changed(image, 20, 1 << 31),  # memory
            changed(image, 40, 0xFFFFFFFF),  # sections
            changed(image, 44, 0xFFFFFFFF),  # programs
            changed(image, 52, 0xFFFFFFFF),  # vocabulary
            changed(image, 56, program.memory_bytes),  # logits
            changed(image, 60, 0x80000000),  # from column to column
            changed(image, 64, 0xFFFFFFF0),  # a section's address, size, place in the file
            changed(image, 68, 0xFFFFFFFF),
            changed(image, 72, len(image) - 1),
            changed(image, entries, TINY.cols + 1),
            changed(image, entries + 8, program.memory_bytes),
        ],
    }
    for name, images in cases.items():
        for number, broken in enumerate(images):
            said, _ = drive(broken)
            assert said["load"][0] == result(name), (name, number)


def test_flat_image_is_as_documented(program, tmp_path):
    save_flat(program, tmp_path / "m.bin")
    image = (tmp_path / "m.bin").read_bytes()
    assert image == flat_image(program) and image[:8] == b"RF8FLAT\0"
    words = struct.unpack("<14I", image[8:64])
    assert words[:3] == (2, zlib.crc32(image[16:]), len(image))
    assert words[3:8] == (
        program.memory_bytes, registers.config_word(TINY),
        TINY.span, TINY.max_k, TINY.scratch_words,
    )  # fmt: skip
    assert words[8:10] == (2, len(program.entries))
    place = program.logits
    assert words[10:] == (program.context, 101, place.address, place.stride)
    for number, (address, data) in enumerate(program.sections.values()):
        at, size, offset, zero = struct.unpack_from("<4I", image, 64 + 16 * number)
        assert (at, size, zero, offset % 16) == (address, data.size, 0, 0)
        assert image[offset : offset + size] == data.tobytes()
    for number, e in enumerate(program.entries):
        record = struct.unpack_from("<4I", image, 64 + 32 + 16 * number)
        assert record == (e.columns, e.head, e.address, 0)


def test_result_names_and_the_documented_codes():
    page = (Path(__file__).parents[3] / "docs" / "driver.md").read_text()
    lines = re.findall(r"^\| (-?\d+) \| `(\w+)`", page, re.MULTILINE)
    assert {name: code for code, name in lines} == RESULTS


def test_documented_program_compiles(tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "driver.md").read_text()
    (tmp_path / "main.c").write_text(re.search(r"```c\n(.*?)```", page, re.DOTALL).group(1))
    for config in (TINY, TINY.replace(act_bits=8, cols=16)):
        (tmp_path / "rf8_regs.h").write_text(registers.c_header(config))
        command = [*CC, "-D_GNU_SOURCE", f"-I{tmp_path}", f"-I{DRIVER}", "main.c"]
        subprocess.run([*command, str(DRIVER / "rf8.c"), "-o", "main"], check=True, cwd=tmp_path)


def test_header_has_every_constant_of_the_instruction_set():
    text = registers.c_header(TINY)
    found = dict(re.findall(r"#define (\w+) (0x[0-9a-f]+)u", text))
    for name, (offset, _) in REGISTERS.items():
        assert int(found[f"RF8_REG_{name}"], 16) == offset
    for name in COUNTERS:
        assert int(found[f"RF8_COUNTER_{name.upper()}"], 16) == counter_offset(name)
    codes = dict(re.findall(r"RF8_ERROR_(\w+) = (\d+)", text))
    assert codes == {code.name: str(code.value) for code in ErrorCode}
    assert set(registers.FIELDS) == set(registers.ACCESS) == set(REGISTERS)
    assert set(registers.ERROR_MEANINGS) == set(ErrorCode)
