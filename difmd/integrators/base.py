"""The interface of integrators, and their state."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from difmd._internal.argument_checks import check_type
from difmd._internal.fixed_point import Resolution
from difmd._internal.summaries import fields_summary, short
from difmd.errors import InputError, check_positive
from difmd.integrators.schedule import Schedule, values_of
from difmd.system import System, check_system
from difmd.units import BAR, FS, PS

ForceFunction: TypeAlias = Callable[[System], Float[Array, "atoms 3"]]
"""`force(system)` → forces [eV/Å]; [atoms, 3]."""


@dataclasses.dataclass(frozen=True)
class Forces:
    """A force function with the virial, which barostats need. Forces on fixed atoms are zero.

    Attributes:
        forces_only: `forces_only(system)` → forces [eV/Å]; [atoms, 3].
        with_virial: `with_virial(system)` → forces, and −∂U/∂strain [eV]; [3, 3].
    """

    forces_only: Callable[[System], Array]
    with_virial: Callable[[System], tuple[Array, Array]]

    __repr__ = fields_summary

    def __call__(self, system: System) -> Array:
        """The forces, zero on fixed atoms."""
        return on_mobile(system, self.forces_only(system))


def on_mobile(system: System, vectors: Float[Array, "atoms 3"]) -> Float[Array, "atoms 3"]:
    """Forces or momenta, zero for fixed atoms."""
    return vectors if system.fixed is None else jnp.where(system.fixed[:, None], 0, vectors)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class MDState:
    """A point of a trajectory.

    Attributes:
        system: positions, masses, cell.
        momenta: [amu Å/(Å√(amu/eV))]; [atoms, 3].
        forces: at these positions [eV/Å]; [atoms, 3].
        key: JAX key of the noise.
        step: number of steps; int32 [].
        bath: variables of a thermostat or barostat, a pytree; () without.
        virial: −∂U/∂strain at these positions [eV]; [3, 3]. None without a barostat.
    """

    system: System
    momenta: Float[Array, "*batch atoms 3"]
    forces: Float[Array, "*batch atoms 3"]
    key: Key[Array, "*batch"]
    step: Int[Array, "*batch"]
    bath: Any = ()
    virial: Float[Array, "*batch 3 3"] | None = None

    __repr__ = fields_summary

    def replace(self, **changes: Any) -> MDState:
        """A copy with some fields replaced, as `dataclasses.replace`."""
        return dataclasses.replace(self, **changes)


class Reversible(NamedTuple):
    """A step on a grid that the same step with the opposite sign undoes, bit for bit.

    Attributes:
        memory: `memory(system, resolution, n_steps)`, a pytree for the information that so many steps lose.
        step: `step(state, memory, force, sign, resolution) -> state, memory` for a sign of 1 or −1, with
            state, cell and forces on the grids of the resolution.
    """

    memory: Callable[[System, Resolution, int], Any]
    step: Callable[[MDState, Any, ForceFunction, Array, Resolution], tuple[MDState, Any]]


class Integrator(NamedTuple):
    """An integrator: pure functions in a pytree.

    They are `jax.tree_util.Partial`s, as `Partial(step, dt, temperature)`. Their numbers are leaves, which do
    not recompile when changed, and can be mapped over replicas and differentiated.

    Attributes:
        init: `init(system, momenta, key, force) -> MDState`.
        step: `step(state, force) -> MDState`, one time step.
        dt: time step [Å√(amu/eV)].
        reversible: a step that can be undone bit for bit, if there is one.
        reservoir: `reservoir(state)`, the energy that baths have received [eV], if available: U + K +
            reservoir is constant up to the error of the steps.
    """

    init: Callable[[System, Array, Array, ForceFunction], MDState]
    step: Callable[[MDState, ForceFunction], MDState]
    dt: Any
    reversible: Reversible | None = None
    reservoir: Callable[[MDState], Array] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of the factory by name, such as `dt`, `temperature`, `friction` and `pressure`."""
        settings = {"dt": self.dt}
        for function in (self.step, self.init):
            if isinstance(function, jax.tree_util.Partial):
                names = list(inspect.signature(function.func).parameters)
                settings |= dict(zip(names, function.args, strict=False))
                settings |= function.func._asdict() if hasattr(function.func, "_asdict") else {}
        return settings

    def __repr__(self) -> str:
        """The call of the factory, in practical units."""
        function = getattr(self.step, "func", None)
        is_ours = getattr(function, "__module__", "").startswith("difmd.integrators.")
        name = function.__module__.rpartition(".")[2] if is_ours else "Integrator"
        return f"{name}({', '.join(f'{k}={_in_units(k, v)}' for k, v in self.settings.items())})"


