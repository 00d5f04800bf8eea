"""Each public function with a potential refuses, outside jit, what the potential has no parameters for.

The registry has an entry for every public function that takes a potential; a function without one fails.
Each entry is called with a species that the potential has no parameters for, with the parameters of another
potential, and with the neighbour list of another system, as far as it takes them.
"""

import functools
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from public import PUBLIC, by_attribute

import difmd
from difmd import data, fitting, sensitivity, training, units
from difmd.errors import InputError

CUTOFF = 4.0
SETTINGS = {"sigma": 3.4, "epsilon": 0.0103, "cutoff": CUTOFF}
NVE = difmd.velocity_verlet(dt=2 * units.FS)
REFERENCES = {18: 0.0, 36: 0.0}
KEY = functools.cache(lambda: jax.random.key(0))


class Case(NamedTuple):
    """What the functions of the registry are called with."""

    potential: difmd.potentials.Potential
    params: Any
    system: difmd.System
    neighbors: Any
    state: Any
    replicas: fitting.Replicas
    frames: list[data.Frame]


def crystal(number, a=5.4):
    grid = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    cells = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    return difmd.make_system(a * (cells + grid).reshape(-1, 3), np.full(32, number), cell=[2 * a] * 3)


def pair(x):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), x, x)


@functools.cache
def case(species="Ar"):
    """Everything for one species, the potential and its parameters for argon."""
    number = {"Ar": 18, "Kr": 36}[species]
    system = crystal(number)
    neighbors = difmd.neighbor_list(system, cutoff=CUTOFF, skin=0.5)
    potential = difmd.lennard_jones("Ar", **SETTINGS)
    serving = difmd.lennard_jones(species, **SETTINGS)
    params = serving.init(KEY())
    momenta = jnp.zeros((32, 3))
    state = difmd.initialize(serving, params, system, NVE, neighbors, momenta=momenta, key=KEY())
    replicas = fitting.given_replicas(serving, [system, system], sampling=sampling(number))
    frame = data.Frame(
        system=jax.tree.map(np.asarray, system), energy=-1.0, forces=np.zeros((32, 3)), kind="", source="test"
    )
    return Case(potential, params, system, neighbors, state, replicas, [frame] * 4)


def sampling(number=18):
    return fitting.Sampling(
        atomic_number=number, mass=39.948, n_atoms=32, n_replicas=2, n_gradient_replicas=2,
        melt_time=units.PS, equilibration_time=units.PS, relaxation_time=units.PS,
        production_time=8 * units.PS,
    )  # fmt: skip


def density(system):
    return float(np.sum(system.masses) / system.volume)


def target(c):
    return fitting.DiffusivityTarget(temperature=100.0, diffusivity=2.0 * units.D, density=density(c.system))


def number(c):
    return int(c.system.atomic_numbers[0])


def batch(c):
    made = data.make_batches(c.frames, cutoff=CUTOFF, batch_size=2, references=REFERENCES, max_shapes=1)
    return next(iter(made))


def trained(c):
    return training.TrainingResult(
        best_params=c.params, last_params=c.params, references=REFERENCES, best_epoch=0, history=[],
        n_compiled=0, seconds=0.0, is_complete=True,
    )  # fmt: skip


def squared_error(evaluation, part):
    return training.loss(evaluation, part, training.Weights())


WINDOW = sensitivity.DiffusionWindow(dt=0.2, save_every=1, rebuild_every=5, first=2, last=4, origins=2)
MOMENTA = functools.cache(lambda: jnp.full((32, 3), 0.1))

