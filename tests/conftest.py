"""Settings that must precede the import of difmd, and fixtures that several modules share."""

import os
from pathlib import Path

# What is tested is what was compiled now.
os.environ["DIFMD_CACHE"] = "off"

import jax  # noqa: E402
import jaxtyping  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

# Assertions of helpers tell what they compared, as those of tests.
pytest.register_assert_rewrite("labelled")

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# beartype checks shapes and dtypes of every call of a public function.
jaxtyping.install_import_hook("difmd", "typecheck.check_public")


# Most of the time of the quick suite goes into compiling what runs once, and unrolled loops take longer.
if "--xla_backend_optimization_level=0" in os.environ.get("XLA_FLAGS", ""):
    import difmd.neighbors.device
    import difmd.potentials.slots

    difmd.neighbors.device._UNROLL = difmd.potentials.slots._UNROLL = 1


@pytest.fixture(scope="module", autouse=True)
def forget_what_was_compiled():
    """Thousands of programs in one process use up what memory maps it may have, and XLA then crashes."""
    yield
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
