"""Malformed inputs: what is called, and what the message must hold. As a script it reports on all."""

import functools
import json
import sys
import tempfile
import time
import traceback
import zipfile
from pathlib import Path

import ase
import ase.build
import jax
import jax.numpy as jnp
import numpy as np

import difmd
from difmd import data, observables, units
from difmd.interop.ase import Calculator
from difmd.relaxation import any_strain, minimize

NAN, INF = float("nan"), float("inf")
BOX = [11.0] * 3


def lattice(n=2, a=5.5):
    x = a * np.stack(np.meshgrid(*[np.arange(n)] * 3), -1).reshape(-1, 1, 3)
    return (x + a / 2 * np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])).reshape(-1, 3)


X = lattice()
AR = np.full(len(X), 18)


@functools.cache
def argon():
    return difmd.make_system(X, AR, cell=BOX)


@functools.cache
def lj():
    return difmd.lennard_jones(["Ar"], sigma=3.4, epsilon=0.0103, cutoff=5.0, truncation=difmd.switched(4.0))


@functools.cache
def replicas():
    return jax.tree.map(lambda x: np.stack([x, x]), argon())


PARAMS = {"sigma": np.array([3.4]), "epsilon": np.array([0.0103])}
KEY = functools.cache(lambda: jax.random.key(0))
NVE = difmd.velocity_verlet(dt=2 * units.FS)


@functools.cache
def neighbors():
    return difmd.neighbor_list(argon(), cutoff=5.0, skin=1.0)


@functools.cache
def state():
    return difmd.initialize(lj(), PARAMS, argon(), NVE, neighbors(), momenta=jnp.zeros(X.shape), key=KEY())


def make(positions=X, numbers=AR, **changes):
    return difmd.make_system(positions, numbers, **{"cell": BOX, **changes})


def changed(values, place, value):
    values = np.array(values)
    values[place] = value
    return values


def atoms(change=lambda atoms: None):
    made = ase.build.bulk("Ar", "fcc", a=5.5, cubic=True) * (2, 2, 2)
    change(made)
    return made


def lennard_jones(species=("Ar",), **changes):
    given = {"sigma": 3.4, "epsilon": 0.0103, "cutoff": 5.0, **changes}
    return difmd.lennard_jones(species, **given)


def langevin(**changes):
    return difmd.langevin(**{"dt": 2 * units.FS, "temperature": 90.0, "friction": 1 / units.PS, **changes})


def npt(**changes):
    given = {"dt": 2 * units.FS, "temperature": 90.0, "pressure": 0.0, "friction": 1 / units.PS}
    return difmd.cell_rescaling(**{**given, "time_constant": units.PS, **changes})


def simulate(**changes):
    given = {
        "potential": lj(), "params": PARAMS, "system": argon(), "integrator": NVE, "n_steps": 10,
        "save_every": 5, "initial_temperature": 90.0, "key": KEY(), "progress": False, "skin": 1.0, **changes,
    }  # fmt: skip
    return difmd.simulate(**given)


def rollout(**changes):
    given = {
        "potential": lj(), "params": PARAMS, "integrator": NVE, "state": state(), "neighbors": neighbors(),
        "n_steps": 10, **changes,
    }  # fmt: skip
    return difmd.rollout(**given)


def initialize(**changes):
    given = {
        "potential": lj(), "params": PARAMS, "integrator": NVE, "system": argon(),
        "momenta": jnp.zeros(X.shape), "key": KEY(), "neighbors": neighbors(), **changes,
    }  # fmt: skip
    return difmd.initialize(**given)


def evaluate(function=difmd.evaluate, **changes):
    given = {"potential": lj(), "params": PARAMS, "system": argon(), "neighbors": neighbors(), **changes}
    return function(**given)


def relax(**changes):
    given = {"potential": lj(), "params": PARAMS, "system": argon(), "neighbors": neighbors(), **changes}
    return minimize(**given)


def validate(**changes):
    given = {"potential": lj(), "params": PARAMS, "system": argon(), "progress": False, **changes}
    return difmd.validate(**given)


def relax_all(**changes):
    given = {"potential": lj(), "params": PARAMS, "systems": argon(), "progress": False, **changes}
    return difmd.relax(**given)


def params(**changes):
    return {name: value for name, value in {**PARAMS, **changes}.items() if value is not None}


# Of structures: `make_system`, `from_ase`, `to_ase`.
STRUCTURES = {
    "positions in two columns": (
        lambda _: make(X[:, :2]),
        r"positions must have shape \[atoms ≥ 1, 3\], got \[32, 2\]",
    ),
    "positions in a row": (lambda _: make(X.ravel()), r"positions must have shape .* got \[96\]"),
    "positions of replicas": (lambda _: make(X[None]), r"positions must have shape .* got \[1, 32, 3\]"),
    "no atoms": (lambda _: make(X[:0], AR[:0]), r"positions must have shape \[atoms ≥ 1, 3\], got \[0, 3\]"),
    "NaN position": (lambda _: make(changed(X, (5, 1), NAN)), r"positions\[5, 1\] = nan is not finite"),
    "infinite position": (
        lambda _: make(changed(X, (0, 2), -INF)),
        r"positions\[0, 2\] = -inf is not finite",
    ),
    "positions of text": (lambda _: make("Ar 0 0 0"), r"positions is not an array of numbers"),
    "positions of text fields": (
        lambda _: make([["a", "b", "c"]], [18]),
        r"positions is not an array of numbers",
    ),
    "ragged positions": (
        lambda _: make([[0, 0, 0], [1, 1]], [18, 18]),
        r"positions is not an array of numbers",
    ),
    "complex positions": (lambda _: make(X + 1j), r"positions .*complex"),
    "no positions": (lambda _: make(None), r"positions .*None"),
    "positions in a dictionary": (lambda _: make({"x": 1}), r"positions is not an array of numbers"),
    "positions of bools": (lambda _: make(np.ones((1, 3), bool), [18]), r"positions .*bool"),
    "atomic numbers too few": (
        lambda _: make(X, AR[1:]),
        r"atomic_numbers has shape \[31\] but positions has 32",
    ),
    "atomic numbers in columns": (lambda _: make(X, AR[:, None]), r"atomic_numbers has shape \[32, 1\]"),
    "one atomic number": (lambda _: make(X, 18), r"atomic_numbers has shape \[\]"),
    "fractional atomic numbers": (
        lambda _: make(X, AR + 0.5),
        r"atomic_numbers must be integers, got dtype float",
    ),
    "symbols for numbers": (lambda _: make(X, ["Ar"] * 32), r"atomic_numbers must be integers, got .*U2"),
    "negative atomic number": (
        lambda _: make(X, changed(AR, 3, -1)),
        r"atomic_numbers\[3\] = -1 is not in 0",
    ),
    "atomic number 119": (lambda _: make(X, changed(AR, 3, 119)), r"atomic_numbers\[3\] = 119 is not in 0"),
    "huge atomic number": (
        lambda _: make(X, changed(AR, 3, 2**40)),
        r"atomic_numbers\[3\] = 1099511627776 is not",
    ),
    "atomic number beyond int64": (lambda _: make(X, [10**30] * 32), r"atomic_numbers must be integers"),
    "bools for atomic numbers": (
        lambda _: make(X, np.ones(32, bool)),
        r"atomic_numbers must be integers, got .*bool",
    ),
    "no atomic numbers": (lambda _: make(X, None), r"atomic_numbers has shape \[\]"),
    "masses of zero": (lambda _: make(masses=0 * AR), r"masses\[0\] = 0.0 amu must be positive"),
    "negative mass": (
        lambda _: make(masses=changed(AR, 4, -40)),
        r"masses\[4\] = -40.0 amu must be positive",
    ),
    "NaN mass": (lambda _: make(masses=changed(1.0 * AR, 4, NAN)), r"masses\[4\] = nan is not finite"),
    "masses too few": (lambda _: make(masses=[39.9]), r"masses has shape \[1\] but positions has 32 atoms"),
    "mass of text": (lambda _: make(masses="heavy"), r"masses is not an array of numbers: .*heavy"),
    "flat cell": (
        lambda _: make(cell=[[1, 0, 0], [0, 1, 0], [1, 1, 0]]),
        r"cell is singular: its periodic vectors",
    ),
    "cell with an edge of zero": (lambda _: make(cell=[11.0, 11.0, 0.0]), r"cell is singular"),
    "cell of two": (lambda _: make(cell=[11.0, 11.0]), r"cell must have shape \[3, 3\] or \[3\], got \[2\]"),
    "cell of lengths and angles": (
        lambda _: make(cell=[11, 11, 11, 90, 90, 90]),
        r"cell must have shape .* got \[6\]",
    ),
    "cell of one number": (lambda _: make(cell=11.0), r"cell must have shape .* got \[\]"),
    "NaN cell": (lambda _: make(cell=[11.0, NAN, 11.0]), r"cell\[1\] = nan is not finite"),
    "cell of text": (lambda _: make(cell="cubic"), r"cell is not an array of numbers: .*cubic"),
    "complex cell": (lambda _: make(cell=np.eye(3) * 11j), r"cell .*complex"),
    "pbc without a cell": (lambda _: make(cell=None, pbc=True), r"cell is singular"),
    "pbc of text": (lambda _: make(pbc="TTT"), r"pbc must be a bool or three bools, got 'TTT'"),
    "pbc of numbers": (lambda _: make(pbc=[1, 1, 0]), r"pbc must be a bool or three bools, got \[1, 1, 0\]"),
    "pbc of two": (
        lambda _: make(pbc=[True, True]),
        r"pbc must be a bool or three bools, got \[True, True\]",
    ),
    "fixed atom beyond the last": (
        lambda _: make(fixed=[0, 32]),
        r"fixed contains 32, but there are 32 atoms",
    ),
    "fixed of too few bools": (
        lambda _: make(fixed=[True]),
        r"fixed has shape \[1\], but there are 32 atoms",
    ),
    "fixed of fractions": (
        lambda _: make(fixed=[0.5]),
        r"fixed must be indices or bools of atoms, got \[0.5\]",
    ),
    "fixed of text": (lambda _: make(fixed="all"), r"fixed must be indices or bools of atoms, got 'all'"),
    "atoms on each other": (lambda _: make(changed(X, 7, X[3])), r"atoms 3 and 7 coincide"),
    "atoms on images": (lambda _: make(changed(X, 7, X[3] + [11.0, 0, -11.0])), r"atoms 3 and 7 coincide"),
    "integers for a precision": (lambda _: make(dtype=int), r"dtype = .*int"),
    "unknown precision": (lambda _: make(dtype="float31"), r"dtype = 'float31'"),
    "complex precision": (lambda _: make(dtype=complex), r"dtype = .*complex"),
    "None for ASE's atoms": (lambda _: difmd.from_ase(None), r"atoms .*NoneType"),
    "system for ASE's atoms": (lambda _: difmd.from_ase(argon()), r"atoms .*System"),
    "frames for ASE's atoms": (lambda _: difmd.from_ase([atoms()]), r"atoms .*list"),
    "NaN in ASE's atoms": (
        lambda _: difmd.from_ase(atoms(lambda a: a.positions.__setitem__((3, 0), NAN))),
        r"positions\[3, 0\] = nan is not finite",
    ),
    "singular cell in ASE's atoms": (
        lambda _: difmd.from_ase(atoms(lambda a: a.set_cell([[1, 0, 0], [2, 0, 0], [0, 0, 1]]))),
        r"cell is singular",
    ),
    "no element in ASE's atoms": (
        lambda _: difmd.from_ase(atoms(lambda a: a.numbers.__setitem__(3, 0))),
        r"atom 3 has no element \(X\)",
    ),
    "NaN mass in ASE's atoms": (
        lambda _: difmd.from_ase(atoms(lambda a: a.set_masses(changed(a.get_masses(), 2, NAN)))),
        r"masses\[2\] = nan is not finite",
    ),
    "atoms to ASE": (lambda _: difmd.to_ase(atoms()), r"system .*Atoms"),
    "replicas to ASE": (lambda _: difmd.to_ase(replicas()), r"2 replicas"),
}

