"""Structure relaxation: `minimize` is pure and differentiable, `relax` drives the same steps on the host."""

from difmd.relaxation.driver import relax
from difmd.relaxation.fire import fire
from difmd.relaxation.lbfgs import lbfgs
from difmd.relaxation.minimize import Minimum, minimize
from difmd.relaxation.optimizer import Optimizer
from difmd.relaxation.point import Point
from difmd.relaxation.result import Relaxation
from difmd.relaxation.strains import any_strain, axial_strain, deform, isotropic_strain

__all__ = [
    "Minimum", "Optimizer", "Point", "Relaxation", "any_strain", "axial_strain", "deform", "fire",
    "isotropic_strain", "lbfgs", "minimize", "relax",
]  # fmt: skip