SPECIES, PARAMS, LIST = "species", "params", "list"
ALL = (SPECIES, PARAMS, LIST)
# Path: what the function takes, and a call.
CALLS = {
    "difmd.evaluate": (ALL, lambda c: difmd.evaluate(c.potential, c.params, c.system, c.neighbors)),
    "difmd.forces.forces": (ALL, lambda c: difmd.forces.forces(c.potential, c.params, c.system, c.neighbors)),
    "difmd.forces.forces_and_virial": (
        ALL, lambda c: difmd.forces.forces_and_virial(c.potential, c.params, c.system, c.neighbors),
    ),
    "difmd.forces.plain_forces": (
        ALL, lambda c: difmd.forces.plain_forces(c.potential, c.params, c.system, c.neighbors),
    ),
    "difmd.initialize": (
        ALL,
        lambda c: difmd.initialize(
            c.potential, c.params, c.system, NVE, c.neighbors, momenta=MOMENTA(), key=KEY()
        ),
    ),
    "difmd.rollout": (
        ALL,
        lambda c: difmd.rollout(c.potential, c.params, c.state, NVE, c.neighbors, n_steps=2),
    ),
    "difmd.simulate": (
        (SPECIES, PARAMS),
        lambda c: difmd.simulate(
            c.potential, c.params, c.system, NVE, n_steps=2, save_every=1, chunk_steps=2, key=KEY(),
            initial_temperature=50.0, progress=False,
        ),
    ),
    "difmd.relax": (
        (SPECIES, PARAMS),
        lambda c: difmd.relax(c.potential, c.params, c.system, max_steps=2, progress=False),
    ),
    "difmd.relaxation.minimize": (
        ALL,
        lambda c: difmd.relaxation.minimize(c.potential, c.params, c.system, c.neighbors, max_steps=2),
    ),
    "difmd.validate": (
        (SPECIES, PARAMS),
        lambda c: difmd.validate(c.potential, c.params, c.system, temperature=50.0, progress=False),
    ),
    "difmd.save": ((PARAMS,), lambda c: difmd.save("/nowhere/model.npz", c.potential, c.params)),
    "difmd.potentials.validate_inputs": (
        (SPECIES, PARAMS), lambda c: difmd.potentials.validate_inputs(c.potential, c.params, c.system),
    ),
    "difmd.observables.elastic_constants": (
        ALL,
        lambda c: difmd.observables.elastic_constants(c.potential, c.params, c.system, c.neighbors),
    ),
    "difmd.sensitivity.diffusion_sample": (
        ALL,
        lambda c: sensitivity.diffusion_sample(
            c.potential, c.params, c.system, MOMENTA(), c.neighbors, WINDOW
        ),
    ),
    "difmd.sensitivity.energies_of": (
        ALL,
        lambda c: sensitivity.energies_of(c.potential, c.params, pair(c.system), c.neighbors),
    ),
    "difmd.sensitivity.gradient_report": (
        ALL,
        lambda c: sensitivity.gradient_report(
            c.potential, c.params, pair(c.system), NVE, pair(c.neighbors), initial_temperature=50.0,
            n_steps=4, save_every=2, key=KEY(), progress=False,
        ),
    ),
    "difmd.sensitivity.tangent_growth": (
        ALL,
        lambda c: sensitivity.tangent_growth(
            c.potential, c.params, c.system, MOMENTA(), c.neighbors, dt=0.2, n_steps=4, rebuild_every=2,
            key=KEY(),
        ),
    ),
    "difmd.training.consensus": (
        ALL,
        lambda c: training.consensus(c.potential, pair(c.params), c.system, c.neighbors),
    ),
    "difmd.training.predict": (
        (SPECIES, PARAMS), lambda c: training.predict(c.potential, c.params, batch(c)),
    ),
    "difmd.training.loss_and_gradient": (
        (SPECIES, PARAMS),
        lambda c: training.loss_and_gradient(c.potential, c.params, batch(c), squared_error),
    ),
    "difmd.training.report": (
        (SPECIES, PARAMS), lambda c: training.report(c.potential, trained(c), valid=c.frames),
    ),
    "difmd.training.train": (
        (SPECIES, PARAMS),
        lambda c: training.train(
            c.potential, c.frames, valid=c.frames, references=REFERENCES, params=c.params, progress=False
        ),
    ),
    "difmd.training.train_committee": (
        (SPECIES, PARAMS),
        lambda c: training.train_committee(
            c.potential, c.frames, valid=c.frames, references=REFERENCES, params=pair(c.params), n_members=2,
            progress=False,
        ),
    ),
    "difmd.fitting.first_principles": (
        (SPECIES, PARAMS),
        lambda c: fitting.first_principles(c.potential, c.params, c.frames, references=REFERENCES),
    ),
    "difmd.fitting.given_replicas": (
        (SPECIES,),
        lambda c: fitting.given_replicas(
            c.potential, [c.system, c.system], sampling=sampling(number(c))
        ),
    ),
    "difmd.fitting.equilibrate": (
        ALL,
        lambda c: fitting.equilibrate(
            c.potential, c.params, c.replicas, temperature=100.0, time=units.PS, sampling=sampling(number(c)),
            key=KEY(),
        ),
    ),
    "difmd.fitting.produce": (
        ALL,
        lambda c: fitting.produce(
            c.potential, c.params, c.replicas, temperature=100.0, sampling=sampling(number(c)), key=KEY()
        ),
    ),
    "difmd.fitting.melt": (
        (SPECIES, PARAMS),
        lambda c: fitting.melt(
            c.potential, c.params, temperature=100.0, density=density(c.system), sampling=sampling(number(c)),
            key=KEY(),
        ),
    ),
    "difmd.fitting.measure": (
        ALL,
        lambda c: fitting.measure(
            c.potential, c.params, [target(c)], c.replicas, sampling=sampling(number(c)), key=KEY()
        ),
    ),
    "difmd.fitting.measure_diffusivity": (
        ALL,
        lambda c: fitting.measure_diffusivity(
            c.potential, c.params, target(c), c.replicas, sampling=sampling(number(c)), key=KEY()
        ),
    ),
    "difmd.fitting.state_points": (
        ALL,
        lambda c: fitting.state_points(
            c.potential, c.params, [target(c)], sampling=sampling(number(c)), replicas=[c.replicas]
        ),
    ),
    "difmd.fitting.fit_diffusivity": (
        ALL,
        lambda c: fitting.fit_diffusivity(
            c.potential, c.params, [target(c)], sampling=sampling(number(c)), n_iterations=1, key=KEY(),
            replicas=[c.replicas], progress=False,
        ),
    ),
    "difmd.interop.ase.Calculator": (
        (SPECIES, PARAMS),
        lambda c: difmd.interop.ase.Calculator(c.potential, c.params).calculate(
            difmd.to_ase(c.system), ["energy"]
        ),
    ),
    "difmd.interop.jax_md.to_jax_md": (
        (SPECIES, PARAMS),
        lambda c: by_attribute("difmd.interop.jax_md.to_jax_md")(c.potential, c.params, c.system),
    ),
}  # fmt: skip


