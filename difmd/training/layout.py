"""Parameters as one vector, and back."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from difmd.potentials import Params


class Layout:
    """Where the arrays of parameters lie in one vector.

    What acts on every number alike, such as an optimizer, compiles in less time for one vector than for
    many arrays. Axes in front, such as that of the members of a committee, stay there.
    """

    def __init__(self, params: Params) -> None:
        """The layout of parameters like these, of one potential."""
        leaves, self._structure = jax.tree.flatten(params)
        self._shapes = [np.shape(x) for x in leaves]
        self._ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes]).tolist()

    def vector(self, params: Params) -> Any:
        """[..., numbers] of parameters, or of what has their structure."""
        rows = []
        for x, shape in zip(jax.tree.leaves(params), self._shapes, strict=True):
            axes = np.shape(x)[: np.ndim(x) - len(shape)]
            rows.append(jnp.reshape(jnp.asarray(x), (*axes, -1)))
        return jnp.concatenate(rows, axis=-1)

    def tree(self, vector: Any) -> Params:
        """Parameters of a vector; NumPy's of a vector of NumPy."""
        ends = zip([0, *self._ends], self._ends, self._shapes, strict=False)
        leaves = [vector[..., a:b].reshape(*vector.shape[:-1], *shape) for a, b, shape in ends]
        return jax.tree.unflatten(self._structure, leaves)
