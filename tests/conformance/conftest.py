"""Quicker compilation; the reference tests run with the loop as it is."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def rolled_loops():
    """Do not unroll the loop over neighbours: same sums, and a fraction of the code to compile."""
    from difmd.potentials import slots

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots, "_UNROLL", 1)
        yield