# Constructors of potentials.
POTENTIALS = {
    "negative sigma": (lambda _: lennard_jones(sigma=-3.4), r"sigma = \[-3.4\] must be positive and finite"),
    "epsilon of zero": (
        lambda _: lennard_jones(epsilon=0.0),
        r"epsilon = \[0.0\] must be positive and finite",
    ),
    "NaN epsilon": (lambda _: lennard_jones(epsilon=NAN), r"epsilon = \[nan\] must be positive and finite"),
    "sigma of text": (lambda _: lennard_jones(sigma="big"), r"sigma .*'big'"),
    "no sigma": (lambda _: lennard_jones(sigma=None), r"sigma .*(None|nan)"),
    "sigma of two for one": (lambda _: lennard_jones(sigma=[3.4, 3.6]), r"sigma has 2 values for 1 species"),
    "negative cutoff": (lambda _: lennard_jones(cutoff=-5.0), r"cutoff = -5.0 Å must be positive and finite"),
    "infinite cutoff": (lambda _: lennard_jones(cutoff=INF), r"cutoff = inf Å must be positive and finite"),
    "cutoff of text": (lambda _: lennard_jones(cutoff="5 A"), r"cutoff = '5 A"),
    "no cutoff": (lambda _: lennard_jones(cutoff=None), r"cutoff = None"),
    "two cutoffs": (lambda _: lennard_jones(cutoff=[5.0, 6.0]), r"cutoff = \[5.0, 6.0\]"),
    "unknown species": (
        lambda _: lennard_jones(["Qq"]),
        r"species 'Qq' is neither a chemical symbol nor a number",
    ),
    "species of an unknown word": (
        lambda _: lennard_jones("argon"),
        r"species 'argon' is neither a chemical",
    ),
    "no species": (lambda _: lennard_jones([]), r"species = \[\] must be a symbol such as 'Ar', or a list"),
    "species None": (
        lambda _: lennard_jones(None),
        r"species = None must be a symbol such as .Ar.",
    ),
    "species twice": (lambda _: lennard_jones(["Ar", 18]), r"species \('Ar', 18\) contains an element twice"),
    "species 0": (
        lambda _: lennard_jones([0]),
        r"species 0 is neither a chemical symbol nor a number from 1 to 118",
    ),
    "half a species": (
        lambda _: lennard_jones([18.5]),
        r"species 18.5 is neither a chemical symbol nor a number",
    ),
    "species True": (
        lambda _: lennard_jones([True]),
        r"species True is neither a chemical symbol nor a number",
    ),
    "nested species": (
        lambda _: lennard_jones([["Ar"]]),
        r"species \['Ar'\] is neither a chemical symbol nor",
    ),
    "truncation of text": (
        lambda _: lennard_jones(truncation="shifted"),
        r"truncation = 'shifted' must be the result of",
    ),
    "truncation not called": (
        lambda _: lennard_jones(truncation=difmd.shifted),
        r"truncation = <function shifted",
    ),
    "onset beyond the cutoff": (
        lambda _: lennard_jones(truncation=difmd.switched(5.5)),
        r"onset = 5.5 Å must lie between 0 and cutoff = 5.0 Å",
    ),
    "onset of text": (lambda _: difmd.switched("4 A"), r"onset .*'4 A' is of type str"),
    "NaN onset": (lambda _: lennard_jones(truncation=difmd.switched(NAN)), r"onset = nan Å"),
    "mixing of text": (lambda _: lennard_jones(mixing="geometric"), r"mixing = 'geometric'"),
    "asymmetric table": (
        lambda _: difmd.morse(["Ar", "Kr"], depth=[[1, 2], [3, 1]], width=1.0, distance=3.0, cutoff=6.0),
        r"depth = .*: give one value, or a symmetric table of 2 × 2",
    ),
    "negative prefactor": (
        lambda _: difmd.buckingham(["Ar"], repulsion=-1.0, range=3.0, dispersion=1.0, cutoff=6.0),
        r"repulsion = -1.0 must be not negative and finite",
    ),
    "table of text": (
        lambda _: difmd.morse(["Ar"], depth="deep", width=1.0, distance=3.0, cutoff=6.0),
        r"depth .*'deep'",
    ),
    "table of three distances": (
        lambda _: difmd.tabulated(["Ar"], distances=[1, 2, 3], energies=[1, 2, 3]),
        r"distances of shape \(3,\) must be at least four finite numbers",
    ),
    "uneven distances": (
        lambda _: difmd.tabulated(["Ar"], distances=[1, 2, 4, 8], energies=[4, 3, 2, 1]),
        r"distances .*even",
    ),
    "distances of text": (
        lambda _: difmd.tabulated(["Ar"], distances="1 2 3 4", energies=[4, 3, 2, 1]),
        r"distances .*'1 2 3 4'",
    ),
    "charges too few": (
        lambda _: difmd.coulomb_damped_shifted(["Na", "Cl"], charges=[1.0], damping=0.2, cutoff=9.0),
        r"charges has 1 values for 2 species",
    ),
    "charges of text": (
        lambda _: difmd.coulomb_damped_shifted(["Na"], charges=["+"], damping=0.2, cutoff=9.0),
        r"charges .*'\+'",
    ),
    "negative damping": (
        lambda _: difmd.coulomb_damped_shifted(["Na"], charges=[1.0], cutoff=9.0, damping=-0.2),
        r"damping = -0.2 1/Å must be finite and not negative",
    ),
    "flat cell of a sum of waves": (
        lambda _: difmd.ewald(["Na"], charges=[1.0], cutoff=9.0, cell=np.diag([1.0, 1, 0])),
        r"cell = .* must be three lattice vectors with a volume",
    ),
    "cell of text of a sum of waves": (
        lambda _: difmd.ewald(["Na"], charges=[1.0], cutoff=9.0, cell="cubic"),
        r"cell .*'?cubic",
    ),
    "accuracy of one": (
        lambda _: difmd.ewald(["Na"], charges=[1.0], cutoff=9.0, cell=BOX * np.eye(3), accuracy=1.0),
        r"accuracy = 1.0 must lie between 0 and 0.1",
    ),
    "no covalent radius": (lambda _: difmd.zbl([118]), r"there is no covalent radius of Og: give a cutoff"),
    "envelope of power 0": (
        lambda _: difmd.zbl(["Ar"], p=0),
        r"p = 0, the power of the envelope, must be at least",
    ),
    "sum without shared species": (
        lambda _: lj() + lennard_jones(["Kr"]),
        r"potentials of a sum share no species: \[18\], \[36\]",
    ),
    "no channels": (lambda _: difmd.mace(["Ar"], cutoff=5.0, n_features=0), r"n_features = 0"),
    "negative scale": (lambda _: difmd.mace(["Ar"], cutoff=5.0, scale=NAN), r"scale .*nan"),
    "dipoles without charges": (
        lambda _: difmd.mace(["Ar"], cutoff=5.0, atomic_dipoles=True),
        r"atomic_dipoles",
    ),
    "table of atoms that is missing": (lambda tmp: difmd.read_eam(tmp / "no.eam"), r"no\.eam"),
    "table of atoms that is garbage": (
        lambda tmp: difmd.read_eam(written(tmp / "bad.eam.alloy", "a\nb\nc\nd e f\n")),
        r"bad\.eam",
    ),
}


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# Of integrators and schedules.
INTEGRATORS = {
    "dt of zero": (
        lambda _: difmd.velocity_verlet(dt=0.0),
        r"dt = 0.0 Å√\(amu/eV\) must be positive and finite",
    ),
    "negative dt": (lambda _: difmd.velocity_verlet(dt=-1.0), r"dt = -1.0 .* must be positive and finite"),
    "NaN dt": (lambda _: difmd.velocity_verlet(dt=NAN), r"dt = nan .* must be positive and finite"),
    "dt of text": (lambda _: difmd.velocity_verlet(dt="2 fs"), r"dt = '2 fs"),
    "no dt": (lambda _: difmd.velocity_verlet(dt=None), r"dt = None"),
    "complex dt": (lambda _: difmd.velocity_verlet(dt=1 + 1j), r"dt = \(1\+1j\)"),
    "dt True": (lambda _: difmd.velocity_verlet(dt=True), r"dt = True"),
    "temperature of zero": (
        lambda _: langevin(temperature=0.0),
        r"temperature = 0.0 K must be positive and finite",
    ),
    "negative temperature": (lambda _: langevin(temperature=-90), r"temperature = -90 K must be positive"),
    "temperature of text": (lambda _: langevin(temperature="90 K"), r"temperature = '90 K"),
    "no temperature of a bath": (lambda _: langevin(temperature=None), r"temperature = None"),
    "negative friction": (
        lambda _: langevin(friction=-1.0),
        r"friction = -1.0 .*must be finite and not negative",
    ),
    "NaN friction": (lambda _: langevin(friction=NAN), r"friction = nan"),
    "infinite friction": (lambda _: langevin(friction=INF), r"friction = inf"),
    "friction of text": (lambda _: langevin(friction="weak"), r"friction = 'weak"),
    "negative time constant": (
        lambda _: difmd.csvr(dt=0.1, temperature=90.0, time_constant=-1.0),
        r"time_constant = -1.0 .* positive",
    ),
    "no time constant": (
        lambda _: difmd.csvr(dt=0.1, temperature=90.0, time_constant=None),
        r"time_constant = None",
    ),
    "chain of none": (
        lambda _: difmd.nose_hoover(dt=0.1, temperature=90.0, time_constant=1.0, length=0),
        r"length = 0 must be at least 1",
    ),
    "chain of half a thermostat": (
        lambda _: difmd.nose_hoover(dt=0.1, temperature=90.0, time_constant=1.0, length=1.5),
        r"length = 1.5",
    ),
    "chain of text": (
        lambda _: difmd.nose_hoover(dt=0.1, temperature=90.0, time_constant=1.0, length="3"),
        r"length = '3'",
    ),
    "time constant of weak coupling": (
        lambda _: difmd.integrators.berendsen(dt=0.1, temperature=90.0, time_constant=0.0),
        r"time_constant = 0.0 .* must be positive",
    ),
    "piston without a period": (
        lambda _: difmd.martyna_tobias_klein(
            dt=0.1, temperature=90.0, pressure=0.0, time_constant=1.0, piston_time=0.0
        ),
        r"piston_time = 0.0 .* must be positive",
    ),
    "piston with half a thermostat": (
        lambda _: difmd.martyna_tobias_klein(
            dt=0.1, temperature=90.0, pressure=0.0, time_constant=1.0, piston_time=1.0, length=0.5
        ),
        r"length = 0.5",
    ),
    "NaN pressure": (lambda _: npt(pressure=NAN), r"pressure = nan eV/Å³ must be finite"),
    "pressure of text": (lambda _: npt(pressure="1 bar"), r"pressure .*'1 bar' is of type str"),
    "no pressure": (lambda _: npt(pressure=None), r"pressure .*None is of type NoneType"),
    "pressure of three": (
        lambda _: npt(pressure=np.zeros(3)),
        r"pressure of shape \[3\]: give a number or a",
    ),
    "asymmetric pressure": (
        lambda _: npt(pressure=changed(np.zeros((3, 3)), (0, 1), 1.0)),
        r"pressure of shape \[3, 3\]: .*symmetric",
    ),
    "unknown coupling": (
        lambda _: npt(coupling="cubic"),
        r"coupling = 'cubic' must be one of isotropic, aniso",
    ),
    "coupling None": (lambda _: npt(coupling=None), r"coupling = None must be one of isotropic"),
    "friction of zero in a barostat": (lambda _: npt(friction=0.0), r"friction = 0.0 .* must be positive"),
    "negative compressibility": (
        lambda _: npt(compressibility=-1.0),
        r"compressibility = -1.0 .* must be positive",
    ),
    "ramp of one step": (
        lambda _: difmd.ramp([0], [90.0]),
        r"ramp: steps = \[0.0\] must be two or more ascending",
    ),
    "ramp that goes back": (
        lambda _: difmd.ramp([0, 9, 5], [1, 2, 3]),
        r"ramp: steps = \[0.0, 9.0, 5.0\] must be two",
    ),
    "ramp before the start": (lambda _: difmd.ramp([-5, 5], [1, 2]), r"ramp: steps = \[-5.0, 5.0\] must be"),
    "ramp at NaN": (lambda _: difmd.ramp([0, NAN], [1, 2]), r"ramp: steps = \[0.0, nan\] must be"),
    "ramp with too few values": (
        lambda _: difmd.ramp([0, 5], [90.0]),
        r"ramp: give a finite value for each of 2",
    ),
    "ramp to NaN": (
        lambda _: difmd.ramp([0, 5], [90.0, NAN]),
        r"ramp: give a finite value for each of 2 steps",
    ),
    "ramp of text": (lambda _: difmd.ramp(["a", "b"], [1, 2]), r"ramp: steps .*\['a', 'b'\]"),
    "ramp to text": (lambda _: difmd.ramp([0, 5], ["cold", "hot"]), r"ramp: .*\['cold', 'hot'\]"),
    "ramp of None": (lambda _: difmd.ramp(None, [1, 2]), r"ramp: steps .*None is of type NoneType"),
    "ramp to one number": (lambda _: difmd.ramp([0, 5], 90.0), r"ramp: give a finite value .*90.0"),
    "ramp below zero": (
        lambda _: langevin(temperature=difmd.ramp([0, 5], [90.0, -10.0])),
        r"temperature = .* K must be positive",
    ),
    "ramp of tensors for a temperature": (
        lambda _: langevin(temperature=difmd.ramp([0, 5], np.ones((2, 3, 3)))),
        r"temperature .*shape",
    ),
}


