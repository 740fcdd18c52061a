"""The command as users call it: in a process of its own."""

import os
import subprocess
import sys


def rf8(*arguments, **environment):
    command = [sys.executable, "-m", "rf8.cli", *map(str, arguments)]
    env = {**os.environ, "COLUMNS": "200", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=900)
