"""First-principles labels as a term of a fit, beside others."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import difmd
from difmd import data
from difmd.errors import InputError
from difmd.fitting import (
    FitError,
    FitInterrupted,
    first_principles,
    fit,
    identity,
    least_squares,
    logarithmic,
)
from difmd.neighbors import neighbor_list
from difmd.training import Weights

TRUTH = {"sigma": jnp.asarray([3.4]), "epsilon": jnp.asarray([0.0103])}
POTENTIAL = difmd.lennard_jones(["Ar"], sigma=3.4, epsilon=0.0103, cutoff=8.0)
START = {"sigma": jnp.asarray([3.3]), "epsilon": jnp.asarray([0.012])}
REFERENCES = {18: -0.5}


@pytest.fixture(scope="module")
def frames():
    """Clusters of argon with the labels of known parameters, and energies of atoms in them."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(6):
        x = 3.8 * np.stack(np.meshgrid(*[np.arange(2)] * 3), -1).reshape(-1, 3) + rng.normal(0, 0.15, (8, 3))
        system = difmd.make_system(x, np.full(8, 18))
        there = difmd.evaluate(POTENTIAL, TRUTH, system, neighbor_list(system, cutoff=8.0))
        found.append(
            data.Frame(system=system, energy=float(there.energy) - 4.0, forces=np.asarray(there.forces))
        )
    return found


def term_of(frames, **changes):
    settings = {"references": REFERENCES, "batch_size": 4, "weights": Weights(1e3, 1e3, 0.0)}
    return first_principles(POTENTIAL, START, frames, **{**settings, **changes})


def solved(terms, n=150, **more):
    with jax.numpy_dtype_promotion("standard"):
        return fit(
            START, terms, n_iterations=n, key=jax.random.key(0), optimizer=optax.adam(5e-3), progress=False,
            transform=logarithmic(), **more,
        )  # fmt: skip


def test_labels_give_back_the_parameters(frames):
    found = solved([term_of(frames)])
    np.testing.assert_allclose(found.params["sigma"], TRUTH["sigma"], rtol=2e-3)
    np.testing.assert_allclose(found.params["epsilon"], TRUTH["epsilon"], rtol=3e-2)
    first, last = (found.history[k]["first_principles"]["F_rmse_meV_A"] for k in (0, -1))
    assert last < 0.1 * first


def test_loss_is_that_of_all_frames_where_they_are_one_batch(frames):
    """λ_E ⟨(ΔE/N)²⟩ + λ_F ⟨ΔF²⟩, and the forces by themselves."""
    found = solved([term_of(frames, batch_size=99)], n=1).history[0]["first_principles"]
    errors, forces = [], []
    for frame in frames:
        there = difmd.evaluate(POTENTIAL, START, frame.system, neighbor_list(frame.system, cutoff=8.0))
        errors.append((float(there.energy) + 8 * REFERENCES[18] - frame.energy) / 8)
        forces.append(np.asarray(there.forces) - frame.forces)
    assert found["value"] == pytest.approx(1e3 * (np.mean(np.square(errors)) + np.mean(np.square(forces))))
    assert found["F_rmse_meV_A"] == pytest.approx(1e3 * np.sqrt(np.mean(np.square(forces))))


@pytest.mark.slow
def test_it_holds_what_another_term_pulls_away(frames):
    """A measured quantity that wants another sigma moves it less the more the labels weigh."""
    pull = least_squares(lambda p: p["sigma"] - 3.6)
    ends = [
        float(solved([term_of(frames, weight=weight), pull]).params["sigma"][0]) for weight in (1e-2, 10.0)
    ]
    assert 3.4 < ends[1] < 3.45 < ends[0] < 3.6


def test_interrupted_and_resumed(frames, tmp_path):
    """The same batches after a resume, to the last bit; other frames are another fit."""
    uninterrupted = solved([term_of(frames)], n=8)

    def stop(entry):
        if stop.armed and len(seen) == 4:
            raise KeyboardInterrupt
        seen.append(entry)

    seen, stop.armed = [], True
    with pytest.raises(FitInterrupted):
        solved([term_of(frames)], n=8, folder=tmp_path, on_iteration=stop)
    with pytest.raises(InputError, match="checkpoint"):
        solved([term_of(frames[:5])], n=8, folder=tmp_path)
    again = solved([term_of(frames)], n=8, folder=tmp_path)
    for name in TRUTH:
        assert (again.params[name] == uninterrupted.params[name]).all()
    assert again.history == uninterrupted.history


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frames: {"frames": []}, "0 frames"),
        (lambda frames: {"references": {}}, "elements .18."),
        (lambda frames: {"weights": Weights(0.0, 0.0, 1.0)}, "stress"),
        (
            lambda frames: {"frames": [frames[0].replace(forces=np.full((8, 3), np.nan), source="bad.xyz")]},
            "bad.xyz.*forces",
        ),
    ],
)
def test_what_is_refused(frames, change, message):
    settings = {"frames": frames, "references": REFERENCES, **change(frames)}
    with pytest.raises(InputError, match=message):
        first_principles(POTENTIAL, START, settings.pop("frames"), **settings)


def test_gauss_newton_says_that_it_needs_residuals(frames):
    with pytest.raises(FitError, match=r"optax\.adam"):
        fit(
            START, [term_of(frames)], n_iterations=1, key=jax.random.key(0), progress=False,
            transform=identity(),
        )  # fmt: skip
