"""Malformed inputs end with an error of difmd that names the culprit, and show nothing of JAX."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import malformed
import pytest
from filelock import FileLock

pytest.importorskip("h5py")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, worker_id):
    """Of all rows, in a process that checks no types, as that of a user; once for all workers."""
    base = tmp_path_factory.getbasetemp()
    stored = (base if worker_id == "master" else base.parent) / "malformed.json"
    with FileLock(f"{stored}.lock"):
        if not stored.exists():
            stored.write_text(outcomes_of_a_process(), encoding="utf-8")
    return json.loads(stored.read_text(encoding="utf-8"))


def outcomes_of_a_process():
    script = Path(malformed.__file__)
    # Without filtering, so that frames of JAX are seen.
    env = {**os.environ, "JAX_TRACEBACK_FILTERING": "off"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)], capture_output=True, text=True, timeout=300, env=env
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("name", malformed.ROWS)
def test_malformed(outcomes, name):
    found = outcomes[name]
    assert found["is_ours"], f"{found['kind']}: {found['message']}"
    assert re.search(malformed.ROWS[name][1], found["message"], re.DOTALL), found["message"]
    assert found["is_within"], found["where"]
    assert not found["shows_jax"], found["message"]


def test_no_row_hides_another(outcomes):
    assert len(outcomes) == sum(len(table) for table in malformed.TABLES) >= 300
