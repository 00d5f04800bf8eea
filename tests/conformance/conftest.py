"""Quicker compilation; the reference tests run what ships."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Do not unroll the loop over neighbours, nor optimise much: the same sums, sooner compiled."""
    from difmd.potentials import slots

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots, "_UNROLL", 1)
        yield
    jax.config.update("jax_disable_most_optimizations", before)
