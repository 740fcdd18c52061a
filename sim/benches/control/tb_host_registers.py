"""The control registers, driven by an AXI4-Lite manager that takes its time."""

from collections.abc import Iterator

import cocotb
from cocotb.triggers import FallingEdge, RisingEdge
from cocotbext.axi import AxiLiteBus

from golden.config import get_config
from golden.isa import ErrorCode
from golden.registers import COUNTERS, IDENTITY, REGISTERS
from hw.control.host_registers import COUNTER_BITS, HostRegisters
from sim.benches.harness import Host, Run, bench_test

CONFIGS = {name: get_config(name) for name in ("tiny", "sim")}
CONFIGURATIONS = "2 machines, at 3 paces of the bus"
PACES = [0, 0.3, 0.7]
KEPT = {
    "PROGRAM": 0xFFFFFFFF,
    "WATCHDOG": 0xFFFFFFFF,
    "INTERRUPT": 1,
    "POSITION": 0xFFFFFF,
    "TOKEN_COLUMN": 0xFF,
}
"""The bits that a register keeps of what is written. TOKEN has a column of its own."""


def parts():
    return {name: HostRegisters(config) for name, config in CONFIGS.items()}


async def reset(run: Run) -> None:
    inputs = {f"counts__{name}": 0 for name in COUNTERS}
    status = {f"status__{name}": 0 for name in ("busy", "finished", "error", "error_address")}
    lite = dict.fromkeys(("axi__awvalid", "axi__wvalid", "axi__bready", "axi__arvalid"), 0)
    await run.start(**inputs, **status, **lite, axi__rready=0)


async def start(run: Run, pace: float) -> Host:
    await reset(run)
    return Host(run, AxiLiteBus.from_prefix(*run.dut.prefix("axi"), bus_separator="__"), pace)


@bench_test(limit=20_000, part=list(CONFIGS), pace=PACES)
async def registers(run: Run, pace: float) -> None:
    """What is written is read; read-only registers and the space between ignore writes."""
    host, dut, config = await start(run, pace), run.dut, CONFIGS[run.part]
    handles = dut.array("tokens", config.cols)
    tokens = [0] * config.cols
    shape = config.rows | config.cols << 8 | config.act_bits << 16 | config.bus_bytes << 24
    written = dict.fromkeys(KEPT, 0)
    for _ in range(60):
        register = str(run.rng.choice([*REGISTERS, "none"]))
        value = int(run.rng.integers(1 << 32))
        if register == "TOKEN_COLUMN":
            value = int(run.rng.choice([0, config.cols - 1, config.cols, value]))
        if register == "none":
            await host.master.write_dword(int(run.rng.integers(0x100, 0x400)) * 4, value)
        else:
            # Not the pulses: they have a test of their own.
            await host.write(register, value & ~3 if register == "CONTROL" else value)
        if register in written:
            written[register] = value & KEPT[register]
        column = written["TOKEN_COLUMN"]
        if register == "TOKEN":
            if column < config.cols:
                tokens[column] = value & 0xFFFFFF
            written["TOKEN_COLUMN"] = column = (column + 1) % 256
        for name, expected in {
            "ID": IDENTITY,
            "CONFIG": shape,
            "CONTROL": 0,
            "STATUS": 0,
            "ERROR_ADDRESS": 0,
            **written,
            "TOKEN": tokens[column] if column < config.cols else 0,
        }.items():
            run.check(await host.read(name), expected, f"{name} after a write to {register}")
        run.check(int(dut.job__program.value), written["PROGRAM"], "program")
        run.check(int(dut.job__watchdog.value), written["WATCHDOG"], "watchdog")
        run.check(int(dut.position.value), written["POSITION"], "position")
        run.check([int(handle.value) for handle in handles], tokens, "tokens")
    unmapped = await host.master.read_dword(0xFFC)
    run.check(unmapped, 0, "an address without a register")


