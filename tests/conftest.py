"""Settings that must precede the import of difmd, the cache of programs, the time budget, shared fixtures."""

import gc
import importlib.metadata
import os
import resource
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Compiled programs are stored under the hash of what was compiled, so a change of the code compiles anew.
# `DIFMD_TEST_CACHE` names another folder, or is `off`.
PROGRAMS = os.environ.get("DIFMD_TEST_CACHE", str(ROOT / ".pytest_cache" / "programs"))
PROGRAMS_BYTES = 2_000_000_000
os.environ["DIFMD_CACHE"] = "off"
if PROGRAMS != "off":
    # As variables, for the processes that tests start.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = PROGRAMS
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    # XLA before JAX 0.12 prints false alarms about the processor whenever it reads a program.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# `make test` asks XLA to optimise little. With JAX 0.9 its older emitters of fused loops compile faster than
# the default ones; JAX 0.12 does not have them and refuses the option.
IS_QUICK = "--xla_backend_optimization_level=0" in os.environ.get("XLA_FLAGS", "")
if IS_QUICK and importlib.metadata.version("jaxlib").startswith("0.9."):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

# CPU time [s], with the fixtures that a test sets up, above which it fails unless it is slow; 0 is no limit.
BUDGET = float(os.environ.get("DIFMD_TEST_BUDGET", "60"))
# Of the 65 530 memory maps that Linux allows a process; XLA crashes when there are none left.
MOST_MAPS = 30_000

import jax  # noqa: E402
import jaxtyping  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from typecheck import leave_private_functions  # noqa: E402

# Assertions in helpers report what they compared, as those in tests do.
pytest.register_assert_rewrite("labelled")

START = pytest.StashKey[float]()

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# beartype checks shapes and dtypes of every call of a public function.
leave_private_functions()
jaxtyping.install_import_hook("difmd", "typecheck.check_public_only")


# Most of the time of the quick suite goes into compiling what runs once, and unrolled loops take longer.
if IS_QUICK:
    import difmd.neighbors.device
    import difmd.potentials.slots

    difmd.neighbors.device._UNROLL = difmd.potentials.slots._UNROLL = 1


def pytest_configure(config):
    """Delete the programs that were stored first, beyond the size of the cache; one process does it."""
    if PROGRAMS == "off" or hasattr(config, "workerinput") or not os.path.isdir(PROGRAMS):
        return
    files = sorted(Path(PROGRAMS).glob("*-cache"), key=lambda file: file.stat().st_mtime, reverse=True)
    size = 0
    for file in files:
        size += file.stat().st_size
        if size > PROGRAMS_BYTES:
            file.unlink()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Mark as slow those cases of a parametrised test that its marker `quick` does not name."""
    unused = {}
    for item in items:
        marker = item.get_closest_marker("quick")
        if marker is None:
            continue
        unnamed = unused.setdefault(item.function, set(marker.args))
        if item.callspec.id in marker.args:
            unnamed.discard(item.callspec.id)
        else:
            item.add_marker(pytest.mark.slow)
    picked = any("::" in argument for argument in config.args)
    for function, names in unused.items():
        if names and not picked:
            raise pytest.UsageError(f"{function.__name__} has no case {', '.join(sorted(names))}")


def pytest_collection_finish():
    """Spare the garbage collector what lives as long as the process; traces make many small objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def cpu_seconds():
    """Of this process and of those that it started and that ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_setup(item):
    item.stash[START] = cpu_seconds()
    yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Fail tests of the quick suite that take longer than the budget."""
    outcome = yield
    if call.when != "call":
        return
    report = outcome.get_result()
    seconds = cpu_seconds() - item.stash[START]
    report.user_properties.append(("cpu_seconds", round(seconds, 2)))
    if report.passed and 0 < BUDGET < seconds and not item.get_closest_marker("slow"):
        report.outcome = "failed"
        report.longrepr = (
            f"{seconds:.0f} s of CPU time exceed the budget of {BUDGET:g} s (DIFMD_TEST_BUDGET): make the "
            "test smaller, or mark it slow"
        )


@pytest.fixture(scope="module", autouse=True)
def drop_programs():
    """Thousands of programs in one process use up the memory maps that it may have."""
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of downloaded reference data; the environment variable DIFMD_SHARED_DATA overrides it."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("DIFMD_SHARED_DATA", default))
    if not path.is_dir():
        pytest.skip(f"no reference data at {path}: set DIFMD_SHARED_DATA to the folder that holds it")
    return path


@pytest.fixture(scope="session")
def argon():
    """32 argon atoms near the density of the liquid, off their lattice sites; float64."""
    from difmd.system import make_system

    rng = np.random.default_rng(7)
    corners = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    cells = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    positions = 5.7 * (cells + corners).reshape(-1, 3) + rng.normal(0, 0.12, (32, 3))
    return make_system(positions, np.full(32, 18), cell=[11.4] * 3)
