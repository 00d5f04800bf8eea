"""Small crystals with displaced atoms, and tables of the embedded-atom method, to make references for."""

import ase
import ase.build
import numpy as np


def crystal(name, seed):
    """Sheared, displaced and with a few atoms exchanged, so that no force is zero by symmetry."""
    atoms = {
        "Si": lambda: ase.build.bulk("Si", "diamond", a=5.43, cubic=True) * (2, 1, 1),
        "SiC": lambda: ase.build.bulk("SiC", "zincblende", a=4.6, cubic=True) * (2, 1, 1),
        "GaN": lambda: ase.build.bulk("GaN", "zincblende", a=4.5, cubic=True) * (2, 1, 1),
        "Cu": lambda: ase.build.bulk("Cu", "fcc", a=3.8, cubic=True) * (2, 1, 1),
        "CuAg": lambda: ase.build.bulk("Cu", "fcc", a=3.8, cubic=True) * (2, 2, 1),
    }[name]()
    rng = np.random.default_rng(seed)
    if name == "CuAg":
        atoms.numbers[::3] = 47
    elif len(set(atoms.symbols)) > 1:
        numbers = atoms.numbers.copy()
        atoms.numbers[:4] = numbers[3::-1]
        atoms.numbers[5] = numbers[4]
    shear = np.eye(3) + np.array([[0.0, 0.0, 0.0], [0.04, 0.0, 0.0], [-0.03, 0.05, 0.0]])
    atoms.set_cell(np.asarray(atoms.cell) @ shear, scale_atoms=True)
    atoms.positions += rng.normal(0, 0.12, atoms.positions.shape)
    return atoms


def eam_tables(n_r=1200, n_rho=800):
    """Smooth functions of two metals, for `embedded_atom` and for a file; made up."""
    cutoff, drho = 5.5, 0.005
    dr = cutoff / (n_r - 1)
    r, rho = dr * np.arange(n_r), drho * np.arange(n_rho)
    end = np.where(r < cutoff, (1 - r / cutoff) ** 3, 0)
    density = np.stack([np.exp(-0.9 * r), 1.3 * np.exp(-0.8 * r)]) * 5 * end
    depth = np.array([[0.6, 0.5], [0.5, 0.45]])[:, :, None]
    pair = 30 * depth * r * np.exp(-1.4 * r) * (1 - 0.06 * r) * end
    embedding = np.stack([-1.9 * np.sqrt(rho + 0.01), -1.6 * np.sqrt(rho + 0.02)])
    embedding -= embedding[:, :1]
    return {
        "dr": dr, "pair": pair, "density": density, "drho": drho, "embedding": embedding, "cutoff": cutoff,
    }  # fmt: skip


def write_funcfl(file, tables):
    """The first metal alone, as a file with effective charges Z(r), rφ = 27.2 · 0.529 Z²."""
    n_r, n_rho = tables["pair"].shape[-1], tables["embedding"].shape[-1]
    with open(file, "w", encoding="utf-8") as out:
        out.write("made up\n29 63.546 3.8 fcc\n")
        out.write(f"{n_rho} {tables['drho']:.17g} {n_r} {tables['dr']:.17g} {tables['cutoff']:.17g}\n")
        charges = np.sqrt(tables["pair"][0, 0] / (27.2 * 0.529))
        for values in (tables["embedding"][0], charges, tables["density"][0]):
            np.savetxt(out, values, fmt="%.17g")


def write_setfl(file, tables, symbols=("Cu", "Ag"), *, finnis_sinclair=False):
    """Write tables as LAMMPS and ASE read them."""
    n_r, n_rho = tables["pair"].shape[-1], tables["embedding"].shape[-1]
    with open(file, "w", encoding="utf-8") as out:
        out.write("made up\nmade up\nmade up\n")
        out.write(f"{len(symbols)} {' '.join(symbols)}\n")
        out.write(f"{n_rho} {tables['drho']:.17g} {n_r} {tables['dr']:.17g} {tables['cutoff']:.17g}\n")

        def numbers(values):
            np.savetxt(out, values, fmt="%.17g")

        for k, symbol in enumerate(symbols):
            out.write(f"{ase.data.atomic_numbers[symbol]} {ase.Atom(symbol).mass} 3.8 fcc\n")
            numbers(tables["embedding"][k])
            if finnis_sinclair:
                for i in range(len(symbols)):
                    numbers(tables["density"][i, k])
            else:
                numbers(tables["density"][k])
        for i in range(len(symbols)):
            for j in range(i + 1):
                numbers(tables["pair"][i, j])
