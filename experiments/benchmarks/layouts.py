"""Ways to sum a Lennard-Jones force over a neighbour list, timed in turns; `python layouts.py --help`.

What difmd does is "columns, sorted": one slot of all atoms at a time, atoms in the order of their bins. The
others are what it might do instead, on the same list. "As many columns" as atoms differs from `difmd.forces`
where a list has columns that are no atoms (see difmd/blocks.py), as for 16 384 atoms.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from worker import CUTOFF, SKIN, timed

import difmd
from difmd._internal.gather import add_at, take
from difmd.neighbors import extended_positions, neighbor_list

FAR = 1e6


def main() -> None:
    """Time the layouts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atoms", type=int, default=32_000, help="4 n³ of an fcc crystal")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--float64", action="store_true")
    arguments = parser.parse_args()
    difmd.enable_cache()
    jax.config.update("jax_enable_x64", arguments.float64)
    system = crystal(round((arguments.atoms / 4) ** (1 / 3)), arguments.seed)
    neighbors = neighbor_list(system, cutoff=CUTOFF, skin=SKIN)
    layouts = all_layouts(system, neighbors, arguments.seed)
    compiled = {name: (jax.jit(function), inputs) for name, (function, inputs) in layouts.items()}
    results = {name: jax.block_until_ready(f(*inputs)) for name, (f, inputs) in compiled.items()}
    # Columns that are no atoms come first.
    expected = sizes(results["columns, sorted"])[-system.n_atoms :]
    for name, result in results.items():
        found = sizes(result)[-system.n_atoms :]
        np.testing.assert_allclose(found, expected, atol=1e-3 * expected.max(), err_msg=name)
    times: dict[str, list[float]] = {name: [] for name in compiled}
    for _ in range(arguments.rounds):
        for name, (function, inputs) in compiled.items():
            # What ran before has pushed this list out of the cache, which no step of a simulation does.
            timed(function, *inputs)
            times[name].append(timed(function, *inputs))
    best = np.median(times["columns, sorted"])
    print(f"{system.n_atoms} atoms, {'float64' if arguments.float64 else 'float32'}, seed {arguments.seed}")
    for name, values in times.items():
        print(f"{name:34s} {1e3 * np.median(values):8.2f} ms {np.median(values) / best:6.2f} x", flush=True)


def sizes(forces: list[Any]) -> np.ndarray:
    """Magnitudes in ascending order."""
    return np.sort(np.linalg.norm(np.stack(forces), axis=0))


def crystal(n: int, seed: int) -> difmd.System:
    """4 n³ displaced atoms at ρ* = 0.8442."""
    import ase.build

    atoms = ase.build.bulk("Ar", "fcc", a=(4 / 0.8442) ** (1 / 3), cubic=True) * (n, n, n)
    atoms.rattle(0.05, seed=seed)
    atoms.set_masses(np.ones(len(atoms)))
    return difmd.from_ase(atoms)


def pull(squared: Any) -> Any:
    """2 φ'(r²) of σ = ε = 1, zero beyond the cut-off."""
    inside = squared < CUTOFF**2
    inverse = 1 / jnp.where(inside, squared, 1)
    sixth = inverse * inverse * inverse
    return jnp.where(inside, -24 * inverse * sixth * (2 * sixth - 1), 0)


def columns(xyz: list[Any], centers: Any, indices: Any) -> list[Any]:
    """The scan over slots that difmd uses."""
    own = [take(x, centers) for x in xyz]

    def add(sums: list[Any], j: Any) -> tuple[list[Any], None]:
        apart = [take(x, j) - c for x, c in zip(xyz, own, strict=True)]
        strength = pull(sum(d * d for d in apart))
        return [s + strength * d for s, d in zip(sums, apart, strict=True)], None

    return lax.scan(add, [jnp.zeros_like(c) for c in own], indices, unroll=4)[0]