def neighbor_list(system=None, **changes):
    return difmd.neighbor_list(argon() if system is None else system, **{"cutoff": 5.0, **changes})


NEIGHBORS = {
    "list without reach": (
        lambda _: neighbor_list(cutoff=0.0),
        r"cutoff = 0.0 Å must be positive and finite",
    ),
    "list of NaN reach": (lambda _: neighbor_list(cutoff=NAN), r"cutoff = nan Å must be positive and finite"),
    "list with a reach of text": (
        lambda _: neighbor_list(cutoff="5"),
        r"cutoff = '5' must be a real number",
    ),
    "list with no reach": (
        lambda _: neighbor_list(cutoff=None),
        r"cutoff = None must be a real number",
    ),
    "negative skin": (lambda _: neighbor_list(skin=-1.0), r"skin = -1.0 Å must be finite and not negative"),
    "NaN skin": (lambda _: neighbor_list(skin=NAN), r"skin = nan Å"),
    "infinite skin": (lambda _: neighbor_list(skin=INF), r"skin = inf Å"),
    "skin of text": (lambda _: neighbor_list(skin="1"), r"skin = '1' must be a real number \[Å\], not a str"),
    "too little slack": (lambda _: neighbor_list(slack=0.5), r"slack = 0.5 must be at least 1"),
    "slack of text": (lambda _: neighbor_list(slack="much"), r"slack = 'much' must be a real number"),
    "no capacity": (lambda _: neighbor_list(capacity=0), r"capacity = 0 must be at least 1"),
    "capacity for half an atom": (lambda _: neighbor_list(capacity=1.5), r"capacity = 1.5"),
    "capacity of text": (lambda _: neighbor_list(capacity="enough"), r"capacity = 'enough'"),
    "cell that would grow": (lambda _: neighbor_list(shrink=0.5), r"shrink = 0.5 must be at least 1"),
    "list for an atom without an element": (
        lambda _: neighbor_list(atoms(lambda a: a.numbers.__setitem__(0, 0))),
        r"atom 0 has no element",
    ),
    "list under jit": (
        lambda _: jax.jit(lambda system: neighbor_list(system).indices)(argon()),
        r"neighbor_list cannot run under jit, grad or vmap.*difmd.neighbors.update",
    ),
    "list like that of another system": (
        lambda _: neighbor_list(like=neighbor_list(make(X[1:], AR[1:]))),
        r"like is a list for 31 atoms, but the system has 32",
    ),
    "update of a list of another system": (
        lambda _: difmd.neighbors.update(make(X[1:], AR[1:]), neighbors()),
        r"neighbour list is for 32 atoms, but the system has 31",
    ),
    "growth of a list of another system": (
        lambda _: difmd.neighbors.grow(make(X[1:], AR[1:]), neighbors()),
        r"neighbors is a list for 32 atoms, but the system has 31",
    ),
    "list for other periodic directions": (
        lambda _: difmd.neighbors.rebuild(make(pbc=[True, True, False]), neighbors()),
        r"neighbour list is for pbc = \[True, True, True\].*\[True, True, False\]",
    ),
    "positions for a list": (lambda _: neighbor_list(X), r"system is .*ndarray.*make_system"),
    "no list to be like": (lambda _: neighbor_list(like=5.0), r"like is .*float"),
    "list of NaN positions": (
        lambda _: neighbor_list(argon().replace(positions=changed(X, (0, 0), NAN))),
        r"positions are not finite",
    ),
    "list of replicas with other pbc": (
        lambda _: neighbor_list(replicas().replace(pbc=np.array([[True] * 3, [False] * 3]))),
        r"replicas of one batch must share pbc",
    ),
    "list in a flat cell": (
        lambda _: neighbor_list(argon().replace(cell=np.zeros((3, 3)))),
        r"cell is singular",
    ),
}


