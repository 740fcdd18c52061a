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
from golden import isa
from golden.config import CONFIGS
from golden.isa import COUNTERS, ErrorCode
from golden.machine import run
from rf8.export import DRIVER, registers
from rf8.export.flat import flat_image, save_flat
from rf8.export.image import pack_block
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
    def call(image, actions="load", activations=b""):
        (tmp_path / "image").write_bytes(image)
        (tmp_path / "x").write_bytes(activations)
        done = subprocess.run(
            [driver, tmp_path / "image", actions, tmp_path / "x"],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        lines = [line.split() for line in done.stdout.splitlines()]
        return {words[0]: words[1:] for words in lines if words[0] != "logits"}, [
            [int(word) for word in words[1:]] for words in lines if words[0] == "logits"
        ]

    return call


def test_logits_are_golden_and_errors_are_told(drive, program):
    head = program.kernels["lm_head"]
    random = np.random.default_rng(SEED)
    mantissas = random.integers(-(1 << 15), 1 << 15, (TINY.cols, head.inputs)).astype("<i2")
    exponents = [-13, -10]
    said, logits = drive(
        flat_image(program),
        "run",
        b"".join(
            e.to_bytes(1, "little", signed=True) + x.tobytes()
            for e, x in zip(exponents, mantissas, strict=True)
        ),
    )

    memory = np.zeros(program.memory_bytes, np.uint8)
    for address, data in program.sections.values():
        memory[address : address + data.size] = data
    for column, exponent in enumerate(exponents):
        block = np.frombuffer(pack_block(mantissas[column].tolist(), exponent, TINY), np.uint8)
        at = head.x.address + column * head.x.stride
        memory[at : at + block.size] = block
    golden = run(memory, head.programs[TINY.cols], TINY)
    assert golden.error is ErrorCode.NONE
    for column in range(TINY.cols):
        at = head.y.address + column * head.y.stride
        assert logits[column] == memory[at : at + 4 * head.outputs].view("<i4").tolist()
    assert len(set(logits[0])) > 90

    assert said["open"] == ["0", result("WRONG_ID")]
    assert said["load"] == ["0", "ok"]
    assert said["small"] == [result("OUT_OF_BOUNDS")]
    assert said["find"] == ["0", result("NOT_FOUND")]
    assert said["bounds"] == [result("OUT_OF_BOUNDS"), result("OUT_OF_BOUNDS"), result("NOT_FOUND")]
    assert said["run"] == ["0", "NONE"]
    counters = dict(zip(said["counters"][::2], map(int, said["counters"][1::2]), strict=True))
    assert list(counters) == list(COUNTERS)
    for name in ("read_weights", "written", "slices", "column_slices"):
        assert counters[name] == getattr(golden, name)
    assert said["illegal"] == [result("STOPPED"), "ILLEGAL_INSTRUCTION", "at", "0x000ff000"]
    assert said["twice"] == ["0", result("BUSY"), result("TIMEOUT")]
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
    kernels = 64 + 16 * len(program.sections)
    cases = {
        "BAD_MAGIC": [b"X" + image[1:], bytes(64)],
        "BAD_VERSION": [changed(image, 8, 2)],
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
            changed(image, 44, 0xFFFFFFFF),  # kernels
            changed(image, 64, 0xFFFFFFF0),  # a section's address, size, place in the file
            changed(image, 68, 0xFFFFFFFF),
            changed(image, 72, len(image) - 1),
            changed(image, kernels + 64, 0xFFFFFFFF),  # inputs
            changed(image, kernels + 68, 0xFFFFFFFF),  # outputs
            changed(image, kernels + 72, program.memory_bytes),  # activations
            changed(image, kernels + 84, 0x80000000),  # from column to column
            changed(image, kernels + 88, program.memory_bytes),  # program
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
    assert words[:3] == (1, zlib.crc32(image[16:]), len(image))
    assert words[3:8] == (
        program.memory_bytes, registers.config_word(TINY),
        TINY.span, TINY.max_k, TINY.scratch_words,
    )  # fmt: skip
    assert words[8:10] == (2, len(program.kernels)) and not any(words[10:])
    for number, (address, data) in enumerate(program.sections.values()):
        at, size, offset, zero = struct.unpack_from("<4I", image, 64 + 16 * number)
        assert (at, size, zero, offset % 16) == (address, data.size, 0, 0)
        assert image[offset : offset + size] == data.tobytes()
    for number, kernel in enumerate(program.kernels.values()):
        record = struct.unpack_from("<64s24I", image, 64 + 32 + 160 * number)
        assert record[0].rstrip(b"\0").decode() == kernel.name
        x, y = kernel.x, kernel.y
        assert record[1:7] == (
            kernel.inputs, kernel.outputs, x.address, x.stride, y.address, y.stride,
        )  # fmt: skip
        programs = {columns + 1: at for columns, at in enumerate(record[7:23]) if at}
        assert programs == kernel.programs


def test_result_names_and_the_documented_codes():
    page = (Path(__file__).parents[2] / "docs" / "driver.md").read_text()
    lines = re.findall(r"^\| (-?\d+) \| `(\w+)`", page, re.MULTILINE)
    assert {name: code for code, name in lines} == RESULTS


def test_documented_program_compiles(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "driver.md").read_text()
    (tmp_path / "main.c").write_text(re.search(r"```c\n(.*?)```", page, re.DOTALL).group(1))
    for config in (TINY, TINY.replace(act_bits=8, cols=16)):
        (tmp_path / "rf8_regs.h").write_text(registers.c_header(config))
        command = [*CC, "-D_GNU_SOURCE", f"-I{tmp_path}", f"-I{DRIVER}", "main.c"]
        subprocess.run([*command, str(DRIVER / "rf8.c"), "-o", "main"], check=True, cwd=tmp_path)


def test_header_has_every_constant_of_the_instruction_set():
    text = registers.c_header(TINY)
    found = dict(re.findall(r"#define (\w+) (0x[0-9a-f]+)u", text))
    for name, (offset, _) in isa.REGISTERS.items():
        assert int(found[f"RF8_REG_{name}"], 16) == offset
    for name in COUNTERS:
        assert int(found[f"RF8_COUNTER_{name.upper()}"], 16) == isa.counter_offset(name)
    codes = dict(re.findall(r"RF8_ERROR_(\w+) = (\d+)", text))
    assert codes == {code.name: str(code.value) for code in ErrorCode}
    assert set(registers.FIELDS) == set(registers.ACCESS) == set(isa.REGISTERS)
    assert set(registers.ERROR_MEANINGS) == set(ErrorCode)