def all_layouts(
    system: difmd.System, neighbors: Any, seed: int
) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Each layout as a function and its inputs."""
    xyz = extended_positions(system, neighbors)
    centers, indices = neighbors.centers, neighbors.indices
    n_extended = len(xyz[0])
    # The same list with everything in an arbitrary order.
    shuffle = np.random.default_rng(seed).permutation(n_extended)
    place = np.argsort(shuffle).astype(np.int32)
    mixed = [x[shuffle] for x in xyz]
    which = np.random.default_rng(seed + 1).permutation(len(centers))
    # Each pair once: that of the lower extended index, with images sorted out by their parents.
    slots, atoms = np.asarray(indices), np.asarray(centers)
    parents = np.concatenate([np.asarray(neighbors.parents), [-1, -1]])
    rank = np.concatenate([np.asarray(neighbors.rank)[np.asarray(neighbors.parents)], [-1, -1]])
    own_rank = np.arange(len(atoms))
    there = rank[slots]
    tie = (there == own_rank[None, :]) & (slots > atoms[None, :])
    keep = (slots < n_extended - 2) & ((there > own_rank[None, :]) | tie)
    order = np.argsort(~keep, axis=0, kind="stable")
    most = -(-int(keep.sum(0).max()) // 4) * 4
    once = np.where(np.take_along_axis(keep, order, 0), np.take_along_axis(slots, order, 0), n_extended - 2)[
        :most
    ].astype(np.int32)
    position_of = jnp.asarray(np.where(parents < 0, 0, rank), jnp.int32)

    def half(xyz: list[Any], centers: Any, indices: Any) -> list[Any]:
        """Each pair once; its neighbour gets the opposite force by a scatter."""
        own = [take(x, centers) for x in xyz]

        def add(sums: list[Any], j: Any) -> tuple[list[Any], None]:
            apart = [take(x, j) - c for x, c in zip(xyz, own, strict=True)]
            strength = pull(sum(d * d for d in apart))
            there = take(position_of, j)
            terms = [strength * d for d in apart]
            return [s + t - add_at(len(own[0]), there, t) for s, t in zip(sums, terms, strict=True)], None

        return lax.scan(add, [jnp.zeros_like(c) for c in own], indices, unroll=4)[0]

    def rows(positions: Any, centers: Any, indices: Any) -> list[Any]:
        """A gather of whole rows and a sum over them, as one writes it first."""
        apart = positions[indices] - positions[centers][:, None, :]
        strength = pull(jnp.sum(apart * apart, axis=-1))
        return list(jnp.sum(strength[..., None] * apart, axis=1).T)

    def by_autodiff(xyz: list[Any], centers: Any, indices: Any) -> list[Any]:
        """Reverse mode through the energy, with the scatter that it takes."""

        def energy(xyz: list[Any]) -> Any:
            apart = [take(x, indices) - take(x, centers)[None, :] for x in xyz]
            squared = sum(d * d for d in apart)
            inside = squared < CUTOFF**2
            sixth = 1 / jnp.where(inside, squared, 1) ** 3
            return jnp.sum(jnp.where(inside, 2 * sixth * (sixth - 1), 0))

        slope = jax.grad(energy)(xyz)
        # Images act on their atoms.
        whole = [add_at(len(centers), position_of, jnp.where(jnp.asarray(parents) < 0, 0, s)) for s in slope]
        return [-w for w in whole]

    potential = difmd.lennard_jones(["Ar"], sigma=1.0, epsilon=1.0, cutoff=CUTOFF)
    params = potential.init(jax.random.key(seed))
    n_atoms = system.n_atoms
    plain = neighbors.replace(
        centers=centers[:n_atoms], order=neighbors.order[:n_atoms], indices=indices[:, :n_atoms]
    )

    def whole(system: difmd.System, neighbors: Any) -> list[Any]:
        return list(difmd.forces.forces(potential, params, system, neighbors).T)

    return {
        "difmd.forces": (whole, (system, neighbors)),
        "difmd.forces, as many columns": (whole, (system, plain)),
        "columns, sorted": (columns, (xyz, centers, indices)),
        "columns, atoms in arbitrary order": (
            columns, (mixed, jnp.asarray(place)[centers][which], jnp.asarray(place)[indices][:, which]),
        ),
        "each pair once, scatter": (half, (xyz, centers, jnp.asarray(once))),
        "rows [N, K, 3], gather and reduce": (rows, (jnp.stack(xyz, -1), centers, indices.T)),
        "reverse mode through the energy": (by_autodiff, (xyz, centers, indices)),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