def with_params(**changes):
    return evaluate(params=params(**changes))


# `evaluate` and `forces`: the parameters, and what else they are given.
EVALUATIONS = {
    "params without a name": (lambda _: with_params(epsilon=None), r"params .*\['epsilon'\]"),
    "params with another name": (lambda _: with_params(eps=PARAMS["epsilon"]), r"params .*\['eps'\]"),
    "params of another shape": (
        lambda _: with_params(sigma=np.array([3.4, 3.5])),
        r"params\['sigma'\] .*\[2\].*\[1\]",
    ),
    "params that are numbers": (lambda _: with_params(sigma=3.4), r"params\['sigma'\] .*\[\].*\[1\]"),
    "NaN params": (
        lambda _: with_params(sigma=np.array([NAN])),
        r"params\['sigma'\] = \[nan\] is not finite",
    ),
    "infinite params": (
        lambda _: with_params(epsilon=np.array([INF])),
        r"params\['epsilon'\] = \[inf\] is not",
    ),
    "params of text": (lambda _: with_params(sigma=np.array(["3.4"])), r"params\['sigma'\] .*'3.4'"),
    "complex params": (
        lambda _: with_params(sigma=np.array([3.4j])),
        r"params\['sigma'\] = .*3.4j.* must be real numbers",
    ),
    "params None": (lambda _: evaluate(params=None), r"params .*\['epsilon'\].*\['sigma'\]"),
    "params in a list": (lambda _: evaluate(params=list(PARAMS.values())), r"params .*\[0\]"),
    "params of text alone": (lambda _: evaluate(params="lj.npz"), r"params .*\['sigma'\]"),
    "params of one term for a sum": (
        lambda _: evaluate(potential=lj() + difmd.zbl(["Ar"], cutoff=2.0)),
        r"params .*\[0\]\['sigma'\]",
    ),
    "params without a name under grad": (
        lambda _: jax.grad(lambda p: evaluate(params=p).energy)(params(epsilon=None)),
        r"params .*\['epsilon'\]",
    ),
    "params of a network without weights": (
        lambda _: evaluate(
            potential=difmd.invariant(["Ar"], cutoff=5.0),
            params={"network": {}, "scale": [1.0], "shift": [0.0]},
        ),
        r"params .*\['network'\]",
    ),
    "params of forces without a name": (
        lambda _: evaluate(difmd.forces.forces, params=params(sigma=None)),
        r"params .*\['sigma'\]",
    ),
    "NaN params of forces": (
        lambda _: evaluate(difmd.forces.forces, params=params(sigma=np.array([NAN]))),
        r"params\['sigma'\] = \[nan\]",
    ),
    "text for a potential": (lambda _: evaluate(potential="lj"), r"potential .*str.*Potential"),
    "model for a potential": (
        lambda _: evaluate(potential=difmd.Model(lj(), PARAMS, {})),
        r"potential .*Model.*Potential",
    ),
    "factory for a potential": (
        lambda _: evaluate(potential=difmd.lennard_jones),
        r"potential .*function.*Potential",
    ),
    "no potential": (
        lambda _: evaluate(difmd.forces.forces, potential=None),
        r"potential .*NoneType.*Potential",
    ),
    "no system": (lambda _: evaluate(system=None), r"system .*NoneType"),
    "positions for a system": (
        lambda _: evaluate(difmd.forces.forces, system=X),
        r"system .*ndarray.*make_system",
    ),
    "replicas for a system": (lambda _: evaluate(system=replicas()), r"2 replicas.*vmap"),
    "no neighbors for forces": (
        lambda _: evaluate(difmd.forces.forces, neighbors=None),
        r"neighbors .*NoneType.*neighbor_list",
    ),
    "no neighbors under jit": (
        lambda _: jax.jit(lambda system: evaluate(system=system, neighbors=None).energy)(argon()),
        r"a neighbour list is needed under jit, grad or vmap",
    ),
    "atoms of ASE of an unknown species": (
        lambda _: evaluate(system=atoms(lambda a: a.numbers.__setitem__(0, 36)), neighbors=None),
        r"the potential has no parameters for Kr, only for Ar",
    ),
    "pairs for neighbors": (lambda _: evaluate(neighbors=[(0, 1)]), r"neighbors .*list.*neighbor_list"),
    "neighbors of fewer atoms": (
        lambda _: evaluate(neighbors=neighbor_list(make(X[1:], AR[1:]))),
        r"neighbour list .*31 atoms.*32",
    ),
    "neighbors too near": (
        lambda _: evaluate(neighbors=neighbor_list(cutoff=4.0)),
        r"neighbour list reaches 4.0 Å, the potential 5.0 Å: build it with",
    ),
    "neighbors that are stale": (
        lambda _: evaluate(system=make(changed(X, (0, 0), 2.0))),
        r"neighbour list is stale: .*build it with",
    ),
    "neighbors without capacity": (
        lambda _: evaluate(neighbors=neighbor_list(capacity=1)),
        r"neighbour list has overflowed: build it with",
    ),
    "species without parameters": (
        lambda _: evaluate(system=make(X, changed(AR, 0, 36))),
        r"the potential has no parameters for Kr, only for Ar",
    ),
    "no volume for a sum of waves": (
        lambda _: evaluate(
            potential=difmd.ewald(["Ar"], charges=[0.0], cutoff=5.0, cell=11.0 * np.eye(3)),
            params={"charges": np.zeros(1)},
            system=make(cell=None),
            neighbors=neighbor_list(make(cell=None)),
        ),
        r"three periodic directions",
    ),
}

