"""Geometry of a cell, on the host and under jit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from difmd._internal.lattice import complete_cell, heights, invert, signed_volume


@pytest.mark.parametrize("of", [np.asarray, jnp.asarray], ids=["NumPy", "JAX"])
def test_inverse_and_volume_of_one_cell_or_many(of):
    cells = of(np.random.default_rng(0).normal(size=(5, 3, 3)))
    np.testing.assert_allclose(invert(cells), np.linalg.inv(cells), rtol=1e-10)
    np.testing.assert_allclose(invert(cells[0]), np.linalg.inv(cells[0]), rtol=1e-10)
    volumes = signed_volume(cells)
    np.testing.assert_allclose(volumes, np.linalg.det(cells), rtol=1e-12)
    assert (np.asarray(volumes) < 0).any() and isinstance(volumes, type(cells))


def test_inverse_in_float32_and_its_derivative():
    cell = jnp.asarray([[30.0, 0, 0], [10, 25, 0], [-5, 3, 40]], jnp.float32)
    assert invert(cell).dtype == jnp.float32
    np.testing.assert_allclose(invert(cell) @ cell, np.eye(3), atol=3e-7)
    change = jax.jvp(invert, (cell,), (jnp.ones_like(cell),))[1]
    np.testing.assert_allclose(
        change, -invert(cell) @ jnp.ones_like(cell) @ invert(cell), rtol=1e-4, atol=1e-8
    )


@pytest.mark.parametrize("periodic", [(False,) * 3, (True, False, False), (True, False, True), (True,) * 3])
def test_complete_cells_keep_their_periodic_rows_and_span_space(periodic):
    cell = np.array([[3.0, 1, 0], [0, 4, 1], [1, 0, 5]])
    full = complete_cell(np.where(np.asarray(periodic)[:, None], cell, 0), periodic)
    np.testing.assert_array_equal(full[list(periodic)], cell[list(periodic)])
    normals = full[~np.asarray(periodic)]
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, rtol=1e-12)
    assert abs(np.linalg.det(full)) > 0.1
    np.testing.assert_allclose(heights(full), 1 / np.linalg.norm(np.linalg.inv(full), axis=0), rtol=1e-12)
