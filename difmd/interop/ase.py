"""Potentials as calculators of ASE: its optimisers, phonons and dynamics run on them."""

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

from difmd.errors import InputError, check_positive
from difmd.forces import Evaluation, evaluate
from difmd.neighbors import Neighbors, is_stale, neighbor_list
from difmd.potentials import Params, Potential, validate_inputs
from difmd.system import System, from_ase


class Calculator(ASECalculator):
    """`atoms.calc = Calculator(*difmd.load("network.npz")[:2])`.

    Energies [eV], also of each atom, forces [eV/Å], and with three periodic directions the stress [eV/Å³];
    charges [e] of potentials that have some, and where nothing is periodic the dipole [e·Å].
    The neighbour list is kept until an atom has moved half the skin, and functions are compiled once for a
    number of atoms, unless the list has to grow. In the precision of JAX's default: set `jax_enable_x64` for
    phonons or tight relaxations.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", "dipole", "charges"]

    def __init__(self, potential: Potential, params: Params, *, skin: float = 0.5, **kwargs: Any) -> None:
        """Keep a potential.

        Args:
            potential: the energy model.
            params: its parameters.
            skin: of the neighbour list [Å].
            kwargs: for `ase.calculators.calculator.Calculator`.

        Raises:
            InputError: a skin that is not positive, or parameters that are not finite.
        """
        super().__init__(**kwargs)
        if not isinstance(potential, Potential):
            raise InputError(
                f"{type(potential).__name__} is no potential: "
                "Calculator(*difmd.load(file)[:2]) takes a model apart"
            )
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
        """Compute everything for `atoms`, as ASE asks for it.

        Raises:
            InputError: atoms that the potential does not know, on top of each other, or with positions that
                are not finite.
            CalculatorSetupError: results that are not finite.
        """
        super().calculate(atoms, properties, system_changes)
        if self.atoms is None:
            raise CalculatorSetupError("there are no atoms to calculate for")
        # Constraints are the business of what asks for forces.
        free = self.atoms.copy()
        free.set_constraint()
        system = from_ase(free)
        validate_inputs(self.potential, self.params, system)
        neighbors = self._current(system)
        found: Evaluation = jax.tree.map(
            lambda x: np.asarray(x, np.float64), _evaluate(self.potential, self.params, system, neighbors)
        )
        if not (np.isfinite(found.energy) and np.isfinite(found.forces).all()):
            raise CalculatorSetupError(
                "energy or forces are not finite: atoms are too close to each other for this potential"
            )
        self.results = {
            "energy": float(found.energy),
            "free_energy": float(found.energy),
            "forces": found.forces,
        }
        if "energies" in properties:
            energies = _atomic(self.potential, self.params, system, neighbors)
            self.results["energies"] = np.asarray(energies, np.float64)
        if found.charges is not None and found.dipole is not None:
            self.results["charges"] = found.charges
            if not any(neighbors.periodic):
                self.results["dipole"] = found.dipole
        if all(neighbors.periodic):
            # Voigt's order: xx, yy, zz, yz, xz, xy.
            self.results["stress"] = found.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]

    def _current(self, system: System) -> Neighbors:
        """The list kept, if it holds for these atoms, or a new one."""
        kept = self._neighbors
        periodic = tuple(bool(flag) for flag in np.asarray(system.pbc))
        shape = system.positions.shape
        if kept is not None and (kept.periodic != periodic or kept.reference_positions.shape != shape):
            kept = None
        if kept is not None and not bool(_is_stale(system, kept)):
            return kept
        made = neighbor_list(
            system,
            cutoff=self.potential.cutoff,
            skin=self.skin,
            # Shapes stay as they were, and so does what was compiled for them.
            like=kept,
            reverse_edges=self.potential.uses_reverse_edges,
        )
        self._neighbors = made
        return made


# Shared by all calculators of a potential, so that another one compiles nothing.
_evaluate = jax.jit(evaluate, static_argnums=0)
_is_stale = jax.jit(is_stale)


@functools.partial(jax.jit, static_argnums=0)
def _atomic(potential: Potential, params: Params, system: System, neighbors: Neighbors) -> Array:
    return potential.atomic(params, system, neighbors)