# `simulate`, `rollout`, `initialize`, `minimize`.
RUNS = {
    "steps of zero": (
        lambda _: simulate(n_steps=0),
        r"n_steps = 0 must be at least 1",
    ),
    "negative steps": (lambda _: simulate(n_steps=-10), r"n_steps = -10 must be at least 1"),
    "steps between frames": (lambda _: simulate(n_steps=12), r"n_steps = 12 must be a positive multiple"),
    "steps in floating point": (lambda _: simulate(n_steps=1e4), r"n_steps = 10000.0 must be an integer"),
    "steps of text": (lambda _: simulate(n_steps="10"), r"n_steps = '10'? must be an integer"),
    "steps True": (lambda _: simulate(n_steps=True, save_every=1), r"n_steps = True must be an integer"),
    "steps beyond int32": (lambda _: simulate(n_steps=5 * 2**31), r"n_steps = 10737418240"),
    "frames rarer than steps": (lambda _: simulate(save_every=20), r"n_steps = 10 .* save_every = 20"),
    "frames of zero steps": (lambda _: simulate(save_every=0), r"save_every = 0"),
    "frames of half a step": (lambda _: simulate(save_every=0.5), r"save_every = 0.5 must be an integer"),
    "chunks in floating point": (
        lambda _: simulate(chunk_steps=5e2),
        r"chunk_steps = 500.0 must be",
    ),
    "negative chunks": (lambda _: simulate(chunk_steps=-5), r"chunk_steps = -5 must be"),
    "negative start temperature": (
        lambda _: simulate(initial_temperature=-5.0),
        r"temperature = -5.0 K must be positive",
    ),
    "NaN start temperature": (
        lambda _: simulate(initial_temperature=NAN),
        r"temperature = nan K must be positive",
    ),
    "start temperature of text": (
        lambda _: simulate(initial_temperature="90"),
        r"temperature = '90' must be a real number \[K\]",
    ),
    "ramp for a start temperature": (
        lambda _: simulate(initial_temperature=difmd.ramp([0, 5], [1.0, 90.0])),
        r"temperature = .*Schedule",
    ),
    "start temperature of three": (
        lambda _: simulate(initial_temperature=np.ones(3)),
        r"temperature .*one number",
    ),
    "neither temperature nor momenta": (
        lambda _: simulate(initial_temperature=None),
        r"give either initial_temperature or momenta to start from",
    ),
    "temperature and momenta": (
        lambda _: simulate(momenta=jnp.zeros(X.shape)),
        r"give either initial_temperature or momenta to start from",
    ),
    "no key": (
        lambda _: simulate(key=None),
        r"give a key, the seed of momenta and noise: key=jax.random.key\(0\)",
    ),
    "number for a key": (
        lambda _: simulate(key=0),
        r"key = 0 is not a key of JAX: write key=jax.random.key\(0\)",
    ),
    "old key": (lambda _: simulate(key=jax.random.PRNGKey(0)), r"key = \[0 0\] is not a key of JAX"),
    "key of text": (lambda _: simulate(key="seed"), r"key = seed is not a key of JAX"),
    "two keys": (lambda _: simulate(key=jax.random.split(KEY())), r"key .*\[2\]"),
    "momenta too few": (
        lambda _: simulate(initial_temperature=None, momenta=jnp.zeros((31, 3))),
        r"momenta \[31, 3\] and positions \[32, 3\] differ in shape",
    ),
    "NaN momenta": (
        lambda _: simulate(initial_temperature=None, momenta=jnp.full(X.shape, NAN)),
        r"momenta .*not finite",
    ),
    "momenta in a list": (
        lambda _: simulate(initial_temperature=None, momenta=[[0.0, 0, 0]]),
        r"momenta .*\[1, 3\]|momenta .*list",
    ),
    "momenta of text": (lambda _: simulate(initial_temperature=None, momenta="cold"), r"momenta .*"),
    "momenta in single precision": (
        lambda _: simulate(initial_temperature=None, momenta=jnp.zeros(X.shape, jnp.float32)),
        r"momenta .*float32.*float64",
    ),
    "complex momenta": (
        lambda _: simulate(initial_temperature=None, momenta=np.zeros(X.shape, complex)),
        r"momenta .*complex",
    ),
    "momenta of integers": (
        lambda _: simulate(initial_temperature=None, momenta=np.zeros(X.shape, int)),
        r"momenta .*int.*float64",
    ),
    "momenta of one replica": (
        lambda _: simulate(system=replicas(), initial_temperature=None, momenta=jnp.zeros(X.shape)),
        r"momenta \[32, 3\] and positions \[2, 32, 3\] differ in shape",
    ),
    "momenta of fixed atoms": (
        lambda _: simulate(system=make(fixed=[0]), initial_temperature=None, momenta=jnp.ones(X.shape)),
        r"momenta of fixed atoms must be zero",
    ),
    "list of systems to simulate": (lambda _: simulate(system=[argon(), argon()]), r"system is .*list"),
    "nothing to simulate": (lambda _: simulate(system=None), r"system is .*NoneType"),
    "trajectory to simulate": (
        lambda _: simulate(system=difmd.Trajectory(system=argon(), frames=None, steps=None, dt=1.0)),
        r"system is .*Trajectory",
    ),
    "system that was not checked": (
        lambda _: simulate(system=argon().replace(positions=changed(X, (2, 2), NAN))),
        r"positions\[2, 2\] = nan is not finite",
    ),
    "masses in single precision": (
        lambda _: simulate(system=argon().replace(masses=jnp.full(32, 39.9, jnp.float32))),
        r"masses .*float32.*positions.*float64",
    ),
    "cell in single precision": (
        lambda _: simulate(system=argon().replace(cell=11 * jnp.eye(3, dtype=jnp.float32))),
        r"cell .*float32.*positions.*float64",
    ),
    "pbc of numbers in a system": (
        lambda _: simulate(system=argon().replace(pbc=np.array([1, 1, 1]))),
        r"pbc must be .*bool",
    ),
    "replicas of other shapes": (
        lambda _: simulate(system=replicas().replace(masses=np.ones((3, 32)))),
        r"masses.*\[3, 32\].*\[2, 32",
    ),
    "replicas of replicas": (
        lambda _: simulate(system=jax.tree.map(lambda x: x[None], replicas())),
        r"positions .*\[1, 2, 32, 3\]",
    ),
    "replicas one of which is wrong": (
        lambda _: simulate(system=replicas().replace(masses=changed(np.ones((2, 32)), (1, 5), -1.0))),
        r"masses\[5\] = -1.0 amu must be positive",
    ),
    "text for an integrator": (lambda _: simulate(integrator="nve"), r"integrator .*str.*velocity_verlet"),
    "factory for an integrator": (
        lambda _: simulate(integrator=difmd.langevin),
        r"integrator .*function.*velocity_verlet",
    ),
    "text for an optimizer": (
        lambda _: difmd.fitting.fit(
            PARAMS, [difmd.fitting.prior(PARAMS, PARAMS)], n_iterations=1, key=KEY(), optimizer="adam"
        ),
        r"optimizer is of type str: use an optax transformation",
    ),
    "simulate under grad": (
        lambda _: jax.grad(lambda x: simulate(params=jax.tree.map(lambda p: x * p, PARAMS)).temperature[0])(
            1.0
        ),
        r"simulate .* cannot be traced by jit, grad or vmap: use rollout",
    ),
    "no integrator": (lambda _: simulate(integrator=None), r"integrator .*NoneType.*velocity_verlet"),
    "text for a potential to simulate": (lambda _: simulate(potential="lj"), r"potential .*str.*Potential"),
    "params to simulate without a name": (
        lambda _: simulate(params=params(epsilon=None)),
        r"params .*\['epsilon'\]",
    ),
    "params to simulate of another shape": (
        lambda _: simulate(params=params(sigma=np.ones((1, 1)))),
        r"params\['sigma'\] .*\[1, 1\].*\[1\]",
    ),
    "NaN params to simulate": (
        lambda _: simulate(params=params(sigma=np.array([NAN]))),
        r"params\['sigma'\] = \[nan\] is not finite",
    ),
    "species to simulate that are not known": (
        lambda _: simulate(system=make(X, changed(AR, 0, 36))),
        r"no parameters for Kr, only for Ar",
    ),
    "negative skin to simulate": (
        lambda _: simulate(skin=-1.0),
        r"skin = -1.0 Å must be finite and not negative",
    ),
    "skin of text to simulate": (lambda _: simulate(skin="wide"), r"skin = 'wide' must be a real number"),
    "capacity of half an atom to simulate": (lambda _: simulate(capacity=4.5), r"capacity = 4.5"),
    "momenta for a state": (
        lambda _: simulate(system=state(), initial_temperature=None, key=None, momenta=jnp.zeros(X.shape)),
        r"a state has momenta and a key: leave out",
    ),
    "state in mixed precision": (
        lambda _: simulate(
            system=state().replace(momenta=jnp.zeros(X.shape, jnp.float32)),
            initial_temperature=None,
            key=None,
        ),
        r"momenta .*float32.*float64",
    ),
    "state of another integrator": (
        lambda _: simulate(
            system=state(),
            initial_temperature=None,
            key=None,
            integrator=difmd.nose_hoover(dt=0.1, temperature=90.0, time_constant=1.0),
        ),
        r"state .*integrator",
    ),
    "state without a virial": (
        lambda _: simulate(system=state(), initial_temperature=None, key=None, integrator=npt()),
        r"state .*integrator",
    ),
    "barostat without a volume": (
        lambda _: simulate(system=make(cell=[11.0, 11.0, 11.0], pbc=[True, True, False]), integrator=npt()),
        r"barostat needs three periodic directions",
    ),
    "barostat with fixed atoms": (
        lambda _: simulate(system=make(fixed=[0]), integrator=npt()),
        r"a barostat moves all atoms with the cell",
    ),
    "negative temperature to draw": (
        lambda _: difmd.draw_momenta(KEY(), argon(), -1.0),
        r"temperature = -1.0 K must be finite and not",
    ),
    "number for a key to draw": (
        lambda _: difmd.draw_momenta(0, argon(), 90.0),
        r"key = 0 is not a key of JAX",
    ),
    "atoms to draw for": (lambda _: difmd.draw_momenta(KEY(), atoms(), 90.0), r"system is .*Atoms"),
    "rollout of no steps": (lambda _: rollout(n_steps=0), r"n_steps = 0 must be at least 1"),
    "rollout of half steps": (lambda _: rollout(n_steps=10.5), r"n_steps = 10.5"),
    "rollout of text": (lambda _: rollout(n_steps="10"), r"n_steps = '10"),
    "rollout with rare frames": (lambda _: rollout(save_every=20), r"n_steps = 10, .*save_every = 20"),
    "rollout with odd rebuilds": (
        lambda _: rollout(save_every=5, rebuild_every=3),
        r"rebuild_every = 3, save_every = 5: each must be",
    ),
    "rollout from a system": (lambda _: rollout(state=argon()), r"state is .*System.*initialize"),
    "rollout from nothing": (lambda _: rollout(state=None), r"state is .*NoneType.*initialize"),
    "rollout without neighbors": (
        lambda _: rollout(neighbors=None),
        r"neighbors is .*NoneType.*neighbor_list",
    ),
    "rollout without an integrator": (lambda _: rollout(integrator=None), r"integrator .*NoneType"),
    "rollout with text for a potential": (lambda _: rollout(potential="lj"), r"potential .*str"),
    "rollout with a list too near": (
        lambda _: rollout(neighbors=neighbor_list(cutoff=4.0)),
        r"neighbour list reaches 4.0 Å, the potential 5.0",
    ),
    "rollout with params without a name": (
        lambda _: rollout(params=params(sigma=None)),
        r"params .*\['sigma'\]",
    ),
    "rollout with momenta in single precision": (
        lambda _: rollout(state=state().replace(momenta=jnp.zeros(X.shape, jnp.float32))),
        r"momenta .*float32.*float64",
    ),
    "rollout with a gradient of text": (
        lambda _: rollout(gradient="direct"),
        r"gradient is a str, which does not differentiate",
    ),
    "rollout that keeps text": (lambda _: rollout(save="frames"), r"save = 'frames'"),
    "initialize with momenta too few": (
        lambda _: initialize(momenta=jnp.zeros((31, 3))),
        r"momenta \[31, 3\] and positions \[32, 3\] differ",
    ),
    "initialize with momenta in single precision": (
        lambda _: initialize(momenta=jnp.zeros(X.shape, jnp.float32)),
        r"momenta .*float32.*float64",
    ),
    "initialize with no momenta": (lambda _: initialize(momenta=None), r"momenta .*None"),
    "initialize with a number for a key": (lambda _: initialize(key=0), r"key = 0 is not a key of JAX"),
    "initialize with ASE's atoms": (lambda _: initialize(system=atoms()), r"system is .*Atoms"),
    "initialize with text for an integrator": (lambda _: initialize(integrator="nve"), r"integrator .*str"),
    "initialize without neighbors": (lambda _: initialize(neighbors=None), r"neighbors is .*NoneType"),
    "minimize below zero": (
        lambda _: relax(force_tolerance=-1.0),
        r"force_tolerance = -1.0 eV/Å must be positive and finite",
    ),
    "minimize to text": (
        lambda _: relax(force_tolerance="tight"),
        r"force_tolerance = 'tight' must be a real number",
    ),
    "minimize in no steps": (lambda _: relax(max_steps=0), r"max_steps = 0 must be at least 1"),
    "minimize under pressure in a held cell": (
        lambda _: relax(pressure=1.0),
        r"pressure = 1.0 eV/Å³ has no effect on a fixed cell",
    ),
    "minimize with asymmetric strains": (
        lambda _: relax(strains=changed(np.zeros((1, 3, 3)), (0, 0, 1), 1.0)),
        r"strains must be symmetric",
    ),
    "minimize with one strain": (
        lambda _: relax(strains=np.eye(3)),
        r"strains must have shape \[modes, 3, 3\]",
    ),
    "minimize a molecule's cell": (
        lambda _: relax(
            system=make(cell=None), neighbors=neighbor_list(make(cell=None)), strains=any_strain()
        ),
        r"only a cell with three periodic directions can be relaxed",
    ),
    "minimize under two pressures": (
        lambda _: relax(pressure=np.zeros(2), strains=any_strain()),
        r"pressure = .* eV/Å³ must be one number",
    ),
    "nothing to relax": (lambda _: relax_all(systems=None), r"system is of type NoneType: convert it with"),
    "text to relax": (lambda _: relax_all(systems="argon"), r"system is of type str: convert it with"),
    "empty list to relax": (lambda _: relax_all(systems=[]), r"systems is empty: give at least one"),
    "text within a list to relax": (
        lambda _: relax_all(systems=[argon(), "argon"]),
        r"systems\[1\]: system is of type str",
    ),
    "batch within a list to relax": (
        lambda _: relax_all(systems=[argon(), replicas()]),
        r"systems\[1\] is a batch: give a batch by itself",
    ),
    "batch of batches to relax": (
        lambda _: relax_all(systems=jax.tree.map(lambda x: x[None], replicas())),
        r"positions of a system must have shape .* got \[1, 2, 32, 3\]",
    ),
    "NaN position to relax": (
        lambda _: relax_all(systems=[argon(), argon().replace(positions=changed(X, (2, 1), NAN))]),
        r"systems\[1\]: positions\[2, 1\] = nan is not finite",
    ),
    "unknown species to relax": (
        lambda _: relax_all(systems=[argon(), make(X, changed(AR, 0, 36))]),
        r"systems\[1\]: the potential has no parameters for Kr",
    ),
    "masses in single precision to relax": (
        lambda _: relax_all(systems=[argon(), argon().replace(masses=jnp.full(32, 39.9, jnp.float32))]),
        r"systems\[1\]: masses .*float32.*positions float64",
    ),
    "masses too few to relax": (
        lambda _: relax_all(systems=argon().replace(masses=jnp.ones(31))),
        r"masses of a system have shape \[31\]",
    ),
    "text for a potential to relax": (
        lambda _: relax_all(potential="lj"),
        r"potential is of type str, but must be a Potential",
    ),
    "pressure of text to relax": (
        lambda _: relax_all(pressure="1 bar", strains=any_strain()),
        r"pressure is not an array of numbers: '1 bar'",
    ),
    "no pressure to relax": (
        lambda _: relax_all(pressure=None, strains=any_strain()),
        r"pressure is not an array of numbers: None",
    ),
    "pressures of another number": (
        lambda _: relax_all(pressure=[0.0, 0.1], strains=any_strain()),
        r"pressure has shape \[2\], but there are 1 structures",
    ),
    "NaN pressure to relax": (
        lambda _: relax_all(pressure=NAN, strains=any_strain()),
        r"pressure = nan eV/Å³ must be finite",
    ),
    "two tolerances": (
        lambda _: relax_all(force_tolerance=np.array([1e-3, 1e-4])),
        r"force_tolerance = .* eV/Å must be one number",
    ),
    "tolerances in a list": (
        lambda _: relax_all(force_tolerance=[1e-3]),
        r"force_tolerance = \[0.001\] must be a real number",
    ),
    "optimizer by name": (
        lambda _: relax_all(optimizer="fire"),
        r"optimizer = 'fire' must be an Optimizer: difmd.fire\(\)",
    ),
    "frames of no steps to relax": (lambda _: relax_all(save_every=0), r"save_every = 0 must be at least 1"),
    "negative skin to relax": (lambda _: relax_all(skin=-0.5), r"skin = -0.5 Å must be positive"),
    "two skins to relax": (lambda _: relax_all(skin=np.ones(2)), r"skin = .* Å must be one number"),
    "half a step to relax": (lambda _: relax_all(max_steps=1.5), r"max_steps = 1.5 must be an integer"),
    "asymmetric strains to relax": (
        lambda _: relax_all(strains=changed(np.zeros((1, 3, 3)), (0, 0, 1), 1.0)),
        r"strains must be symmetric",
    ),
    "strains by name": (lambda _: relax_all(strains="any"), r"strains is not an array of numbers: 'any'"),
    "strains of text": (
        lambda _: relax_all(strains=[[["a"] * 3] * 3]),
        r"strains is not an array of numbers",
    ),
    "calculator of text": (lambda _: Calculator("lj", PARAMS), r"potential is of type str"),
    "calculator without skin": (
        lambda _: Calculator(lj(), PARAMS, skin=0.0),
        r"skin = 0.0 Å must be positive",
    ),
    "calculator with NaN positions": (
        lambda _: calculated(lambda a: a.positions.__setitem__((1, 2), NAN)),
        r"positions\[1, 2\] = nan",
    ),
    "calculator of unknown atoms": (
        lambda _: calculated(lambda a: a.numbers.__setitem__(0, 36)),
        r"no parameters for Kr, only for Ar",
    ),
    "calculator with params without a name": (
        lambda _: calculated(lambda a: None, params=params(sigma=None)),
        r"params .*\['sigma'\]",
    ),
}


