"""Freed memory stays with the process, unless the user says otherwise."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from difmd._internal.allocator import keep_memory

kept = keep_memory()
np.ones(5 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(5 * 2**20)  # 40 MB, more than glibc ever keeps by itself
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 20 * 40 * 2**20 // 4096

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for glibc's malloc")


def run(**variables):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_", "DIFMD_KEEP"))}
    # With huge pages there would be few faults in any case.
    clean["NUMPY_MADVISE_HUGEPAGE"] = "0"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=clean | variables, capture_output=True, text=True, check=True
    )
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


def test_freed_memory_is_used_again_without_faults():
    kept, faults = run()
    assert kept and faults < 0.1 * PAGES


@pytest.mark.parametrize("variables", [{"DIFMD_KEEP_MEMORY": "off"}, {"MALLOC_ARENA_MAX": "4"}])
def test_the_users_choice_stands(variables):
    kept, _ = run(**variables)
    assert not kept
