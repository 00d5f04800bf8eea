"""Potentials as calculators of ASE, for its optimisers, phonons and dynamics."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import ase
import jax
import numpy as np
from ase.calculators.calculator import Calculator as ASECalculator
from ase.calculators.calculator import CalculatorSetupError, all_changes
from jaxtyping import Array

from difmd._internal.argument_checks import check_type
from difmd._internal.pairs import as_triple
from difmd.errors import check_positive
from difmd.forces import Evaluation, evaluate
from difmd.neighbors import Neighbors, is_stale, neighbor_list
from difmd.potentials import Params, Potential, validate_inputs
from difmd.potentials.base import check_finite, check_model
from difmd.system import System, from_ase


class Calculator(ASECalculator):
    """A calculator of ASE: `atoms.calc = Calculator(potential, params)`.

    Computes energies [eV], also per atom, forces [eV/Å], and with three periodic directions the stress
    [eV/Å³]; charges [e] of potentials that have charges, and without periodic directions the dipole [e·Å].
    Functions are compiled once per number of atoms, unless the neighbour list has to grow. The precision is
    JAX's default: set `jax_enable_x64` for phonons or tight relaxations. A saved network is
    `Calculator(*difmd.load("network.npz")[:2])`.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", "dipole", "charges"]

    def __init__(self, potential: Potential, params: Params, *, skin: float = 0.5, **kwargs: Any) -> None:
        """Create a calculator.

        Args:
            potential: the energy model.
            params: its parameters.
            skin: of the neighbour list [Å].
            kwargs: for `ase.calculators.calculator.Calculator`.

        Raises:
            InputError: a skin that is not positive, or params of another potential or not finite.
        """
        super().__init__(**kwargs)
        remedy = "write Calculator(*difmd.load(file)[:2]) for a saved model"
        check_type("potential", potential, Potential, remedy)
        check_model(potential, params)
        check_finite(params)
        self.potential = potential
        self.params = params
        check_positive("skin", skin, "Å")
        self.skin = skin
        self._neighbors: Neighbors | None = None

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute all properties of `atoms`; ASE calls this.

        Args:
            atoms: the configuration.
            properties: names of the requested properties.
            system_changes: what changed since the last call.

        Raises:
            InputError: species unknown to the potential, or coinciding or infinite positions.
            CalculatorSetupError: results that are not finite, or no atoms.
        """
        super().calculate(atoms, properties, system_changes)
        if self.atoms is None:
            raise CalculatorSetupError("there are no atoms to calculate for")
        # ASE applies constraints to the forces.
        free = self.atoms.copy()
        free.set_constraint()
        system = from_ase(free)
        validate_inputs(self.potential, self.params, system)
        neighbors = self._current(system)
        result = _evaluate(self.potential, self.params, system, neighbors)
        evaluation: Evaluation = jax.tree.map(lambda x: np.asarray(x, np.float64), result)
        if not (np.isfinite(evaluation.energy) and np.isfinite(evaluation.forces).all()):
            raise CalculatorSetupError(
                "energy or forces are not finite: atoms are too close for this potential"
            )
        energy = float(evaluation.energy)
        self.results = {"energy": energy, "free_energy": energy, "forces": evaluation.forces}
        if "energies" in properties:
            energies = _atomic(self.potential, self.params, system, neighbors)
            self.results["energies"] = np.asarray(energies, np.float64)
        if evaluation.charges is not None and evaluation.dipole is not None:
            self.results["charges"] = evaluation.charges
            if not any(neighbors.periodic):
                self.results["dipole"] = evaluation.dipole
        if all(neighbors.periodic):
            # Voigt's order: xx, yy, zz, yz, xz, xy.
            self.results["stress"] = evaluation.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]

    def _current(self, system: System) -> Neighbors:
        """The previous list if it is valid for these atoms, or a new one."""
        previous = self._neighbors
        if previous is not None:
            is_same = previous.periodic == as_triple(system.pbc)
            if not is_same or previous.reference_positions.shape != system.positions.shape:
                previous = None
            elif not bool(_is_stale(system, previous)):
                return previous
        cutoff, edges = self.potential.cutoff, self.potential.uses_reverse_edges
        # The shapes of the previous list reuse compiled functions.
        self._neighbors = neighbor_list(
            system, cutoff=cutoff, skin=self.skin, like=previous, reverse_edges=edges
        )
        return self._neighbors


# Compiled once for all calculators of a potential.
_evaluate = jax.jit(evaluate, static_argnums=0)
_is_stale = jax.jit(is_stale)


@functools.partial(jax.jit, static_argnums=0)
def _atomic(potential: Potential, params: Params, system: System, neighbors: Neighbors) -> Array:
    return potential.atomic(params, system, neighbors)
