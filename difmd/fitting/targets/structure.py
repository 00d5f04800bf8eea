"""Measured radial distribution functions, and their counterparts from configurations of a liquid."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from difmd._internal.summaries import brief_repr
from difmd.errors import InputError, check_positive
from difmd.fitting.liquids.melting import box_length
from difmd.fitting.liquids.sampling import Sampling
from difmd.fitting.liquids.states import average
from difmd.fitting.targets.target import Residual, Setup, StatePointRun, Target
from difmd.fitting.terms import Residuals
from difmd.potentials import Params
from difmd.system import System


@brief_repr
class Structure(NamedTuple):
    """g(r) of a liquid of one species.

    Attributes:
        g: in the bins of the target; [bins].
        stderr: its standard error over replicas; [bins].
        gradient: dg/dθ = −β cov(g, ∂U/∂θ); like the params with a leading axis [bins]; None without ∂U/∂θ.
        gradient_stderr: its standard error over replicas, as above.
        effective: n_eff/n of the states; 1 where they were simulated with these parameters.
    """

    g: Float[Array, "bins"]
    stderr: Float[Array, "bins"]
    gradient: Any
    gradient_stderr: Any
    effective: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class StructureTarget(Target):
    """A measured radial distribution function at one state point, in internal units.

    Attributes:
        temperature: [K].
        density: mass density [amu/Å³].
        r: centres of bins of equal width [Å]; [bins].
        g: measured g(r); [bins].
        stderr: standard errors of g in each bin; None where they are not known; [bins].
        weight: of its mean squared deviation, relative to the squared residual of a diffusivity.
    """

    is_static: ClassVar[bool] = True
    temperature: float
    density: float
    r: Float[np.ndarray, "bins"]
    g: Float[np.ndarray, "bins"]
    stderr: Float[np.ndarray, "bins"] | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Raise `InputError` for values that are not positive, and bins of different widths."""
        for name in ("temperature", "density", "weight"):
            check_positive(f"target {name}", getattr(self, name), "")
        r, g = np.asarray(self.r, np.float64), np.asarray(self.g, np.float64)
        if r.ndim != 1 or len(r) < 2 or r.shape != g.shape:
            raise InputError(f"target r and g have shapes {r.shape} and {g.shape}: give two or more bins")
        if not (np.isfinite(r).all() and np.isfinite(g).all()):
            raise InputError("target r and g must be finite")
        if not np.allclose(np.diff(r), self.width, rtol=1e-3) or not r[0] > 0.499 * self.width > 0:
            raise InputError("target r must be the centres of bins of one width, in ascending order")
        if self.stderr is not None:
            check_positive("target stderr", self.stderr, "")
            if np.shape(self.stderr) != r.shape:
                raise InputError(f"target stderr has shape {np.shape(self.stderr)}, but r has {r.shape}")

    @property
    def width(self) -> float:
        """Of a bin [Å]."""
        return float((self.r[-1] - self.r[0]) / (len(self.r) - 1))

    def check(self, setup: Setup, params: Params, system: System) -> None:
        """Raise `InputError` for a g(r) that extends beyond half of the box."""
        del params, system
        _box_length(self, setup.sampling)

    def measure(self, run: StatePointRun) -> Structure:
        """g(r), and its derivative if the states have ∂U/∂θ."""
        assert run.states is not None
        g = densities(self, run.states.positions, run.setup.sampling)
        found = average(g, run.states.weights, run.states.energy_gradients, run.temperature)
        return Structure(*found)._replace(effective=run.states.effective)

    @classmethod
    def residuals(
        cls, targets: Sequence[Any], results: Sequence[Structure], residual: Residual, share: float
    ) -> list[Residuals]:
        """Deviation of g in each bin; their mean square counts as one residual times the weight."""
        del residual
        return [_residuals(*pair, share) for pair in zip(targets, results, strict=True)]

    @classmethod
    def record(cls, targets: Sequence[Any], results: Sequence[Structure]) -> dict[str, Any]:
        """`g`, `g_stderr`, `g_deviation` (root mean square over bins) and `effective` (n_eff/n)."""
        return {
            "g": [np.asarray(result.g).tolist() for result in results],
            "g_stderr": [np.asarray(result.stderr).tolist() for result in results],
            "effective": [result.effective for result in results],
            "g_deviation": [
                float(np.sqrt(np.mean((np.asarray(result.g) - np.asarray(target.g)) ** 2)))
                for target, result in zip(targets, results, strict=True)
            ],
        }


def _residuals(target: StructureTarget, result: Structure, share: float) -> Residuals:
    scale = share * math.sqrt(target.weight / len(target.r))
    dtype = result.g.dtype
    error = np.nan if target.stderr is None else np.hypot(target.stderr, np.asarray(result.stderr))
    noise = jnp.broadcast_to(jnp.asarray(error, dtype), result.g.shape)
    deviation = result.g - jnp.asarray(target.g, dtype)
    unscaled = Residuals(deviation, result.gradient, result.gradient_stderr, noise)
    return jax.tree.map(lambda x: scale * x, unscaled)


def densities(
    target: StructureTarget, positions: Float[Array, "replicas frames atoms 3"], sampling: Sampling
) -> Float[Array, "replicas frames bins"]:
    """g(r) of each frame, in a cubic box; raises `InputError` for a target beyond half of the box."""
    length = _box_length(target, sampling)
    start = float(target.r[0]) - 0.5 * target.width
    counts = _counts(positions, jnp.asarray(length, positions.dtype), start, target.width, len(target.r))
    n = positions.shape[2]
    edges = start + target.width * np.arange(len(target.r) + 1)
    shells = 4 * np.pi / 3 * np.diff(edges**3)
    ideal = jnp.asarray(n / 2 * n / length**3 * shells, positions.dtype)
    return counts / ideal[None, None]


def _box_length(target: StructureTarget, sampling: Sampling) -> float:
    """The edge of the box [Å]; raises `InputError` for a target beyond half of it."""
    length = box_length(target.density, sampling)
    end = float(target.r[-1]) + 0.5 * target.width
    if end > 0.5 * length:
        raise InputError(
            f"target g(r) extends to {end:.4g} Å, beyond half of the box of {length:.4g} Å: cut it, or "
            "simulate more atoms"
        )
    return length


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _counts(positions: Array, length: Array, start: float, width: float, n_bins: int) -> Array:
    """Pairs in each bin, of each frame."""
    n = positions.shape[2]
    first, second = np.triu_indices(n, 1)

    def of_frame(r: Array) -> Array:
        square = jnp.zeros(len(first), r.dtype)
        for axis in range(3):
            apart = r[first, axis] - r[second, axis]
            apart = apart - length * jnp.round(apart / length)
            square = square + apart * apart
        place = jnp.floor((jnp.sqrt(square) - start) / width).astype(jnp.int32)
        # Distances outside the bins are counted in an extra bin, which is cut off.
        inside = jnp.where((place >= 0) & (place < n_bins), place, n_bins)
        return jnp.zeros(n_bins + 1, r.dtype).at[inside].add(1)[:-1]

    flat = positions.reshape(-1, *positions.shape[2:])
    return jax.lax.map(of_frame, flat).reshape(*positions.shape[:2], -1)
