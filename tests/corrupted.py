"""Corruptions of correct frames, and the findings that `examine` must report."""

import numpy as np

from difmd import units
from difmd.data.label_units import HARTREE
from difmd.units import BOHR

KCAL = 1 / units.KCAL_PER_MOL


def all_of(change):
    return lambda frames: [change(frame) for frame in frames]


def some(numbers, change):
    return lambda frames: [change(f) if n in numbers else f for n, f in enumerate(frames)]


def scaled(energy=1.0, forces=1.0, stress=1.0):
    return lambda f: f.replace(energy=f.energy * energy, forces=f.forces * forces, stress=f.stress * stress)


def misordered(frame):
    """The stress in VASP's order xx yy zz xy yz zx read in ASE's order xx yy zz yz xz xy."""
    s = frame.stress.copy()
    for (i, j), value in zip([(1, 2), (0, 2), (0, 1)], [s[0, 1], s[1, 2], s[0, 2]], strict=True):
        s[i, j] = s[j, i] = value
    return frame.replace(stress=s)


def moved(frame, change):
    positions = frame.positions.copy()
    change(positions)
    return frame.replace(system=frame.system.replace(positions=positions))


def with_nan(frame):
    forces = frame.forces.copy()
    forces[5, 1] = np.nan
    return frame.replace(forces=forces)


def collide(positions):
    positions[7] = positions[3] + [0.5, 0.0, 0.0]


def rotated(frame):
    """The same crystal, rotated by 90°, translated and renumbered."""
    rotation = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    order = np.random.default_rng(0).permutation(frame.n_atoms)
    system = frame.system.replace(
        positions=(frame.positions @ rotation + 0.3)[order], cell=frame.cell @ rotation
    )
    return frame.replace(
        system=system, forces=(frame.forces @ rotation)[order], stress=rotation.T @ frame.stress @ rotation
    )