_UNITS = {
    "dt": (FS, " fs"),
    "temperature": (1.0, " K"),
    "friction": (1 / PS, " /ps"),
    "time_constant": (PS, " ps"),
    "piston_time": (PS, " ps"),
    "pressure": (BAR, " bar"),
    "compressibility": (1 / BAR, " /bar"),
}


def _in_units(name: str, value: Any) -> str:
    """A setting with its unit; traced numbers and arrays by dtype and shape."""
    if isinstance(value, jax.core.Tracer | str) or not hasattr(value, "__float__") or np.ndim(value):
        return short(value)
    unit, symbol = _UNITS.get(name, (1, ""))
    return f"{float(value) / unit:.4g}{symbol}"


def check_integrator(integrator: Any) -> None:
    """Require an `Integrator`, or raise `InputError`."""
    factories = "velocity_verlet(dt=...), langevin(...) and other factories make one"
    check_type("integrator", integrator, Integrator, factories)


def check_momenta(momenta: Any, system: System) -> None:
    """Require momenta of shape and precision of the positions, or raise `InputError`; may be traced."""
    if not (hasattr(momenta, "shape") and hasattr(momenta, "dtype")):
        raise InputError(f"momenta are a {type(momenta).__name__}: give an array [*replicas, atoms, 3]")
    if momenta.shape != system.positions.shape:
        shapes = [list(x.shape) for x in (momenta, system.positions)]
        raise InputError(f"momenta {shapes[0]} and positions {shapes[1]} differ in shape")
    dtype, expected = (jax.dtypes.canonicalize_dtype(x.dtype) for x in (momenta, system.positions))
    if dtype != expected:
        remedy = "give momenta.astype(system.positions.dtype)"
        raise InputError(f"momenta are {dtype}, but positions {expected}: {remedy}")


def check_state(integrator: Integrator, state: MDState) -> None:
    """Require a state of the shapes of this integrator, or raise `InputError`; may be traced."""
    check_integrator(integrator)
    check_system(state.system)
    check_momenta(state.momenta, state.system)
    expected = state_shapes(integrator.init, state.system)
    # Initial forces of `simulate` are not computed yet.
    for name in ("bath", "virial"):
        shapes = [jax.tree.map(np.shape, getattr(x, name)) for x in (state, expected)]
        if shapes[0] != shapes[1]:
            remedy = "make a state with difmd.initialize from its positions and momenta"
            raise InputError(f"the {name} of this state does not belong to this integrator: {remedy}")


def state_shapes(init: Callable[..., MDState], system: System) -> MDState:
    """Shapes and dtypes of the initial state that the `init` of an integrator returns, also for replicas."""
    force = Forces(lambda system: system.positions, lambda system: (system.positions, system.cell))

    def begin(system: System) -> MDState:
        return init(system, system.positions, jax.random.key(0), force)

    return jax.eval_shape(begin if system.positions.ndim == 2 else jax.vmap(begin), system)


def start(system: System, momenta: Array, key: Array, force: ForceFunction) -> MDState:
    """The state at step 0; fixed atoms have no momentum."""
    momenta = on_mobile(system, momenta)
    return MDState(system=system, momenta=momenta, forces=force(system), key=key, step=jnp.int32(0))


def start_with_virial(system: System, momenta: Array, key: Array, force: Any) -> MDState:
    """The state at step 0 of dynamics with a barostat; fixed atoms, or forces without virial, are refused."""
    if system.fixed is not None:
        remedy = "remove System.fixed, or use an integrator at constant volume"
        raise InputError(f"a barostat moves all atoms with the cell: {remedy}")
    forces, virial = virial_of(force)(system)
    return MDState(system=system, momenta=momenta, forces=forces, key=key, step=jnp.int32(0), virial=virial)


def virial_of(force: Any) -> Callable[[System], tuple[Array, Array]]:
    """The function `with_virial` of a force function, or raise `InputError`."""
    if not isinstance(force, Forces):
        raise InputError("a barostat needs the virial: give difmd.integrators.Forces, as rollout does")
    return force.with_virial


def check_bath(dt: Any, temperature: Any, time_constant: Any) -> None:
    """Require positive settings of a thermostat, or raise `InputError`."""
    check_positive("dt", dt, "Å√(amu/eV)")
    check_temperature(temperature)
    check_positive("time_constant", time_constant, "Å√(amu/eV)")


def check_temperature(temperature: Any) -> None:
    """Require a positive bath temperature or `ramp` of such, or raise `InputError`."""
    check_positive("temperature", values_of(temperature), "K")
    if isinstance(temperature, Schedule) and temperature.values.ndim != 1:
        shape = list(temperature.values.shape[1:])
        raise InputError(f"temperature is a ramp of values of shape {shape}: give numbers")
