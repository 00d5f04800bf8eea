"""Measured self-diffusivities, and their counterparts from trajectories of a liquid."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from difmd import units
from difmd._internal.summaries import summary
from difmd.errors import DifmdError, InputError
from difmd.fitting.liquids.melting import neighbor_distance
from difmd.fitting.liquids.states import Average
from difmd.fitting.targets.diffusion import check_method, gradients_along, lyapunov_exponent_of, origins_of
from difmd.fitting.targets.residuals import gradient_record, scalar_residuals
from difmd.fitting.targets.target import Residual, Setup, StatePointRun, Target
from difmd.fitting.terms import Residuals
from difmd.observables import Diffusivity, diffusivity_from_arrays, finite_size_correction, is_liquid
from difmd.potentials import Params
from difmd.sensitivity import EquilibriumGradient, equilibrium_gradient
from difmd.sensitivity.diffusion import share_of
from difmd.system import System

# Standard error of ∂lnD/∂lnθ at which a gradient through a trajectory counts as exploded.
_EXPLODED = 100.0


class StatePoint(NamedTuple):
    """The diffusivity of a state point.

    Attributes:
        diffusivity: of the periodic box, by two routes.
        correction: finite-size correction to add [Å²/time]; 0 without a viscosity.
        gradient: of the diffusivity of the box in the parameters, or None; ∂lnD/∂θ at the lags of
            `Sampling.gradient_window`, times D.
        n_solid: replicas that are crystalline at the end of their trajectories; they are in the mean.
    """

    diffusivity: Diffusivity
    correction: float
    gradient: EquilibriumGradient | None
    n_solid: int = 0

    @property
    def value(self) -> float:
        """D of the infinite system, Einstein route [Å²/time]."""
        return float(self.diffusivity.einstein.value) + self.correction

    @property
    def stderr(self) -> float:
        """Its statistical error [Å²/time]."""
        return float(self.diffusivity.einstein.stderr)

    def __repr__(self) -> str:
        """D by both routes."""
        rows = {
            "finite-size correction [1e-9 m²/s]": self.correction / units.D,
            "of the box, Green–Kubo [1e-9 m²/s]": float(self.diffusivity.green_kubo.value) / units.D,
            "gradient": "none" if self.gradient is None else "EquilibriumGradient(…)",
            "crystalline replicas": self.n_solid,
        }
        value, error = self.value / units.D, self.stderr / units.D
        return summary(f"StatePoint: D = {value:.4g} ± {error:.2g} 1e-9 m²/s", rows)


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class DiffusivityTarget(Target):
    """A measured self-diffusivity at one state point, in internal units.

    Attributes:
        temperature: [K].
        diffusivity: measured D, of the infinite system [Å²/time]; write `3.0 * units.D`.
        density: mass density [amu/Å³].
        viscosity: shear viscosity [eV/Å³·time], for the finite-size correction; None: no correction.
        stderr: standard error of the measured D [Å²/time]; None where it is not known.
        species: atomic number of the atoms that are followed, in a mixture or in molecules; None: all.
    """

    temperature: float
    diffusivity: float
    density: float
    viscosity: float | None = None
    stderr: float | None = None
    species: int | None = None

    def __post_init__(self) -> None:
        """Raise `InputError` for values that are not positive."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("viscosity", "stderr", "species") and value is None:
                continue
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"target {field.name} = {value} must be positive and finite")

    def check(self, setup: Setup, params: Params, system: System) -> None:
        """Raise `InputError` for a species that is not in the box, or an unsuitable gradient method."""
        if self.species is not None and not bool(jnp.any(system.atomic_numbers == self.species)):
            raise InputError(f"target species {self.species}: no such atoms in the liquid")
        if setup.gradient is not None:
            check_method(setup.potential, params, system, setup.sampling, setup.gradient)

    def measure(self, run: StatePointRun) -> StatePoint:
        """D, its finite-size correction, and its gradient."""
        sampling, production, systems = run.setup.sampling, run.production, run.replicas.systems
        assert production is not None
        found = diffusivity_from_arrays(
            production.positions, production.momenta, systems.masses[0],
            interval=sampling.dt * sampling.save_every, window=sampling.window, temperature=run.temperature,
            select=None if self.species is None else np.asarray(systems.atomic_numbers[0]) == self.species,
        )  # fmt: skip
        correction = 0.0
        if self.viscosity is not None:
            edge = float(systems.volume[0]) ** (1 / 3)
            correction = finite_size_correction(
                temperature=self.temperature, viscosity=self.viscosity, box_length=edge
            )
        gradient = self._gradient(run, found) if run.setup.with_gradient else None
        n_solid = 0
        if sampling.is_simple:
            n_solid = int(np.sum(~is_liquid(systems, spacing=neighbor_distance(self.density, sampling))))
        return StatePoint(found, float(correction), gradient, n_solid)

    def _gradient(self, run: StatePointRun, found: Diffusivity) -> EquilibriumGradient:
        setup, systems = run.setup, run.replicas.systems
        assert run.production is not None
        along = gradients_along(
            setup.potential, run.params, run.replicas, run.temperature, setup.sampling, run.key,
            species=self.species, gradient=setup.gradient,
        )  # fmt: skip
        masses = systems.masses[0]
        share = share_of(systems.atomic_numbers[0], self.species, masses.dtype)
        origins = origins_of(run.production, masses, run.temperature, setup.sampling, share)
        early = equilibrium_gradient(
            origins.values, origins.energy_gradients, along, temperature=run.temperature,
            initial_state_term=setup.initial_state_term, control=origins.kinetic,
        )  # fmt: skip
        scale = found.einstein.value / early.value
        return jax.tree.map(lambda x: scale * x, early)

    def check_result(self, result: StatePoint, run: StatePointRun, key: Key[Array, ""]) -> None:
        """Raise `DifmdError` for a gradient that is only noise, with the longest window that would serve."""
        assert result.gradient is not None
        errors = jax.tree.map(lambda g, theta: g * theta, result.gradient.gradient_stderr, run.params)
        worst = float(np.max([np.max(np.abs(x)) for x in jax.tree.leaves(errors)])) / abs(result.value)
        if np.isfinite(worst) and worst < _EXPLODED or not np.isfinite(result.value):
            # `fit` reports a diffusivity that is not finite.
            return
        sampling = run.setup.sampling
        end = sampling.gradient_window[1]
        rate = lyapunov_exponent_of(
            run.setup.potential, run.params, run.replicas, run.temperature, sampling, key
        )
        advice = "Use a gradient_window that ends earlier"
        if np.isfinite(rate) and rate > 0:
            # Where the error would be 1, or trajectories are ten times as far apart as initially.
            horizon = (end - np.log(worst) / rate) if np.isfinite(worst) else np.log(10) / rate
            horizon = max(horizon, 2 * sampling.dt * sampling.save_every)
            advice = (
                f"The Lyapunov exponent is {rate * units.PS:.2f}/ps: use a gradient_window that ends at "
                f"{horizon / units.PS:.2g} ps"
            )
        raise DifmdError(
            f"the gradient through {end / units.PS:.3g} ps at {run.temperature:g} K has exploded: the "
            f"standard error of ∂lnD/∂lnθ is {worst:.3g}. The parameters of the previous iteration are kept. "
            f"{advice}"
        )

    @classmethod
    def residuals(
        cls, targets: Sequence[Any], results: Sequence[Any], residual: Residual, share: float
    ) -> list[Residuals]:
        """One for each target, as `residual` of all values has it."""
        averages = [
            Average(r.value, r.stderr, r.gradient.gradient, r.gradient.gradient_stderr) for r in results
        ]
        measured, errors = [t.diffusivity for t in targets], [t.stderr for t in targets]
        return scalar_residuals(measured, errors, averages, residual, share)

    @classmethod
    def record(cls, targets: Sequence[Any], results: Sequence[StatePoint]) -> dict[str, Any]:
        """D and its gradient, the two terms of that one by one."""
        entry = {
            "D_1e-9_m2_s": [result.value / units.D for result in results],
            "D_stderr_1e-9_m2_s": [result.stderr / units.D for result in results],
        }
        for name in ("gradient", "gradient_stderr", "along", "initial"):
            entry |= gradient_record(name, [getattr(r.gradient, name) for r in results], units.D)
        return entry