FEW = (4, 17, 33, 52, 66)
MANY = tuple(range(1, 80, 3))
EVERY = tuple(range(80))
# The corruption; item, verdict, text and frames of the finding.
CORRUPTED = {
    "kcal/mol energies": (all_of(scaled(KCAL)), "forces = −dE/dr", "WRONG", "energies in kcal/mol", EVERY),
    "hartree energies": (
        all_of(scaled(1 / HARTREE)),
        "forces = −dE/dr",
        "WRONG",
        "energies in hartree",
        EVERY,
    ),
    "forces in hartree/bohr": (
        all_of(scaled(forces=BOHR / HARTREE)),
        "forces = −dE/dr",
        "WRONG",
        "forces in hartree/bohr",
        EVERY,
    ),
    "gradients": (all_of(scaled(forces=-1)), "forces = −dE/dr", "WRONG", "forces of opposite sign", EVERY),
    "energies 20 % off": (all_of(scaled(1.2)), "forces = −dE/dr", "DOUBTFUL", r"= 1\.(19|20)", EVERY),
    "kcal/mol energies and forces": (
        all_of(scaled(KCAL, KCAL, KCAL)),
        "size of the forces",
        "DOUBTFUL",
        "units such as kcal/mol/Å",
        EVERY,
    ),
    "some energies in kcal/mol": (
        some(FEW, scaled(KCAL)),
        "consistent unit of energy",
        "WRONG",
        "5 of 80 energies are about 23.* as if in kcal/mol: cu.xyz, frame 4 ",
        FEW,
    ),
    "a third of the energies in kcal/mol": (
        some(MANY, scaled(KCAL)),
        "consistent unit of energy",
        "WRONG",
        "as if in kcal/mol: cu.xyz, frame 1 ",
        MANY,
    ),
    "some forces in kcal/mol/Å": (
        some(FEW, scaled(forces=KCAL)),
        "consistent unit of force",
        "WRONG",
        "forces of 5 of 80 frames .* as if in kcal/mol/Å: cu.xyz, frame 4 ",
        FEW,
    ),
    "a third of the forces in hartree/Å": (
        some(MANY, scaled(forces=1 / HARTREE)),
        "consistent unit of force",
        "WRONG",
        "as if in hartree/Å: cu.xyz, frame 1 ",
        MANY,
    ),
    "energies and forces mixed": (
        some(FEW, scaled(KCAL, KCAL)),
        "consistent unit of force",
        "WRONG",
        "as if in kcal/mol/Å: cu.xyz, frame 4 ",
        FEW,
    ),
    "stress with compression positive": (
        all_of(scaled(stress=-1)),
        "stress",
        "WRONG",
        "of opposite sign",
        EVERY,
    ),
    "stress in GPa": (all_of(scaled(stress=1 / units.GPA)), "stress", "WRONG", "as if in GPa", EVERY),
    "stress in kbar, compression positive": (
        all_of(scaled(stress=-10 / units.GPA)),
        "stress",
        "WRONG",
        "opposite sign: compression is positive, as if in kbar",
        EVERY,
    ),
    "virial for stress": (
        all_of(lambda f: f.replace(stress=f.stress * f.volume)),
        "stress",
        "WRONG",
        "as if in .*eV, a virial without the volume",
        EVERY,
    ),
    "order of VASP": (
        all_of(misordered),
        "order of the shear stress",
        "WRONG",
        "the components yz xz xy are read as xy yz xz",
        EVERY,
    ),
    "order of VASP in one kind": (
        some(range(40, 80), misordered),
        "order of the shear stress",
        "WRONG",
        "in kind 'strained' .*are read as xy yz xz",
        tuple(range(40, 80)),
    ),
    "stress not symmetric": (
        some((9,), lambda f: f.replace(stress=f.stress + np.triu(np.full((3, 3), 0.02), 1))),
        "symmetry of the stress",
        "DOUBTFUL",
        "1 of 80 stresses are not symmetric: cu.xyz, frame 9 ",
        (9,),
    ),
    "nan": (
        some((23,), with_nan),
        "finite values",
        "WRONG",
        r"cu.xyz, frame 23 .*: forces of atom 5 is nan",
        (23,),
    ),
    "wrong shape": (
        some((23,), lambda f: f.replace(forces=f.forces[:-1])),
        "finite values",
        "WRONG",
        r"frame 23 .*: forces has shape \[31, 3\], not \[32, 3\]",
        (23,),
    ),
    "colliding pair": (
        some((61,), lambda f: moved(f, collide)),
        "close atoms",
        "WRONG",
        r"atoms 3 and 7 \(Cu–Cu\) of cu.xyz, frame 61 \(counted from 0\), 0.500 Å",
        (61,),
    ),
    "positions in bohr": (
        all_of(
            lambda f: f.replace(system=f.system.replace(positions=f.positions / BOHR, cell=f.cell / BOHR))
        ),
        "close atoms",
        "DOUBTFUL",
        "typically 1.7. sums of covalent radii apart",
        (),
    ),
    "repeat": (
        lambda frames: [*frames, frames[12]],
        "duplicates",
        "DOUBTFUL",
        r"1 of 81 frames repeat others, 1 atom by atom .*cu.xyz, frame 12 .* frame 80 .* of the list",
        (80,),
    ),
    "repeat, rotated": (
        lambda frames: [*frames, rotated(frames[50])],
        "duplicates",
        "DOUBTFUL",
        "1 of 81 frames repeat others, 0 atom by atom",
        (80,),
    ),
    "repeat with another energy": (
        lambda frames: [*frames, frames[12].replace(energy=frames[12].energy + 1)],
        "duplicates",
        "WRONG",
        "1 frames repeat others with another energy, by up to 31.2 meV/atom: cu.xyz, frame 12 ",
        (12, 80),
    ),
    "outlier of energy": (
        some((31,), lambda f: f.replace(energy=f.energy + 60.0)),
        "energy outliers",
        "WRONG",
        "but cu.xyz, frame 31 .* by up to 1.8",
        (31,),
    ),
    "outlier of force": (
        some((31,), lambda f: f.replace(forces=f.forces + 100.0 * (np.arange(32) == 3)[:, None])),
        "force outliers",
        "DOUBTFUL",
        "eV/Å in cu.xyz, frame 31 ",
        (31,),
    ),
    "net force": (
        some((31,), lambda f: f.replace(forces=f.forces + [0.0, 0.1, 0.0])),
        "net forces",
        "DOUBTFUL",
        r"3.2 eV/Å .*cu.xyz, frame 31 \(counted from 0\); 1 frames above 2 %",
        (31,),
    ),
    "missing forces": (
        some((31,), lambda f: f.replace(forces=None)),
        "labels",
        "DOUBTFUL",
        "forces 79, .* of 80 frames; no forces in cu.xyz, frame 31 ",
        (31,),
    ),
    "missing pbc": (
        some((31,), lambda f: f.replace(system=f.system.replace(pbc=np.zeros(3, bool)))),
        "cells",
        "DOUBTFUL",
        "1 are not periodic, but atoms are bonded across faces of the cell: cu.xyz, frame 31 ",
        (31,),
    ),
    "cell in nm": (
        some((31,), lambda f: f.replace(system=f.system.replace(cell=f.cell / 10))),
        "cells",
        "WRONG",
        "lattice planes less than 1 Å apart in cu.xyz, frame 31 ",
        (31,),
    ),
}