def calculated(change, params=PARAMS):
    made = atoms(change)
    made.calc = Calculator(lj(), params)
    return made.get_potential_energy()


def saved(tmp, change=lambda arrays: None, name="model.npz"):
    """A model on disk whose arrays were changed."""
    difmd.save(tmp / name, lj(), PARAMS)
    with np.load(tmp / name) as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez(tmp / name, **arrays)
    return tmp / name


def with_meta(**changes):
    def change(arrays):
        meta = {**json.loads(arrays["meta"].tobytes()), **changes}
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)

    return change


def cut(path, share=0.5):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    return path


def flipped(path, at=0.5):
    """A file with one bit of it changed."""
    whole = bytearray(path.read_bytes())
    whole[int(at * len(whole))] ^= 16
    path.write_bytes(whole)
    return path


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no model")
    return path


NO_MODEL = r"model\.npz is not a model of difmd, or it is damaged"

MODELS = {
    "model that is missing": (lambda tmp: difmd.load(tmp / "none.npz"), r"there is no file .*none\.npz"),
    "model that is a folder": (lambda tmp: difmd.load(tmp), r"is not a model of difmd, or it is damaged"),
    "model of text": (lambda tmp: difmd.load(written(tmp / "model.npz", "sigma 3.4\n")), NO_MODEL),
    "model that is empty": (lambda tmp: difmd.load(written(tmp / "model.npz", "")), NO_MODEL),
    "model cut off": (lambda tmp: difmd.load(cut(saved(tmp))), NO_MODEL),
    "model with a bit flipped": (lambda tmp: difmd.load(flipped(saved(tmp), 0.45)), NO_MODEL),
    "another zip": (lambda tmp: difmd.load(zipped(tmp / "model.npz")), NO_MODEL),
    "another archive of NumPy": (
        lambda tmp: (np.savez(tmp / "model.npz", a=1), difmd.load(tmp / "model.npz")),
        NO_MODEL,
    ),
    "array for a model": (
        lambda tmp: (np.save(tmp / "model.npy", X), difmd.load(tmp / "model.npy")),
        r"model\.npy is not a model of difmd, or it is damaged",
    ),
    "model without an array": (lambda tmp: difmd.load(saved(tmp, lambda a: a.pop("leaf_0"))), NO_MODEL),
    "model of another shape": (
        lambda tmp: difmd.load(saved(tmp, lambda a: a.update(leaf_0=np.zeros(3)))),
        r"model\.npz: its parameters are not those of the potential",
    ),
    "model of a newer difmd": (
        lambda tmp: difmd.load(saved(tmp, with_meta(format=99))),
        r"has format 99, .* install a newer version",
    ),
    "model of an unknown potential": (
        lambda tmp: difmd.load(saved(tmp, with_meta(potential={"name": "magic"}))),
        r"difmd has no potential 'magic' that can be loaded",
    ),
    "model that describes nothing": (
        lambda tmp: difmd.load(saved(tmp, with_meta(potential=None))),
        r"model\.npz",
    ),
    "model whose meta is a list": (
        lambda tmp: difmd.load(saved(tmp, lambda a: a.update(meta=np.frombuffer(b"[1]", np.uint8)))),
        NO_MODEL,
    ),
    "model without parameters' names": (lambda tmp: difmd.load(saved(tmp, with_meta(params=5))), NO_MODEL),
    "number for a model's path": (lambda _: difmd.load(5), r"path .*5"),
    "params of another potential to save": (
        lambda tmp: difmd.save(tmp / "a.npz", lj(), {"depth": np.ones(1)}),
        r"params .*\['depth'\]",
    ),
    "NaN params to save": (
        lambda tmp: difmd.save(tmp / "a.npz", lj(), params(sigma=np.array([NAN]))),
        r"params\['sigma'\] = \[nan\]",
    ),
    "provenance that is no JSON": (
        lambda tmp: difmd.save(tmp / "a.npz", lj(), PARAMS, provenance={"when": object()}),
        r"provenance cannot be written as JSON",
    ),
    "text for a potential to save": (
        lambda tmp: difmd.save(tmp / "a.npz", "lj", PARAMS),
        r"potential .*str.*Potential",
    ),
    "folder of a model that is not there": (
        lambda tmp: difmd.save(tmp / "no" / "a.npz", lj(), PARAMS),
        r"cannot write .*a\.npz",
    ),
}


