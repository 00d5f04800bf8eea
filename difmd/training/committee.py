"""Committees: potentials trained together, whose disagreement estimates the uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from difmd._internal.argument_checks import is_traced
from difmd._internal.summaries import brief_repr
from difmd.data.frames import Frame
from difmd.errors import InputError
from difmd.forces import Evaluation, evaluate
from difmd.neighbors import Neighbors, neighbor_list
from difmd.potentials import Params, Potential
from difmd.potentials.base import check_arguments, check_finite, check_model
from difmd.system import System, as_system
from difmd.training.loop import run
from difmd.training.recipe import Recipe
from difmd.training.result import CommitteeResult

if TYPE_CHECKING:
    import ase


@brief_repr
class Consensus(NamedTuple):
    """Prediction of a committee for one configuration.

    Attributes:
        mean: over members.
        spread: standard deviation over members, with n − 1 in the denominator; an estimate of the
            uncertainty, in the units of `mean`.
    """

    mean: Evaluation
    spread: Evaluation


def train_committee(
    potential: Potential,
    frames: Sequence[Frame],
    *,
    valid: Sequence[Frame],
    references: Mapping[int, float],
    n_members: int = 4,
    params: Params | None = None,
    bootstrap: bool = False,
    recipe: Recipe | None = None,
    is_trained: Callable[[tuple[Any, ...]], bool] | None = None,
    replay: Sequence[Frame] = (),
    replay_fraction: float = 0.5,
    folder: str | Path | None = None,
    time_limit: float | None = None,
    progress: bool = True,
    on_validation: Callable[[list[dict[str, Any]]], None] | None = None,
) -> CommitteeResult:
    """Fit several potentials of one kind at once, which differ in initial parameters and order of the data.

    All members are trained by one compiled function: on a device each if the number of devices divides them,
    together on a GPU, one after the other on a CPU. Member k has the seed `Recipe.seed` + k.

    Args:
        potential: the energy model.
        frames: to train on.
        valid: held-out frames, which select the best parameters of each member.
        references: energy of an atom of each element [eV].
        n_members: at least 2.
        params: initial parameters: of one potential, for all members, or with a leading axis of members;
            default: `potential.init` with the seed of each member.
        bootstrap: train each member on a sample of the frames, drawn with replacement among those of one
            padded shape, as many as there are.
        recipe: how to train; a plateau is that of each member, and `patience` counts until no member
            improves.
        is_trained: as in `train`.
        replay: as in `train`.
        replay_fraction: as in `train`.
        folder: for the checkpoint, and for `best_0.npz`, `last_0.npz` and so on of the members.
        time_limit: as in `train` [s].
        progress: show progress; the table has means over members, and a star where all members improved.
        on_validation: called with the entries of all members.

    Returns:
        `CommitteeResult`.

    Raises:
        InputError: as `train`, or fewer than 2 members.
        TrainingError: as `train`, of any member.

    References:
        Seung, Opper & Sompolinsky, COLT 1992, doi:10.1145/130385.130417; for forces Schran, Brezina &
        Marsalek, J. Chem. Phys. 153, 104105 (2020), doi:10.1063/5.0016004. Bootstrap: Breiman, Mach. Learn.
        24, 123 (1996).
    """
    if n_members < 2:
        raise InputError(f"n_members = {n_members} must be at least 2; train() trains one potential")
    return run(
        potential,
        frames,
        valid=valid,
        references=references,
        params=params,
        recipe=recipe,
        is_trained=is_trained,
        replay=replay,
        replay_fraction=replay_fraction,
        folder=folder,
        time_limit=time_limit,
        progress=progress,
        on_validation=on_validation,
        n_members=n_members,
        bootstrap=bootstrap,
    )


def consensus(
    potential: Potential, params: Params, system: System | ase.Atoms, neighbors: Neighbors | None = None
) -> Consensus:
    """Mean and spread of energy [eV], forces [eV/Å] and stress [eV/Å³] of a committee.

    The spread, the disagreement of the members, estimates the uncertainty of the mean prediction.

    Pure: it can be jitted, mapped and differentiated.

    Args:
        potential: the energy model.
        params: of all members, every array with a leading axis, such as `CommitteeResult.params`.
        system: the configuration.
        neighbors: a current list for it that reaches at least `potential.cutoff`; default: built here, which
            is not possible under jit.

    Returns:
        `Consensus`. The spread of a vector is that of each component.

    Raises:
        InputError: fewer than 2 members, params of another potential, a list of another system or with a
            shorter reach, or no list under jit; outside jit also a stale or overflowed list, an unknown
            species, or parameters that are not finite.
    """
    n_members = {np.shape(x)[0] if np.ndim(x) else 0 for x in jax.tree.leaves(params)}
    if len(n_members) != 1 or min(n_members) < 2:
        raise InputError(
            f"the arrays of params have leading axes of {sorted(n_members)}: give the parameters of at least "
            "2 members, as train_committee returns them"
        )
    system = as_system(system)
    first = jax.tree.map(lambda x: x[0], params)
    check_model(potential, first)
    if not is_traced(params):
        check_finite(params)
    if neighbors is None:
        if is_traced(system):
            raise InputError(
                "consensus needs a neighbour list under jit: build one outside with "
                "neighbor_list(system, cutoff=potential.cutoff) and give it as neighbors"
            )
        neighbors = neighbor_list(system, cutoff=potential.cutoff, reverse_edges=potential.uses_reverse_edges)
    check_arguments(potential, first, system, neighbors)
    members = jax.vmap(lambda p: evaluate(potential, p, system, neighbors))(params)
    mean = jax.tree.map(lambda x: jnp.mean(x, 0), members)
    return Consensus(mean, jax.tree.map(lambda x: jnp.std(x, 0, ddof=1), members))
