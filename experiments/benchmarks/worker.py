"""One package in one process: prepares a case, then runs and times it whenever it is told to.

Requests and answers are lines of JSON on standard input and output, so that the packages can be timed in
turns while each keeps what it has compiled. Lennard-Jones units: σ = ε = m = 1.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import network_cases
import numpy as np

CUTOFF, SKIN, DT = 2.5, 0.3, 0.005

Run = Callable[[], dict[str, Any]]


def main() -> None:
    """Answer requests until the input ends."""
    package, dtype = sys.argv[1:3]
    # Only answers go to the standard output.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if package != "mace-torch":
        import jax

        jax.config.update("jax_enable_x64", dtype == "float64")
    cases = {
        "difmd": difmd_cases,
        "difmd networks": network_cases.difmd_cases,
        "jax-md": jax_md_cases,
        "mace-torch": network_cases.mace_torch_cases,
    }[package]()
    run: Run | None = None
    for line in sys.stdin:
        request = json.loads(line)
        began = time.perf_counter()
        if request["do"] == "prepare":
            run = cases[request["case"]](request)
            answer = {"seconds": time.perf_counter() - began}
        else:
            assert run is not None
            answer = run()
        answer["memory_MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(answer), file=answers, flush=True)


def timed(function: Callable[..., Any], *arguments: Any) -> float:
    """Seconds of a call, until its result is there."""
    import jax

    began = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - began


def difmd_cases() -> dict[str, Callable[[dict[str, Any]], Run]]:
    """What difmd is timed on."""
    import ase.build
    import jax
    import jax.numpy as jnp

    import difmd
    from difmd import gradients, units
    from difmd.neighbors import neighbor_list, rebuild

    difmd.enable_cache()
    potential = difmd.lennard_jones(["Ar"], sigma=1.0, epsilon=1.0, cutoff=CUTOFF)
    params = potential.init(jax.random.key(0))

    def load(request: dict[str, Any]) -> tuple[difmd.System, Any]:
        data = np.load(request["file"])
        system = difmd.make_system(
            data["positions"], np.full(len(data["positions"]), 18), masses=np.ones(len(data["positions"])),
            cell=data["cell"],
        )  # fmt: skip
        return system, jnp.asarray(data["momenta"], system.positions.dtype)

    def batch(system: difmd.System, momenta: Any, replicas: int) -> tuple[difmd.System, Any]:
        systems = jax.tree.map(lambda x: jnp.broadcast_to(x, (replicas, *x.shape)), system)
        keys = jax.random.split(jax.random.key(1), replicas)
        kelvin = jnp.sum(momenta**2) / (3 * system.n_atoms - 3) / units.KB
        return systems, jax.vmap(difmd.draw_momenta, (0, 0, None))(keys, systems, kelvin)

    def melt(request: dict[str, Any]) -> Run:
        """An fcc crystal of 4 n³ atoms at T* = 1.44, which melts to about 0.72."""
        n, density = request["cells"], request["density"]
        crystal = ase.build.bulk("Ar", "fcc", a=(4 / density) ** (1 / 3), cubic=True) * (n, n, n)
        crystal.set_masses(np.ones(len(crystal)))
        system = difmd.from_ase(crystal)

        def run() -> dict[str, Any]:
            done = difmd.simulate(
                potential, params, system, difmd.velocity_verlet(dt=DT), n_steps=2000, save_every=2000,
                initial_temperature=1.44 / units.KB, key=jax.random.key(request["seed"]), progress=False,
            )  # fmt: skip
            np.savez(
                request["file"], positions=done.positions[-1], momenta=done.momenta[-1],
                cell=np.asarray(system.cell),
            )  # fmt: skip
            return {}

        return run

    def md(request: dict[str, Any]) -> Run:
        system, momenta = load(request)
        replicas, n_steps = request.get("replicas", 1), request["n_steps"]
        if replicas > 1:
            system, momenta = batch(system, momenta, replicas)

        def advance(start: Any, n_steps: int, save_every: int, **more: Any) -> Any:
            return difmd.simulate(
                potential, params, start, difmd.velocity_verlet(dt=DT), n_steps=n_steps,
                save_every=save_every, chunk_steps=n_steps, skin=SKIN, progress=False, **more,
            )  # fmt: skip

        # Atoms of a system that was put together from copies go apart in these steps.
        first = advance(
            system, request["warm_up"], request["warm_up"], momenta=momenta, key=jax.random.key(0)
        )
        state = advance(first.state, n_steps, n_steps).state

        def run() -> dict[str, Any]:
            nonlocal state
            began = time.perf_counter()
            done = advance(state, n_steps, n_steps)
            seconds = time.perf_counter() - began
            state = done.state
            return {"seconds": seconds, "replays": int(done.n_replays)}

        return run

    def averages(request: dict[str, Any]) -> Run:
        """Energies and pressure of a run, and the forces at its start."""
        system, momenta = load(request)
        neighbors = neighbor_list(system, cutoff=CUTOFF)
        found = jax.jit(lambda s, n: difmd.evaluate(potential, params, s, n))(system, neighbors)

        def run() -> dict[str, Any]:
            done = difmd.simulate(
                potential, params, system, difmd.velocity_verlet(dt=DT), n_steps=request["n_steps"],
                save_every=10, momenta=momenta, key=jax.random.key(0), skin=SKIN, progress=False,
            )  # fmt: skip
            np.save(request["forces"], np.asarray(found.forces, np.float64))
            total = (done.potential_energy.astype(float) + done.kinetic_energy) / system.n_atoms
            return {"total_energy": total.tolist(), "pressure": done.pressure.tolist()}

        return run

    def kernels(request: dict[str, Any]) -> Run:
        """One force evaluation, and one rebuild of the list."""
        system, _ = load(request)
        neighbors = neighbor_list(system, cutoff=CUTOFF, skin=SKIN)
        force = jax.jit(lambda s, n: difmd.forces.forces(potential, params, s, n))
        build = jax.jit(rebuild)
        jax.block_until_ready((force(system, neighbors), build(system, neighbors)))

        def run() -> dict[str, Any]:
            found = {}
            for name, function in (("force", force), ("rebuild", build)):
                times = [timed(function, system, neighbors) for _ in range(request["repeats"])]
                found[name] = float(np.median(times))
            return found

        return run

    def solid(request: dict[str, Any]) -> Run:
        """A crystal from 1000 K, with the skin that difmd chooses."""
        from lammps_runs import SOLIDS

        system = difmd.from_ase(SOLIDS[request["name"]].atoms())
        model = {
            "Stillinger-Weber silicon": lambda: difmd.stillinger_weber(["Si"], epsilon=2.1683, sigma=2.0951),
            "Tersoff silicon": lambda: difmd.tersoff(["Si"]),
            "embedded-atom copper": lambda: difmd.read_eam(request["file"]),
        }[request["name"]]()
        fitted, integrator = model.init(jax.random.key(0)), difmd.velocity_verlet(dt=units.FS)

        def advance(start: Any, n_steps: int, **more: Any) -> Any:
            return difmd.simulate(
                model, fitted, start, integrator, n_steps=n_steps, save_every=n_steps, chunk_steps=n_steps,
                progress=False, **more,
            )  # fmt: skip

        state = advance(system, 100, initial_temperature=1000.0, key=jax.random.key(0)).state
        state = advance(state, request["n_steps"]).state

        def run() -> dict[str, Any]:
            nonlocal state
            began = time.perf_counter()
            state = advance(state, request["n_steps"]).state
            return {"seconds": time.perf_counter() - began, "n_atoms": system.n_atoms}

        return run

    def gradient(request: dict[str, Any]) -> Run:
        """MSD of a trajectory, and its derivative in all parameters by reverse mode."""
        # As argon: the grids of `reversible` are made for Å and eV.
        sigma, epsilon, mass = 3.4, 0.0104, 39.948
        reduced, momenta = load(request)
        system = difmd.make_system(
            # Inside the cell, as single precision has grids for 64 Å.
            sigma * (np.asarray(reduced.positions) % np.diag(reduced.cell)),
            np.asarray(reduced.atomic_numbers),
            masses=np.full(reduced.n_atoms, mass), cell=sigma * np.asarray(reduced.cell),
        )  # fmt: skip
        momenta = momenta * np.float32((mass * epsilon) ** 0.5)
        every, method = request["rebuild_every"], getattr(gradients, request["method"])()
        cutoff = CUTOFF * sigma
        # Forces of a network with random weights, made small enough for the time step.
        model = (
            difmd.mace(["Ar"], cutoff=cutoff, n_features=16, avg_num_neighbors=55, scale=0.1 * epsilon)
            if request["model"] == "MACE"
            else difmd.lennard_jones(["Ar"], sigma=sigma, epsilon=epsilon, cutoff=cutoff)
        )
        neighbors = neighbor_list(
            system, cutoff=cutoff, skin=SKIN * sigma, reverse_edges=model.uses_reverse_edges
        )
        integrator = difmd.velocity_verlet(dt=DT * sigma * (mass / epsilon) ** 0.5)

        def msd(params: Any) -> Any:
            state = difmd.initialize(
                model, params, system, integrator, neighbors, momenta=momenta, key=jax.random.key(0)
            )
            done = difmd.rollout(
                model, params, state, integrator, neighbors, n_steps=request["n_steps"], save_every=every,
                rebuild_every=every, save=lambda state, neighbors: None, gradient=method,
            )  # fmt: skip
            moved = done.state.system.positions - system.positions
            return jnp.mean(jnp.sum(moved**2, axis=-1)), done.status

        start = model.init(jax.random.key(0))
        forward = jax.jit(msd)
        backward = jax.jit(jax.value_and_grad(msd, has_aux=True))
        (_, status), slopes = jax.block_until_ready(backward(start))
        jax.block_until_ready(forward(start))

        def run() -> dict[str, Any]:
            found: dict[str, Any] = {
                "finite": bool(all(np.isfinite(x).all() for x in jax.tree.leaves(slopes)))
            }
            found["status"] = difmd.errors.describe(status)
            return {**found, "forward": timed(forward, start), "backward": timed(backward, start)}

        return run

    return {
        "melt": melt, "md": md, "averages": averages, "kernels": kernels, "solid": solid,
        "gradient": gradient,
    }  # fmt: skip


def jax_md_cases() -> dict[str, Callable[[dict[str, Any]], Run]]:
    """The same dynamics in jax-md, with the fastest of its list formats."""
    import jax
    import jax.numpy as jnp
    from jax_md import energy, partition, simulate, space

    def load(request: dict[str, Any]) -> tuple[Any, Any, Any]:
        data = np.load(request["file"])
        dtype = jnp.zeros(()).dtype
        box = jnp.asarray(np.diag(data["cell"]), dtype)
        positions = jnp.asarray(data["positions"], dtype) % box
        return positions, jnp.asarray(data["momenta"], dtype), box

    def md(request: dict[str, Any]) -> Run:
        positions, momenta, box = load(request)
        displacement, shift = space.periodic(box)
        allocate, potential = energy.lennard_jones_neighbor_list(
            displacement, box, r_onset=0.999 * CUTOFF, r_cutoff=CUTOFF, dr_threshold=SKIN,
            format=partition.OrderedSparse,
        )  # fmt: skip
        init, step = simulate.nve(potential, shift, dt=DT)
        neighbors = allocate(positions, extra_capacity=4)
        state = init(jax.random.PRNGKey(0), positions, kT=0.7, neighbor=neighbors)
        state = state.set(momentum=momenta)

        @jax.jit
        def advance(state: Any, neighbors: Any) -> tuple[Any, Any]:
            def one(_: int, carry: tuple[Any, Any]) -> tuple[Any, Any]:
                state, neighbors = carry
                neighbors = neighbors.update(state.position)
                return step(state, neighbor=neighbors), neighbors

            return jax.lax.fori_loop(0, request["n_steps"], one, (state, neighbors))

        state, neighbors = jax.block_until_ready(advance(state, neighbors))

        def run() -> dict[str, Any]:
            nonlocal state, neighbors
            began = time.perf_counter()
            state, neighbors = jax.block_until_ready(advance(state, neighbors))
            return {"seconds": time.perf_counter() - began, "overflow": bool(neighbors.did_buffer_overflow)}

        return run

    def gradient(request: dict[str, Any]) -> Run:
        positions, momenta, box = load(request)
        displacement, shift = space.periodic(box)

        def msd(epsilon: Any) -> Any:
            allocate, potential = energy.lennard_jones_neighbor_list(
                displacement, box, epsilon=epsilon, r_onset=0.999 * CUTOFF, r_cutoff=CUTOFF,
                dr_threshold=SKIN, format=partition.OrderedSparse,
            )  # fmt: skip
            init, step = simulate.nve(potential, shift, dt=DT)
            state = init(jax.random.PRNGKey(0), positions, kT=0.7, neighbor=built)
            state = state.set(momentum=momenta)

            def one(carry: tuple[Any, Any, Any], _: None) -> tuple[Any, None]:
                state, neighbors, moved = carry
                neighbors = neighbors.update(state.position)
                new = step(state, neighbor=neighbors)
                moved = moved + jax.vmap(displacement)(new.position, state.position)
                return (new, neighbors, moved), None

            zero = jnp.zeros_like(positions)
            (_, _, moved), _ = jax.lax.scan(one, (state, built, zero), None, length=request["n_steps"])
            return jnp.mean(jnp.sum(moved**2, axis=-1))

        allocate, _ = energy.lennard_jones_neighbor_list(
            displacement, box, r_onset=0.999 * CUTOFF, r_cutoff=CUTOFF, dr_threshold=SKIN,
            format=partition.OrderedSparse,
        )  # fmt: skip
        built = allocate(positions, extra_capacity=4)
        one = jnp.ones(())
        forward, backward = jax.jit(msd), jax.jit(jax.value_and_grad(msd))
        _, slope = jax.block_until_ready(backward(one))
        jax.block_until_ready(forward(one))

        def run() -> dict[str, Any]:
            found: dict[str, Any] = {"finite": bool(np.isfinite(slope)), "status": "ok"}
            return {**found, "forward": timed(forward, one), "backward": timed(backward, one)}

        return run

    return {"md": md, "gradient": gradient}


if __name__ == "__main__":
    main()