@functools.cache
def run_on_disk():
    """The bytes of a finished run, computed once."""
    with tempfile.TemporaryDirectory() as folder:
        simulate(folder=folder)
        return (Path(folder) / "trajectory.h5").read_bytes()


def run_in(tmp, change=lambda path: None):
    """A folder that holds a run whose file was changed."""
    path = written(tmp / "trajectory.h5", run_on_disk())
    change(path)
    return tmp


def edited(edit):
    def change(path):
        import h5py

        with h5py.File(path, "r+") as file:
            edit(file)

    return change


def foreign(tmp):
    import h5py

    with h5py.File(tmp / "other.h5", "w") as file:
        file["positions"] = X
    return tmp / "other.h5"


def read(path, **more):
    return difmd.read_trajectory(path, **more)


def without_frames(file):
    for name in ("step", "time", "value"):
        kept = file[f"particles/all/position/{name}"][:1]
        del file[f"particles/all/position/{name}"]
        file[f"particles/all/position/{name}"] = kept


FOLDERS = {
    "trajectory that is missing": (
        lambda tmp: read(tmp / "none.h5"),
        r"there is no trajectory .*none\.h5: give",
    ),
    "folder without a run": (lambda tmp: read(tmp), r"holds no frame of a run: give the folder= of simulate"),
    "trajectory of text": (
        lambda tmp: read(written(tmp / "a.h5", "t x y z")),
        r"trajectory .*a\.h5 cannot be read .*not by simulate",
    ),
    "trajectory that is empty": (lambda tmp: read(written(tmp / "a.h5", "")), r"a\.h5 cannot be read"),
    "trajectory cut off": (lambda tmp: read(run_in(tmp, cut)), r"trajectory\.h5 is damaged \(.*truncated"),
    "trajectory with a bit flipped": (
        lambda tmp: read(run_in(tmp, edited(lambda f: flip(f, "particles/all/position/value")))),
        r"trajectory\.h5 is damaged \(wrong checksum\): copy it again",
    ),
    "trajectory without frames": (
        lambda tmp: read(run_in(tmp, edited(without_frames))),
        r"trajectory\.h5 is damaged",
    ),
    "trajectory without a series": (
        lambda tmp: read(run_in(tmp, edited(lambda f: f.__delitem__("observables")))),
        r"trajectory\.h5 is damaged",
    ),
    "trajectory of another program": (
        lambda tmp: read(foreign(tmp)),
        r"other\.h5 cannot be read .*not by simulate",
    ),
    "trajectory in a model's file": (
        lambda tmp: read(saved(tmp)),
        r"model\.npz cannot be read .*not by simulate",
    ),
    "number for a trajectory's path": (lambda _: read(5), r"path .*5"),
    "one frame": (lambda tmp: read(run_in(tmp), frames=1), r"frames = 1 must be a slice, such as"),
    "frames by name": (lambda tmp: read(run_in(tmp), frames=slice("a", None)), r"frames = slice\('a', None"),
    "every zeroth frame": (
        lambda tmp: read(run_in(tmp), frames=slice(None, None, 0)),
        r"frames = slice\(None",
    ),
    "text for the integrator of a run": (
        lambda tmp: read(run_in(tmp), integrator="nve"),
        r"integrator .*str.*velocity_verlet",
    ),
    "another integrator than that of a run": (
        lambda tmp: read(run_in(tmp), integrator=npt()),
        r"integrator has another state than that of this run",
    ),
    "no replica in ASE": (
        lambda tmp: read(run_in(tmp)).to_ase(replica=0),
        r"replica = 0, but this trajectory is of one system",
    ),
    "file for a folder": (
        lambda tmp: simulate(folder=written(tmp / "file", "")),
        r"cannot write to the run folder .*file",
    ),
    "folder nobody may write": (
        lambda _: simulate(folder="/proc/difmd"),
        r"cannot write to the run folder /proc/difmd",
    ),
    "folder of a number": (lambda _: simulate(folder=5), r"folder .*5"),
    "folder of another run": (
        lambda tmp: simulate(folder=run_in(tmp), initial_temperature=91.0),
        r"holds another run, or one with other settings",
    ),
    "folder of a longer run": (
        lambda tmp: simulate(folder=run_in(tmp), n_steps=5),
        r"holds 10 steps, more than n_steps = 5",
    ),
    "checkpoint cut off": (
        lambda tmp: resumed(tmp, cut),
        r"checkpoint .* cannot be read .*delete it to start again",
    ),
    "checkpoint of text": (
        lambda tmp: resumed(tmp, lambda path: written(path, "step 5\n")),
        r"checkpoint .* cannot be read",
    ),
    "checkpoint of another fit": (
        lambda tmp: resumed(tmp, lambda path: None, like=[np.zeros(3)]),
        r"checkpoint .* belongs to another fit",
    ),
    "checkpoint that is an array": (
        lambda tmp: resumed(tmp, lambda path: (np.save(tmp / "x.npy", X), (tmp / "x.npy").rename(path))),
        r"checkpoint .* cannot be read",
    ),
}


def flip(file, place):
    at = file[place]
    at[0] = at[0] + 1e-3


def resumed(tmp, change, like=PARAMS):
    from difmd._internal.checkpoint import load_checkpoint, save_checkpoint

    path = tmp / "checkpoint.npz"
    save_checkpoint(path, PARAMS, {"step": 5})
    change(path)
    return load_checkpoint(path, like)


XYZ = """1
Lattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.0 pbc="T T T"
Ar 0 0 0 0 0 0
"""