def takes_a_potential(value):
    try:
        parameters = inspect.signature(value).parameters.values()
    except ValueError:
        return False
    return any("Potential" in str(p.annotation) and "Callable" not in str(p.annotation) for p in parameters)


# Values that hold a potential and compute nothing.
HOLDERS = {"difmd.Model", "difmd.fitting.Setup"}


def test_every_function_with_a_potential_is_in_the_registry():
    missing = {path for path, value in PUBLIC.items() if takes_a_potential(value)} - HOLDERS - set(CALLS)
    assert not missing, f"give CALLS an entry for {sorted(missing)}"


@pytest.mark.parametrize("path", CALLS)
def test_entries_are_public(path):
    assert callable(by_attribute(path))


def rows(kind):
    return [path for path, (kinds, _) in CALLS.items() if kind in kinds]


@pytest.mark.parametrize("path", rows(SPECIES))
def test_a_species_without_parameters_is_refused(path):
    with pytest.raises(InputError, match="Kr"):
        CALLS[path][1](case("Kr"))


@pytest.mark.parametrize("path", rows(PARAMS))
def test_parameters_of_another_potential_are_refused(path):
    other = difmd.morse(["Ar"], depth=0.1, width=1.0, distance=3.0, cutoff=CUTOFF).init(KEY())
    with pytest.raises(InputError, match=r"param"):
        CALLS[path][1](case()._replace(params=other))


@pytest.mark.parametrize("path", rows(LIST))
def test_the_list_of_another_system_is_refused(path):
    small = difmd.make_system([[0.0, 0, 0], [3.4, 0, 0]], [18, 18], cell=[20.0] * 3)
    other = difmd.neighbor_list(small, cutoff=CUTOFF, skin=0.5)
    c = case()
    c = c._replace(neighbors=other, replicas=c.replicas._replace(neighbors=pair(other)))
    with pytest.raises(InputError, match=r"list|atoms"):
        CALLS[path][1](c)