@bench_test(limit=20_000, part=list(CONFIGS), pace=PACES)
async def status(run: Run, pace: float) -> None:
    host, dut = await start(run, pace), run.dut
    for enabled in (0, 1):
        await host.write("INTERRUPT", enabled)
        for _ in range(30):
            busy, finished = run.rng.integers(2, size=2).tolist()
            error = int(run.rng.choice(list(ErrorCode)))
            address = int(run.rng.integers(1 << 32))
            dut.status__busy.value, dut.status__finished.value = busy, finished
            dut.status__error.value, dut.status__error_address.value = error, address
            want = busy | finished << 1 | (error != 0) << 2 | error << 8
            run.check(await host.read("STATUS"), want, "STATUS")
            run.check(await host.read("ERROR_ADDRESS"), address, "ERROR_ADDRESS")
            interrupt = enabled and not busy and (finished or error)
            run.check(int(dut.interrupt.value), bool(interrupt), "interrupt")


@bench_test(limit=20_000, part=list(CONFIGS), pace=PACES)
async def pulses(run: Run, pace: float) -> None:
    """Each write to CONTROL gives one pulse of one cycle; `start` only when nothing runs."""
    host, dut = await start(run, pace), run.dut
    seen = {"start": 0, "abort": 0}

    async def count() -> None:
        while True:
            await RisingEdge(dut.clk)
            for name in seen:
                seen[name] += int(getattr(dut, f"job__{name}").value)

    cocotb.start_soon(count())
    wanted = {"start": 0, "abort": 0}
    for _ in range(60):
        busy, value = int(run.rng.integers(2)), int(run.rng.integers(4))
        dut.status__busy.value = busy
        await host.write("CONTROL", value)
        wanted["start"] += value & 1 and not busy
        wanted["abort"] += value >> 1
        for name, number in wanted.items():
            run.check(seen[name], number, f"pulses of {name}")


@bench_test(limit=20_000, part=list(CONFIGS), pace=PACES)
async def counters(run: Run, pace: float) -> None:
    """Counters add up what comes in each cycle, and a start clears them."""
    host, dut = await start(run, pace), run.dut
    totals = dict.fromkeys(COUNTERS, 0)
    going = False

    def amounts() -> Iterator[list[int]]:
        while True:
            high = int(run.rng.choice([1, 2, 256]))
            yield run.rng.integers(0, high, len(COUNTERS)).tolist()

    async def feed() -> None:
        """Inputs change in the middle of cycles, so that the sum is that of whole cycles."""
        pattern = amounts()
        added = [0] * len(COUNTERS)
        while True:
            await FallingEdge(dut.clk)
            added = next(pattern) if going else [0] * len(COUNTERS)
            for name, value in zip(COUNTERS, added, strict=True):
                getattr(dut, f"counts__{name}").value = value
            await RisingEdge(dut.clk)
            cleared = int(dut.job__start.value)
            for name, value in zip(COUNTERS, added, strict=True):
                totals[name] = 0 if cleared else totals[name] + value

    cocotb.start_soon(feed())
    for _ in range(4):
        await host.write("CONTROL", 1)
        going = True
        for _ in range(int(run.rng.integers(1, 200))):
            await RisingEdge(dut.clk)
        going = False
        await FallingEdge(dut.clk)
        await FallingEdge(dut.clk)
        for name in COUNTERS:
            want = totals[name] & (1 << COUNTER_BITS) - 1
            run.check(await host.counter(name), want, f"counter {name}")


