"""Measured densities at a pressure, and their counterparts from simulations at constant pressure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from difmd import units
from difmd.errors import InputError, check_positive
from difmd.fitting.liquids.states import Average, average
from difmd.fitting.targets.residuals import gradient_record, scalar_residuals
from difmd.fitting.targets.target import Residual, Setup, StatePointRun, Target
from difmd.fitting.terms import Residuals
from difmd.integrators import Integrator, MDState, cell_rescaling
from difmd.neighbors import Neighbors, neighbor_list
from difmd.potentials import Params, Potential
from difmd.simulation.chunk import draw_state
from difmd.simulation.engine import run_chunks
from difmd.system import System


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class DensityTarget(Target):
    """A measured density at a temperature and a pressure, in internal units.

    It is the mean over Langevin dynamics with stochastic cell rescaling, which starts from the replicas at
    the measured density, and its gradient is that of the isobaric ensemble, −β cov(ρ, ∂U/∂θ).

    Attributes:
        temperature: [K].
        density: measured mass density [amu/Å³]; write `450 * units.KG_PER_M3`.
        pressure: [eV/Å³]; write `1 * units.BAR`.
        stderr: standard error of the measured density [amu/Å³]; None where it is not known.
        equilibration_time: in which the volume relaxes [time].
        production_time: over which the density is averaged [time].
        time_constant: of the relaxation of the volume [time].
        compressibility: approximate isothermal compressibility, for the barostat [Å³/eV].
    """

    uses_production: ClassVar[bool] = False
    temperature: float
    density: float
    pressure: float
    stderr: float | None = None
    equilibration_time: float = 5 * units.PS
    production_time: float = 20 * units.PS
    time_constant: float = 0.5 * units.PS
    compressibility: float = 2e-4 / units.BAR

    def __post_init__(self) -> None:
        """Raise `InputError` for values that are not positive, and a pressure that is not finite."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "pressure":
                if not np.isfinite(value):
                    raise InputError(f"target pressure = {value} eV/Å³ must be finite")
            elif field.name != "stderr" or value is not None:
                check_positive(f"target {field.name}", value, "")

    def check(self, setup: Setup, params: Params, system: System) -> None:
        """Raise `InputError` for boxes that are not periodic in all directions."""
        del setup, params
        if not np.all(system.pbc):
            raise InputError("a density needs boxes that are periodic in all directions")

    def measure(self, run: StatePointRun) -> Average:
        """The mean density of all replicas [amu/Å³], and its gradient."""
        sampling, systems = run.setup.sampling, run.replicas.systems
        integrator = cell_rescaling(
            dt=sampling.dt, temperature=run.temperature, pressure=self.pressure, friction=sampling.friction,
            time_constant=self.time_constant, compressibility=self.compressibility,
        )  # fmt: skip
        kelvin = jnp.asarray(run.temperature, systems.positions.dtype)
        state = draw_state(integrator, systems, kelvin, run.key)
        every, chunk_steps = sampling.save_every, 40 * sampling.save_every
        times = (self.equilibration_time, self.production_time)
        skipped, counted = (-(-sampling.steps(time) // chunk_steps) for time in times)
        # With capacity for the fluctuations of the volume.
        potential, old = run.setup.potential, run.replicas.neighbors
        neighbors = neighbor_list(
            systems, cutoff=old.cutoff, skin=old.skin, slack=1.5, reverse_edges=potential.uses_reverse_edges
        )
        n_steps = (skipped + counted) * chunk_steps
        chunks = run_chunks(
            potential, run.params, state, integrator, neighbors,
            n_steps=n_steps, save_every=every, chunk_steps=chunk_steps, record=_record,
        )  # fmt: skip
        frames = [chunk.frames for chunk in chunks][skipped:]
        density, slopes = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *frames)
        weights = jnp.full(density.shape, 1 / density.size, density.dtype)
        mean = average(density[..., None], weights, slopes, kelvin)
        mean = jax.tree.map(lambda x: x[0], mean)
        return mean._replace(value=float(mean.value), stderr=float(mean.stderr))

    @classmethod
    def residuals(
        cls, targets: Sequence[Any], results: Sequence[Average], residual: Residual, share: float
    ) -> list[Residuals]:
        """One for each target, as `residual` of all values has it."""
        measured, errors = [t.density for t in targets], [t.stderr for t in targets]
        return scalar_residuals(measured, errors, results, residual, share)

    @classmethod
    def record(cls, targets: Sequence[Any], results: Sequence[Average]) -> dict[str, Any]:
        """`density_kg_m3`, `density_stderr_kg_m3`, `density_gradient` [kg/m³ per unit of the parameter]."""
        unit = units.KG_PER_M3
        return {
            "density_kg_m3": [result.value / unit for result in results],
            "density_stderr_kg_m3": [result.stderr / unit for result in results],
            **gradient_record("density_gradient", [result.gradient for result in results], unit),
        }


def _record(
    potential: Potential, params: Params, integrator: Integrator, state: MDState, neighbors: Neighbors
) -> tuple[Array, tuple[Array, Any]]:
    """Potential energy; density and ∂U/∂θ of a frame."""
    del integrator
    energy, slopes = jax.value_and_grad(potential.apply)(params, state.system, neighbors)
    return energy, (jnp.sum(state.system.masses) / state.system.volume, slopes)
