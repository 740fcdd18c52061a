"""Tools from PyPI, run on texts, with what they write kept by content."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from pathlib import Path

from sim.build import BuildFailed
from sim.cache import cache_dir, lend_home, write_atomically
from sim.toolchain import package_version, tool_path


def run_tool(
    tool: str, arguments: list[str], inputs: dict[str, str], output: str, kind: str
) -> str:
    """The text of the file ``output`` that Yosys or nextpnr writes.

    Kept by content: version, arguments and inputs. ``inputs``: file name -> text, put into a folder
    in which the tool runs. ``kind``: names what is kept, in the folder of the cache of that name.

    Raises
    ------
    ToolMissing
        Where the tool is not installed.
    BuildFailed
        Where it fails: its first error, and the path of its log.
    """
    digest = hashlib.sha256(package_version(tool).encode())
    for part in (*arguments, *inputs.values()):
        digest.update(part.encode())
    kept = cache_dir() / kind / f"{digest.hexdigest()[:24]}.out"
    if not kept.exists():
        write_atomically(kept, _run(tool, arguments, inputs, output, kept.with_suffix(".log")))
    return kept.read_text()


def _run(tool: str, arguments: list[str], inputs: dict[str, str], output: str, log: Path) -> str:
    program = tool_path(tool)
    lend_home()
    log.parent.mkdir(parents=True, exist_ok=True)
    # In a folder of its own: these tools, in WebAssembly, do not see every path.
    with tempfile.TemporaryDirectory(dir=log.parent) as name:
        folder = Path(name)
        for file, content in inputs.items():
            (folder / file).write_text(content)
        command = [str(program), "-q", "-l", "tool.log", *arguments]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if (folder / "tool.log").exists():
            (folder / "tool.log").replace(log)
        if run.returncode:
            # Of a failed assertion only the log tells.
            lines = run.stderr.splitlines() + (log.read_text().splitlines() if log.exists() else [])
            what = ([line for line in lines if "ERROR" in line] or lines[-1:] or ["no output"])[0]
            raise BuildFailed(f"{tool} failed: {what.strip()} (log: {log})")
        return (folder / output).read_text()