@bench_test(limit=20_000, part=list(CONFIGS))
async def strobes(run: Run) -> None:
    """Every strobe pattern on every register that can be written: the chosen bytes change and no
    others; without any nothing happens, and the write is answered all the same."""
    await reset(run)
    dut, config = run.dut, CONFIGS[run.part]
    handles = dut.array("tokens", config.cols)
    pulses = {"start": 0, "abort": 0}

    async def count() -> None:
        while True:
            await RisingEdge(dut.clk)
            for name in pulses:
                pulses[name] += int(getattr(dut, f"job__{name}").value)

    # By hand: the bus model chooses strobes itself.
    async def put(register: str, value: int, strobe: int) -> None:
        dut.axi__awaddr.value, dut.axi__wdata.value = REGISTERS[register][0], value
        dut.axi__wstrb.value = strobe
        dut.axi__awvalid.value = dut.axi__wvalid.value = 1
        await RisingEdge(dut.clk)
        while not int(dut.axi__awready.value):
            await RisingEdge(dut.clk)
        dut.axi__awvalid.value = dut.axi__wvalid.value = 0
        dut.axi__bready.value = 1
        await RisingEdge(dut.clk)
        while not int(dut.axi__bvalid.value):
            await RisingEdge(dut.clk)
        run.check(int(dut.axi__bresp.value), 0, f"answer to {register}, strobes {strobe:04b}")
        dut.axi__bready.value = 0

    async def get(register: str) -> int:
        dut.axi__araddr.value, dut.axi__arvalid.value = REGISTERS[register][0], 1
        await RisingEdge(dut.clk)
        while not int(dut.axi__arready.value):
            await RisingEdge(dut.clk)
        dut.axi__arvalid.value, dut.axi__rready.value = 0, 1
        await RisingEdge(dut.clk)
        while not int(dut.axi__rvalid.value):
            await RisingEdge(dut.clk)
        value = int(dut.axi__rdata.value)
        dut.axi__rready.value = 0
        return value

    cocotb.start_soon(count())
    for register in (*KEPT, "TOKEN", "CONTROL"):
        for strobe in range(16):
            first, second = (int(run.rng.integers(1 << 32)) for _ in range(2))
            mask = sum(0xFF << 8 * byte for byte in range(4) if strobe >> byte & 1)
            merged = first & ~mask | second & mask
            what = f"{register} after {first:#x}, then {second:#x} with strobes {strobe:04b}"
            if register == "CONTROL":
                pulses |= dict.fromkeys(pulses, 0)
                await put(register, second, strobe)
                bits = second & mask & 3
                run.check([*pulses.values()], [bits & 1, bits >> 1], what)
                continue
            column = int(run.rng.integers(config.cols))
            if register == "TOKEN":
                await put("TOKEN_COLUMN", column, 15)
            await put(register, first, 15)
            if register == "TOKEN":
                await put("TOKEN_COLUMN", column, 15)
            others = [int(handle.value) for handle in handles]
            kept = {name: await get(name) for name in KEPT if name != register}
            await put(register, second, strobe)
            if register == "TOKEN":
                others[column] = merged & 0xFFFFFF
                kept["TOKEN_COLUMN"] += strobe != 0
            else:
                run.check(await get(register), merged & KEPT[register], what)
            run.check([int(handle.value) for handle in handles], others, what)
            for name, value in kept.items():
                run.check(await get(name), value, f"{name}: {what}")


@bench_test(limit=400, part=["tiny"])
async def single_accesses(run: Run) -> None:
    """By hand, without a bus model: address and data of a write may come in either order."""
    await reset(run)
    dut = run.dut
    dut.axi__wstrb.value = 15
    program = REGISTERS["PROGRAM"][0]
    for first, second in (("aw", "w"), ("w", "aw")):
        value = int(run.rng.integers(1 << 32))
        dut.axi__awaddr.value, dut.axi__wdata.value = program, value
        getattr(dut, f"axi__{first}valid").value = 1
        for _ in range(5):
            await RisingEdge(dut.clk)
            run.check(int(dut.axi__bvalid.value), 0, "an answer to half a write")
        getattr(dut, f"axi__{second}valid").value = 1
        await RisingEdge(dut.clk)
        ready = [int(dut.axi__awready.value), int(dut.axi__wready.value)]
        run.check(ready, [1, 1], "ready for both")
        dut.axi__awvalid.value = dut.axi__wvalid.value = 0
        await RisingEdge(dut.clk)
        run.check(int(dut.axi__bvalid.value), 0, "an answer before the write is done")
        await RisingEdge(dut.clk)
        run.check(int(dut.axi__bvalid.value), 1, "answer")
        run.check(int(dut.axi__bresp.value), 0, "kind of answer")
        # The next write has to wait until this answer is taken.
        dut.axi__awvalid.value = dut.axi__wvalid.value = 1
        for _ in range(3):
            await RisingEdge(dut.clk)
            run.check(int(dut.axi__awready.value), 0, "ready with an answer pending")
        dut.axi__awvalid.value = dut.axi__wvalid.value = 0
        dut.axi__bready.value = 1
        await RisingEdge(dut.clk)
        dut.axi__bready.value = 0
        await RisingEdge(dut.clk)
        run.check(int(dut.axi__bvalid.value), 0, "answer after it was taken")
        run.check(int(dut.job__program.value), value, "program")
