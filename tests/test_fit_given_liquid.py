"""Liquids whose boxes are given: mixtures, and the diffusivity of one of their species."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from difmd import make_system, units
from difmd.errors import InputError
from difmd.fitting import (
    DiffusivityTarget,
    Sampling,
    StructureTarget,
    fit,
    given_replicas,
    identity,
    measure_diffusivity,
    melt,
    produce,
    state_points,
)
from difmd.fitting.targets.diffusion import diffusion_samples
from difmd.observables import diffusivity_from_arrays
from difmd.potentials import lennard_jones, switched
from difmd.sensitivity.diffusion import share_of

T, EDGE, N_ATOMS = 200.0, 16.5, 32
POTENTIAL = lennard_jones(
    ["Ne", "Ar"], sigma=[3.0, 3.6], epsilon=0.008, cutoff=6.0, truncation=switched(5.0)
)  # fmt: skip
PARAMS = POTENTIAL.init(jax.random.key(0))
NUMBERS = np.where(np.arange(N_ATOMS) % 4, 18, 10)
SAMPLING = Sampling(
    n_atoms=N_ATOMS, n_replicas=3, n_gradient_replicas=2, relaxation_time=0.1 * units.PS,
    production_time=0.7 * units.PS, window=(0.16 * units.PS, 0.24 * units.PS),
    gradient_window=(0.16 * units.PS, 0.24 * units.PS), origin_time=0.03 * units.PS, save_every=2, skin=1.5,
)  # fmt: skip


def box(seed, **changes):
    """A sparse mixture, far from any overlap."""
    rng = np.random.default_rng(seed)
    sites = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)[::2]
    x = EDGE / 4 * sites + rng.uniform(-0.2, 0.2, (N_ATOMS, 3))
    return make_system(**{"positions": x, "atomic_numbers": NUMBERS, "cell": [EDGE] * 3, **changes})


BOXES = [box(k) for k in range(3)]
DENSITY = float(np.sum(np.asarray(BOXES[0].masses))) / EDGE**3


def target(**changes):
    given = {
        "temperature": T, "diffusivity": 60 * units.D, "density": DENSITY,
        "viscosity": 20e-6 * units.PA_S, "species": 10,
    }  # fmt: skip
    return DiffusivityTarget(**{**given, **changes})


def replicas():
    return given_replicas(POTENTIAL, BOXES, sampling=SAMPLING)


def measured(species, **more):
    return measure_diffusivity(
        POTENTIAL, PARAMS, target(species=species), replicas(), sampling=SAMPLING, key=jax.random.key(1),
        **more,
    )[0]  # fmt: skip


@pytest.mark.slow
def test_diffusivity_is_that_of_the_species():
    """Light atoms are faster; the mean over all lies between; the estimator of the gradient agrees."""
    light, heavy, both = (measured(species) for species in (10, 18, None))
    assert light.diffusivity.einstein.value > 1.1 * heavy.diffusivity.einstein.value
    mean = (8 * light.diffusivity.einstein.value + 24 * heavy.diffusivity.einstein.value) / N_ATOMS
    np.testing.assert_allclose(both.diffusivity.einstein.value, mean, rtol=1e-6)
    done, after = produce(
        POTENTIAL, PARAMS, replicas(), temperature=T, sampling=SAMPLING,
        key=jax.random.split(jax.random.key(1))[0],
    )  # fmt: skip
    masses = after.systems.masses[0]
    share = share_of(jnp.asarray(NUMBERS), 10, masses.dtype)
    np.testing.assert_allclose(np.asarray(share), np.where(NUMBERS == 10, 1 / 8, 0))
    alone = done._replace(positions=done.positions[:, :, ::4], momenta=done.momenta[:, :, ::4])
    np.testing.assert_allclose(
        diffusion_samples(done, masses, 5, 9, share), diffusion_samples(alone, masses[::4], 5, 9), rtol=1e-9
    )
    found = diffusivity_from_arrays(
        done.positions, done.momenta, masses, interval=SAMPLING.dt * 2, window=SAMPLING.window, temperature=T,
        select=NUMBERS == 10,
    )  # fmt: skip
    np.testing.assert_allclose(found.einstein.value, light.diffusivity.einstein.value)
    # The finite-size correction uses the box, not the sampling.
    assert light.correction > 0


@pytest.mark.slow
def test_fit_of_many_parameters_keeps_norms():
    """Two numbers for each of 42 species, moved by Adam; the history holds no gradient of each."""
    many = lennard_jones(
        ["Ne", "Ar", *range(20, 60)], sigma=3.4, epsilon=0.008, cutoff=6.0, truncation=switched(5.0)
    )
    params = many.init(jax.random.key(0))
    boxes = given_replicas(many, BOXES, sampling=SAMPLING)
    term = state_points(many, params, [target()], sampling=SAMPLING, replicas=[boxes])
    # Adam of optax promotes types.
    with jax.numpy_dtype_promotion("standard"):
        found = fit(
            params, [term], n_iterations=1, key=jax.random.key(0), optimizer=optax.adam(1e-3),
            transform=identity(), progress=False,
        )  # fmt: skip
    entry = found.history[0]["state_points"]
    assert "gradient" not in entry and entry["norm_of_gradient"][0] > 0
    assert float(jnp.max(jnp.abs(found.params["sigma"] - params["sigma"]))) > 0


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (BOXES[:2], "2 boxes"),
        ([*BOXES[:2], box(2, cell=[EDGE + 1] * 3)], "cells"),
        ([*BOXES[:2], box(2, atomic_numbers=NUMBERS[::-1].copy())], "atomic_numbers"),
        ([*BOXES[:2], box(2, masses=np.full(N_ATOMS, 30.0))], "masses"),
    ],
)
def test_boxes_that_do_not_belong_together_are_refused(boxes, message):
    with pytest.raises(InputError, match=message):
        given_replicas(POTENTIAL, boxes, sampling=SAMPLING)


def test_number_of_atoms_is_that_of_the_sampling():
    with pytest.raises(InputError, match="32 atoms, the sampling 64"):
        given_replicas(POTENTIAL, BOXES, sampling=dataclasses.replace(SAMPLING, n_atoms=64))


@pytest.mark.parametrize(
    ("targets", "given", "message"),
    [
        ([target(density=1.1 * DENSITY)], True, "density"),
        ([target(species=6)], True, "no such atoms"),
        ([target()], False, "atomic_number and mass"),
        (
            [StructureTarget(temperature=T, density=DENSITY, r=np.arange(1.05, 5, 0.1), g=np.ones(40))],
            True,
            "atomic_number and mass",
        ),
    ],
)
def test_what_given_boxes_cannot_be_measured_for(targets, given, message):
    with pytest.raises(InputError, match=message):
        state_points(POTENTIAL, PARAMS, targets, sampling=SAMPLING, replicas=[replicas()] if given else None)


def test_half_of_a_species_is_refused():
    with pytest.raises(InputError, match="or neither"):
        dataclasses.replace(SAMPLING, mass=20.0)
    with pytest.raises(InputError, match="given_replicas"):
        melt(
            POTENTIAL, PARAMS, temperature=T, density=DENSITY, sampling=SAMPLING, key=jax.random.key(0)
        )  # fmt: skip
