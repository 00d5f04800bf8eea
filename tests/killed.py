"""A script in a process of its own that is killed while it runs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def run_killed(script, folder, out, delay, *, at_once=False):
    """Run a fit that prints after each iteration; kill it so long after its first, or after its start.

    Returns:
        Whether it came to its end.
    """
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder), str(out)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)},
    )
    if not at_once:
        process.stdout.read(1)
    if delay is not None:
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == 0
