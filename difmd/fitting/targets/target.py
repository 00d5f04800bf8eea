"""`Target`: a measured quantity of a state point, with everything a fit needs to use it."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Array, Key

from difmd._internal.summaries import brief_repr
from difmd.fitting.liquids.dynamics import Production
from difmd.fitting.liquids.replicas import Replicas
from difmd.fitting.liquids.sampling import Sampling
from difmd.fitting.liquids.states import States
from difmd.fitting.terms import Residuals
from difmd.gradients.base import GradientMethod
from difmd.potentials import Params, Potential
from difmd.system import System

Residual = Callable[[Any, Any], Any]
"""`residual(values, measured)` of arrays [targets], such as `relative_residual`."""


@brief_repr
class Setup(NamedTuple):
    """What the simulations of all state points have in common.

    Attributes:
        potential: the energy model.
        sampling: how the liquid is simulated.
        with_gradient: whether derivatives in the parameters are needed.
        initial_state_term: whether they include the change of the distribution of initial states.
        gradient: how trajectories are differentiated; None: `checkpointed()`.
    """

    potential: Potential
    sampling: Sampling
    with_gradient: bool = False
    initial_state_term: bool = True
    gradient: GradientMethod | None = None


@brief_repr
class StatePointRun(NamedTuple):
    """The simulation of a state point at the current parameters, which its targets share.

    Attributes:
        setup: what all state points have in common.
        params: the current parameters.
        temperature: [K].
        replicas: at the end of the production run; of the equilibration if there was no production run.
        states: configurations with weights and ∂U/∂θ; None without a production run.
        production: Newtonian trajectories; None if `states` are reweighted, or without a production run.
        key: seed for further simulations.
    """

    setup: Setup
    params: Params
    temperature: float
    replicas: Replicas
    states: States | None
    production: Production | None
    key: Key[Array, ""]


@brief_repr
class Target(abc.ABC):
    """A measured quantity of one state point, in internal units; subclasses are frozen dataclasses.

    Attributes:
        temperature: of the state point [K].
        density: its mass density, at which it is simulated [amu/Å³].
        is_static: whether configurations determine the quantity: `measure` then uses `run.states` only, and
            stored states can be reweighted instead of simulating again.
        uses_production: whether `measure` uses `run.states` or `run.production`; if no target of a state
            point does, there is no production run.
    """

    temperature: float
    density: float
    is_static: ClassVar[bool] = False
    uses_production: ClassVar[bool] = True

    def check(self, setup: Setup, params: Params, system: System) -> None:
        """Raise `InputError` if the quantity cannot be measured in this box; called before a fit."""
        del setup, params, system

    @abc.abstractmethod
    def measure(self, run: StatePointRun) -> Any:
        """Measure the quantity, its error, and its gradient if `run.setup.with_gradient`.

        The result may have any type; `check_result`, `residuals` and `record` receive it.
        """

    def check_result(self, result: Any, run: StatePointRun, key: Key[Array, ""]) -> None:
        """Raise `DifmdError` for a result of no use to a fit, for instance if its gradient is only noise.

        The key is the seed of further runs.
        """
        del result, run, key

    @classmethod
    @abc.abstractmethod
    def residuals(
        cls, targets: Sequence[Any], results: Sequence[Any], residual: Residual, share: float
    ) -> list[Residuals]:
        """Residuals of all targets of this class, with their derivatives and errors, from their results.

        Args:
            targets: of this class.
            results: what `measure` returned for each.
            residual: of the values, chosen by the user; may be ignored.
            share: factor of all residuals, 1/√(number of targets of all classes).
        """

    @classmethod
    @abc.abstractmethod
    def record(cls, targets: Sequence[Any], results: Sequence[Any]) -> dict[str, Any]:
        """Entries of the history for all targets of this class and their results; `json.dumps` accepts it."""

    def settings(self) -> tuple[Any, ...]:
        """Distinguishes the target from others, so that a fit resumes only from its own checkpoint."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))  # type: ignore[arg-type]
        plain = (np.asarray(x) if isinstance(x, list | np.ndarray) else x for x in values)
        return (type(self).__qualname__, *plain)
