"""`Sampling`: sizes, times and windows of the simulations of a liquid."""

from __future__ import annotations

import dataclasses

import numpy as np

from difmd import units
from difmd._internal.summaries import brief_repr
from difmd.errors import InputError, check_positive

CHUNK = 252
"""Long runs consist of chunks of this many steps, which share one compiled function."""


@brief_repr
@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Sampling:
    """How a liquid is simulated at a state point; the defaults suit simple liquids near 100 K.

    Times of melting, equilibration and relaxation are rounded up to a multiple of 252 steps.

    Attributes:
        atomic_number: element of a liquid of one species, which `melt` makes; None for liquids whose boxes
            are given (`given_replicas`), among them molecules and mixtures. Only liquids of one species are
            checked for crystallised replicas.
        mass: of an atom of that species [amu].
        n_atoms: atoms in a box; below about 100 the check for crystallised replicas gives false alarms.
        n_replicas: independent boxes.
        n_gradient_replicas: how many of them are differentiated.
        dt: time step [Å√(amu/eV)].
        friction: of the thermostat during melting and equilibration [1/time].
        melt_factor: ratio of the melting run's temperature to that of the state point.
        melt_time: [time].
        equilibration_time: after melting [time].
        relaxation_time: after a change of parameters [time].
        production_time: length of the Newtonian trajectory of a replica [time].
        window: lags at which D(t) has its plateau [time].
        gradient_window: lags of the differentiated sample [time]. The noise of a derivative through the
            trajectory grows exponentially with the lag, so ∂lnD/∂θ is evaluated before the plateau, where
            the logarithmic slopes of D(t) are still slightly too small.
        origin_time: time origins of a differentiated sample lie within this time of its centre [time].
        save_every: steps between frames.
        skin: of the neighbour list [Å]; default: 0.15 × the cut-off.
    """

    atomic_number: int | None = None
    mass: float | None = None
    n_atoms: int = 256
    n_replicas: int = 32
    n_gradient_replicas: int = 12
    dt: float = 8 * units.FS
    friction: float = 1 / units.PS
    melt_factor: float = 4.0
    melt_time: float = 4 * units.PS
    equilibration_time: float = 10 * units.PS
    relaxation_time: float = 2 * units.PS
    production_time: float = 10 * units.PS
    window: tuple[float, float] = (2.0 * units.PS, 3.0 * units.PS)
    gradient_window: tuple[float, float] = (0.8 * units.PS, 1.2 * units.PS)
    origin_time: float = 0.25 * units.PS
    save_every: int = 6
    skin: float | None = None

    def __post_init__(self) -> None:
        """Raise `InputError` for settings that cannot work."""
        if self.n_atoms < 32:
            raise InputError(f"n_atoms = {self.n_atoms} must be at least 32")
        if self.n_replicas < 2 or not 2 <= self.n_gradient_replicas <= self.n_replicas:
            raise InputError(
                f"n_replicas = {self.n_replicas} must be at least 2 and n_gradient_replicas = "
                f"{self.n_gradient_replicas} between 2 and n_replicas"
            )
        if not 1 <= self.save_every <= CHUNK:
            raise InputError(f"save_every = {self.save_every} must be between 1 and {CHUNK}")
        if (self.atomic_number is None) != (self.mass is None):
            raise InputError("give atomic_number and mass of a liquid of one species, or neither of them")
        if self.mass is not None:
            check_positive("mass", self.mass, "amu")
        times = ("melt_time", "equilibration_time", "relaxation_time", "production_time", "origin_time")
        for name in ("dt", "melt_factor", *times):
            value = getattr(self, name)
            if not (value > 0 and np.isfinite(value)):
                raise InputError(f"{name} = {value} must be positive and finite")
        interval = self.dt * self.save_every
        for name in ("window", "gradient_window"):
            start, end = getattr(self, name)
            if not 0 < round(start / interval) < round(end / interval):
                raise InputError(
                    f"{name} = {(start, end)} must be 0 < start < end, at least one frame apart "
                    f"({interval:.3g})"
                )
            needed = max(2.5 * end, 2.2 * (end + self.origin_time))
            if self.production_time < needed:
                raise InputError(
                    f"production_time = {self.production_time / units.PS:.3g} ps is too short for {name}, "
                    f"which ends at {end / units.PS:.3g} ps: make it at least {needed / units.PS:.3g} ps"
                )

    @property
    def is_simple(self) -> bool:
        """Whether the liquid has one species and is made by melting."""
        return self.atomic_number is not None

    @property
    def simple(self) -> tuple[int, float]:
        """Atomic number and mass of the one species; raises `InputError` if they were not given."""
        if self.atomic_number is None or self.mass is None:
            raise InputError(
                "the sampling has no atomic_number and mass, which melting, structures and box_length need: "
                "give them, or boxes (given_replicas)"
            )
        return self.atomic_number, self.mass

    def steps(self, time: float) -> int:
        """Number of steps in a time, rounded up."""
        return max(1, int(np.ceil(time / self.dt - 1e-9)))

    @property
    def n_frames(self) -> int:
        """Frames of a production run."""
        return -(-self.steps(self.production_time) // self.save_every)
