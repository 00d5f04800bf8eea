"""What networks are timed on: difmd and mace-torch, see `networks.py` and `worker.py`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[[], dict[str, Any]]
SHORTEST = 1.0
"""Each timing goes on for so many seconds at least; the median of its calls counts."""


def difmd_cases() -> dict[str, Callable[[dict[str, Any]], Run]]:
    """difmd."""
    import jax
    from jax.flatten_util import ravel_pytree

    import difmd
    from difmd import data, training
    from difmd.training.step import compile_steps, initial_state, make_problem

    difmd.enable_cache()

    def load(request: dict[str, Any]) -> tuple[Any, Any, Any]:
        frames = data.read(request["file"])
        stats = data.statistics(frames, cutoff=request["cutoff"])
        network = difmd.mace(
            stats.species, cutoff=request["cutoff"], n_features=request["channels"],
            l_max_features=request["max_l"], avg_num_neighbors=stats.avg_num_neighbors, scale=stats.scale,
        )  # fmt: skip
        return frames, stats, network

    def start(request: dict[str, Any]) -> tuple[Any, ...]:
        """What a training makes before its first step."""
        frames, stats, potential = load(request)
        settings = {"cutoff": request["cutoff"], "batch_size": 1, "references": stats.references}
        batch = jax.device_put(next(iter(data.make_batches(frames, **settings))))
        params = potential.init(jax.random.key(0))
        recipe = training.Recipe(n_epochs=1, batch_size=1)
        vector, unravel = ravel_pytree(params)
        problem = make_problem(potential, recipe, unravel, True, 1000)
        state = initial_state(vector, problem.optimizer)
        step = compile_steps(problem).step
        return state, step, batch, params, potential

    def network(request: dict[str, Any]) -> Run:
        state, step, batch, params, potential = start(request)

        def energy_and_forces(params: Any, batch: Any) -> Any:
            found = training.predict(potential, params, batch)
            return found.energy, found.forces

        predict = jax.jit(energy_and_forces)
        jax.block_until_ready(predict(params, batch))
        state, *_ = jax.block_until_ready(step(state, batch))
        pairs = int((np.asarray(batch.neighbors.indices) < batch.neighbors.parents.shape[-1]).sum())

        def run() -> dict[str, Any]:
            nonlocal state

            def train() -> None:
                nonlocal state
                state, *_ = jax.block_until_ready(step(state, batch))

            return {
                "energy and forces": repeated(lambda: jax.block_until_ready(predict(params, batch))),
                "training step": repeated(train),
                "n_atoms": batch.system.positions.shape[1],
                "n_pairs": pairs,
                "n_params": int(sum(np.size(x) for x in jax.tree.leaves(params))),
            }

        return run

    def first_step(request: dict[str, Any]) -> Run:
        """Everything that comes before it, with the data that `training.train` would be given."""
        # A part of difmd imports PyTorch where it is there, which takes a while and is not its own time.
        sys.meta_path.insert(0, _NoTorch())
        state, step, batch, *_ = start(request)

        def run() -> dict[str, Any]:
            jax.block_until_ready(step(state, batch))
            return {"n_atoms": batch.system.positions.shape[1]}

        return run

    def mixed_sizes(request: dict[str, Any]) -> Run:
        frames, stats, potential = load(request)

        def run() -> dict[str, Any]:
            recipe = training.Recipe(n_epochs=2, batch_size=4)
            result = training.train(
                potential, frames[::2], valid=frames[1::2], references=stats.references, recipe=recipe,
                progress=False,
            )  # fmt: skip
            sizes = sorted({frame.n_atoms for frame in frames})
            return {"n_compiled": result.n_compiled, "sizes": sizes}

        return run

    return {"network": network, "first step": first_step, "mixed sizes": mixed_sizes}


def mace_torch_cases() -> dict[str, Callable[[dict[str, Any]], Run]]:
    """mace-torch, with the blocks and the loss that its training script has by default."""
    import ase.io
    import torch

    # Constants of e3nn, which PyTorch does not load without this.
    torch.serialization.add_safe_globals([slice])
    from e3nn import o3
    from mace import data, modules, tools

    torch.set_default_dtype(torch.float32)

    def network(request: dict[str, Any]) -> Run:
        atoms = ase.io.read(request["file"])
        numbers = sorted(set(atoms.numbers.tolist()))
        table = tools.AtomicNumberTable(numbers)
        keys = data.KeySpecification(info_keys={"energy": "energy"}, arrays_keys={"forces": "forces"})
        atoms.info["energy"], atoms.arrays["forces"] = atoms.get_potential_energy(), atoms.get_forces()
        frame = data.config_from_atoms(atoms, key_specification=keys)
        graph = data.AtomicData.from_config(frame, z_table=table, cutoff=request["cutoff"])
        batch = next(iter(tools.torch_geometric.dataloader.DataLoader([graph], batch_size=1)))
        torch.manual_seed(0)
        channels, degree = request["channels"], request["max_l"]
        block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
        model = modules.ScaleShiftMACE(
            r_max=request["cutoff"], num_bessel=8, num_polynomial_cutoff=5, max_ell=3,
            interaction_cls=block, interaction_cls_first=block, num_interactions=2,
            num_elements=len(numbers),
            hidden_irreps=o3.Irreps([(channels, (l, (-1) ** l)) for l in range(degree + 1)]),  # noqa: E741
            MLP_irreps=o3.Irreps("16x0e"), atomic_energies=np.zeros(len(numbers)),
            avg_num_neighbors=graph.edge_index.shape[1] / len(atoms), atomic_numbers=numbers, correlation=3,
            gate=torch.nn.functional.silu, radial_MLP=[64, 64, 64], radial_type="bessel",
            atomic_inter_scale=1.0, atomic_inter_shift=0.0,
        )  # fmt: skip
        loss = modules.WeightedEnergyForcesLoss(energy_weight=1.0, forces_weight=100.0)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, amsgrad=True)
        values = batch.to_dict()

        def predict() -> None:
            model(values, training=False, compute_force=True)

        def train() -> None:
            optimizer.zero_grad(set_to_none=True)
            found = model(values, training=True, compute_force=True)
            loss(pred=found, ref=batch).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=10.0)
            optimizer.step()

        predict()
        train()

        def run() -> dict[str, Any]:
            return {
                "energy and forces": repeated(predict),
                "training step": repeated(train),
                "n_atoms": len(atoms),
                "n_pairs": int(graph.edge_index.shape[1]),
                "n_params": sum(p.numel() for p in model.parameters()),
            }

        return run

    return {"network": network}


class _NoTorch:
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "torch":
            raise ImportError("not here")


def repeated(function: Callable[[], Any]) -> float:
    """Seconds of a call, the median of at least three and of as many as `SHORTEST` has room for."""
    times: list[float] = []
    while len(times) < 3 or sum(times) < SHORTEST:
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return float(np.median(times))