DATA = {
    "data that are missing": (lambda tmp: data.read(tmp / "none.xyz"), r"there is no file .*none\.xyz"),
    "data that are empty": (lambda tmp: data.read(written(tmp / "a.xyz", "")), r"a\.xyz is empty: 0 bytes"),
    "data cut off": (
        lambda tmp: data.read(written(tmp / "a.xyz", XYZ + "\n".join(XYZ.splitlines()[:2]))),
        r"a\.xyz: frame 1 ",
    ),
    "data of garbage": (lambda tmp: data.read(written(tmp / "a.xyz", b"\x00\xff\xfe" * 50)), r"a\.xyz"),
    "data of garbage, compressed": (
        lambda tmp: data.read(written(tmp / "a.xyz.gz", b"\x1f\x8b" + b"\x00\xff" * 50)),
        r"a\.xyz\.gz",
    ),
    "data of no known format": (
        lambda tmp: data.read(written(tmp / "a.dat", b"\x00\xff\xfe" * 50)),
        r"a\.dat",
    ),
    "HDF5 data of text": (lambda tmp: data.read(written(tmp / "a.h5", "no")), r"a\.h5: HDF5 cannot open it"),
    "HDF5 data without atoms": (lambda tmp: data.read(foreign(tmp)), r"other\.h5.*atomic_numbers"),
    "database of text": (lambda tmp: data.read(written(tmp / "a.db", "no database" * 20)), r"a\.db"),
    "OUTCAR of text": (lambda tmp: data.read(written(tmp / "OUTCAR", "no output\n" * 20)), r"OUTCAR"),
    "vasprun.xml cut off": (
        lambda tmp: data.read(written(tmp / "vasprun.xml", "<modeling><generator>")),
        r"vasprun\.xml",
    ),
    "folder without data": (lambda tmp: data.read(tmp), r"is a folder without a DeePMD system"),
    "data with a NaN": (
        lambda tmp: data.read(written(tmp / "a.xyz", XYZ.replace("Ar 0 0 0", "Ar nan 0 0"))),
        r"a\.xyz, frame 0 .*positions\[0, 0\] = nan",
    ),
    "data with no such element": (
        lambda tmp: data.read(written(tmp / "a.xyz", XYZ.replace("Ar 0", "Qq 0"))),
        r"frame 0 .*'Qq' is unknown",
    ),
    "data without such a label": (
        lambda tmp: data.read(written(tmp / "a.xyz", XYZ), keys=data.Keys(energy="E0")),
        r"Keys\(energy='E0'\)",
    ),
    "data in unknown units": (
        lambda tmp: data.read(written(tmp / "a.xyz", XYZ), units=data.Units(energy="furlong")),
        r"furlong",
    ),
    "number for data": (lambda _: data.read(5), r"path .*5"),
}

CERTIFICATES = {
    "certificate of text": (
        lambda _: validate(potential="lj"),
        r"potential is of type str, but must be a Potential",
    ),
    "certificate of replicas": (
        lambda _: validate(system=replicas()),
        r"system must be a single system, without replicas",
    ),
    "certificate of text instead of a system": (lambda _: validate(system="Ar"), r"system is of type str"),
    "certificate without a parameter": (
        lambda _: validate(params=params(sigma=None)),
        r"params lack .*sigma",
    ),
    "certificate at a temperature of text": (
        lambda _: validate(temperature="hot"),
        r"temperature is not an array of numbers: 'hot'",
    ),
    "certificate at two temperatures": (
        lambda _: validate(temperature=np.array([1.0, 2.0])),
        r"temperature = .*1\., 2\..* must be one number",
    ),
    "certificate at a true temperature": (lambda _: validate(temperature=True), r"temperature .*bool"),
    "certificate at an infinite temperature": (
        lambda _: validate(temperature=INF),
        r"temperature = inf K must be positive and finite",
    ),
    "certificate at a pressure of text": (
        lambda _: validate(temperature=90.0, pressure="1 bar"),
        r"pressure is not an array of numbers: '1 bar'",
    ),
    "certificate at three pressures": (
        lambda _: validate(temperature=90.0, pressure=[0.0, 1.0, 2.0]),
        r"pressure = \[0.0, 1.0, 2.0\] must be one number",
    ),
    "certificate at a NaN pressure": (
        lambda _: validate(temperature=90.0, pressure=NAN),
        r"pressure = nan eV/Å³ must be finite",
    ),
    "certificate with two time steps": (
        lambda _: validate(dt=np.array([0.1, 0.2])),
        r"dt = .*0\.1, 0\.2.* must be one number",
    ),
    "certificate with no time step": (lambda _: validate(dt=None), r"dt .*None"),
    "certificate of a float of steps": (
        lambda _: validate(n_steps=4e3),
        r"n_steps = 4000.0 must be",
    ),
    "certificate of few replicas": (
        lambda _: validate(n_replicas=7),
        r"n_replicas = 7 must be at least 8",
    ),
    "certificate of a group in a string": (
        lambda _: validate(only="symmetry"),
        r"only = 'symmetry' must be a sequence of groups",
    ),
    "certificate of a number of groups": (lambda _: validate(only=3), r"only = 3 must be a sequence"),
    "certificate of no group": (lambda _: validate(only=()), r"only = \(\) must name some of symmetry"),
    "certificate of an unknown group": (
        lambda _: validate(only=("symmetry", "beauty")),
        r"only = .*beauty.* must name some of symmetry",
    ),
    "certificate of volumes without pressure": (
        lambda _: validate(only=("volume",), temperature=90.0),
        r"volume needs a pressure",
    ),
    "certificate with an int for a key": (lambda _: validate(key=0), r"key = 0 is not a key of JAX"),
    "certificate with limits of a dictionary": (
        lambda _: validate(limits={"closest": 0.3}),
        r"limits is of type dict, but must be a Limits",
    ),
    "certificate with limits below zero": (
        lambda _: validate(limits=difmd.Limits(closest=-1.0)),
        r"closest = -1.0 sums of covalent radii must be finite",
    ),
}

OBSERVABLES = {
    "diffusivity of a system": (
        lambda _: observables.diffusivity(argon(), window=(0.1, 0.2)),
        r"trajectory is of type System.*simulate",
    ),
    "order of one system": (
        lambda _: observables.is_liquid(argon(), spacing=3.9),
        r"systems must be replicas",
    ),
    "distribution around an unknown element": (
        lambda _: observables.radial_distribution(argon(), first="Ax", second="Ar"),
        r"species 'Ax' is neither a chemical symbol nor a number",
    ),
    "distribution around an absent element": (
        lambda _: observables.radial_distribution(argon(), first="Kr", second="Ar"),
        r"configuration 0 has no atoms of atomic number 36",
    ),
    "displacements of replicas": (
        lambda _: observables.mean_squared_displacement(np.zeros((2, 3, 4, 3))),
        r"positions must have shape \[frames, atoms, 3\], got \[2, 3, 4, 3\]",
    ),
    "elastic constants of a slab": (
        lambda _: observables.elastic_constants(lj(), PARAMS, make(pbc=[True, True, False])),
        r"periodic in all directions",
    ),
    "elastic constants of an unknown species": (
        lambda _: observables.elastic_constants(lj(), PARAMS, make(X, changed(AR, 0, 36)), neighbors()),
        r"the potential has no parameters for Kr",
    ),
    "jax-md with an unknown species": (
        lambda _: difmd.interop.jax_md.to_jax_md(lj(), PARAMS, make(X, changed(AR, 0, 36))),
        r"the potential has no parameters for Kr",
    ),
    "jax-md with replicas": (
        lambda _: difmd.interop.jax_md.to_jax_md(lj(), PARAMS, replicas()),
        r"system holds 2 replicas",
    ),
    "calculator with foreign params": (
        lambda _: Calculator(lj(), params(sigma=None)),
        r"params lack \['sigma'\]",
    ),
}

TABLES = (
    OBSERVABLES,
    STRUCTURES,
    POTENTIALS,
    INTEGRATORS,
    NEIGHBORS,
    EVALUATIONS,
    RUNS,
    MODELS,
    FOLDERS,
    DATA,
    CERTIFICATES,
)
ROWS = {name: row for table in TABLES for name, row in table.items()}


def outcome(call):
    """The error of a call, its message, and whether its traceback shows frames of JAX."""
    root = str(Path(difmd.__file__).parent)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = call(Path(folder))
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            shown, cause = [], error
            while cause is not None:
                shown += [] if cause is error else traceback.extract_tb(cause.__traceback__)
                cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
            return {
                "is_ours": isinstance(error, difmd.DifmdError),
                "kind": type(error).__name__,
                "message": str(error).replace(folder, "…"),
                "where": f"{frames[-1].filename}:{frames[-1].lineno}",
                "is_within": frames[-1].filename.startswith(root),
                "shows_jax": any("/jax/" in frame.filename for frame in shown),
                "seconds": time.perf_counter() - began,
            }
    return {"is_ours": False, "kind": "none", "message": f"accepted: {found!r:.200}", "seconds": 0.0}


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    wanted = sys.argv[1:] or ROWS
    print(json.dumps({name: outcome(ROWS[name][0]) for name in wanted}))
