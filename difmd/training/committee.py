"""Committees: several potentials trained together, whose disagreement tells where they know little."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from difmd.data.frames import Frame
from difmd.errors import InputError
from difmd.forces import Evaluation, evaluate
from difmd.neighbors import Neighbors, neighbor_list
from difmd.potentials import Params, Potential, check_finite, check_model, validate_structure
from difmd.potentials.base import check_arguments
from difmd.system import System, as_system
from difmd.training.checks import is_traced
from difmd.training.loop import run
from difmd.training.recipe import Recipe
from difmd.training.result import CommitteeResult

if TYPE_CHECKING:
    import ase


class Consensus(NamedTuple):
    """What a committee makes of one configuration.

    Attributes:
        mean: over members.
        spread: standard deviation over members, with n − 1 below; in the units of `mean`.
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
    """Fit several potentials of one kind at once, which differ by their start and by the order of the data.

    All members make their steps in one compiled function: each on a device of its own where devices divide
    them, together on a GPU, after each other on a CPU. Member k is seeded with `Recipe.seed` + k.

    Args:
        potential: the energy model.
        frames: as in `train`, as are the arguments that are not told of here.
        valid: chooses the best parameters of each member.
        references: energy of an atom of each element [eV].
        n_members: at least 2.
        params: where to start: of one potential, for all members, or with an axis of members in front;
            default: `potential.init` of each member's seed.
        bootstrap: train each member on a sample of the frames, drawn with replacement within those of one
            padded shape, as many as there are.
        recipe: how; a plateau is that of each member, and `patience` stops when no member makes progress.
        is_trained: which parameters are trained.
        replay: frames of an earlier training.
        replay_fraction: share of replayed frames in an epoch.
        folder: for the checkpoint, and `best_0.npz`, `last_0.npz` and so on of each member.
        time_limit: [s].
        progress: show progress; the table has means over the members, and a star where all are at their best.
        on_validation: called with the entries of all members.

    Returns:
        `CommitteeResult`.

    Raises:
        InputError: as `train`, fewer than 2 members, or params of another shape.
        TrainingError: as `train`, of any member.

    References:
        Seung, Opper & Sompolinsky, COLT 1992, doi:10.1145/130385.130417; for forces Schran, Brezina &
        Marsalek, J. Chem. Phys. 153, 104105 (2020), doi:10.1063/5.0016004. Bootstrap: Breiman, Mach. Learn.
        24, 123 (1996).
    """
    if n_members < 2:
        raise InputError(f"n_members = {n_members}: a committee has at least 2, and train() is for one")

    def start(recipe: Recipe) -> Params:
        keys = [jax.random.key(recipe.seed + k) for k in range(n_members)]
        shapes = [x.shape for x in jax.tree.leaves(jax.eval_shape(potential.init, keys[0]))]
        if params is None:
            return jax.tree.map(lambda *x: jnp.stack(x), *(potential.init(key) for key in keys))
        check_finite(params)
        given = [np.shape(x) for x in jax.tree.leaves(params)]
        if given == shapes:
            check_model(potential, params)
            return jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * n_members), params)
        if given == [(n_members, *shape) for shape in shapes]:
            check_model(potential, jax.tree.map(lambda x: x[0], params))
            return jax.tree.map(jnp.asarray, params)
        raise InputError(
            f"params have the shapes {given}: give those of one potential, {shapes}, or the same with an "
            f"axis of n_members = {n_members} in front"
        )

    return run(
        potential,
        frames,
        valid=valid,
        references=references,
        start=start,
        recipe=recipe,
        is_trained=is_trained,
        replay=replay,
        replay_fraction=replay_fraction,
        n_members=n_members,
        bootstrap=bootstrap,
        folder=folder,
        time_limit=time_limit,
        progress=progress,
        on_validation=on_validation or (lambda entries: None),
        result=lambda found: found,
    )


def consensus(
    potential: Potential, params: Params, system: System | ase.Atoms, neighbors: Neighbors | None = None
) -> Consensus:
    """Mean and spread of energy [eV], forces [eV/Å] and stress [eV/Å³] over the members of a committee.

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
        validate_structure(potential, system)
        neighbors = neighbor_list(system, cutoff=potential.cutoff, reverse_edges=potential.uses_reverse_edges)
    check_arguments(potential, first, system, neighbors)
    members = jax.vmap(lambda p: evaluate(potential, p, system, neighbors))(params)
    return Consensus(
        jax.tree.map(lambda x: jnp.mean(x, 0), members),
        jax.tree.map(lambda x: jnp.std(x, 0, ddof=1), members),
    )
