"""Forward mode: the run carries derivatives with respect to a few numbers."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from difmd.errors import InputError
from difmd.forces import forces_and_virial, plain_forces
from difmd.gradients.base import GradientMethod
from difmd.gradients.floats import floats
from difmd.gradients.segment import Carry, Inputs, Plan, segment
from difmd.integrators.base import on_mobile


def forward(*, max_inputs: int = 64) -> GradientMethod:
    """Carry derivatives of the state along the run, with memory independent of its length.

    It costs one or two runs for each number that is differentiated, and stores the derivatives of everything
    that the rollout returns.

    Args:
        max_inputs: how many numbers may be differentiated; with more, reverse mode is cheaper.

    Returns:
        `GradientMethod`, for every integrator.

    Raises:
        InputError: `max_inputs` below 1; when differentiated, more numbers than that.

    References:
        Griewank & Walther, Evaluating Derivatives, 2nd ed. 2008, chapter 3.
    """
    if max_inputs < 1:
        raise InputError(f"max_inputs = {max_inputs} of forward() must be at least 1")
    return GradientMethod(run=functools.partial(_run, max_inputs), name=f"forward({max_inputs=})")


def _run(max_inputs: int, plan: Plan, inputs: Inputs, carry: Carry) -> tuple[Carry, Any]:
    neighbors = inputs.neighbors if carry.neighbors is None else carry.neighbors
    # With these, what `save` closes over is differentiated.
    save, consts = jax.closure_convert(plan.save, carry.state, neighbors)
    # It would repeat the numbers of the integrator.
    inputs = inputs._replace(integrator=inputs.integrator._replace(reversible=None))
    # The initial forces depend on whatever is differentiated: `plain` computes them.
    carry = carry._replace(state=carry.state.replace(forces=lax.stop_gradient(carry.state.forces)))
    structure = jax.tree.structure((inputs, carry, consts))

    def plain(inputs: Inputs, carry: Carry, consts: list[Array]) -> tuple[Carry, Any]:
        current = inputs.neighbors if carry.neighbors is None else carry.neighbors
        forces = plain_forces(plan.potential, inputs.params, carry.state.system, current)
        state = carry.state.replace(forces=on_mobile(carry.state.system, forces))
        if state.virial is not None:
            virial = forces_and_virial(plan.potential, inputs.params, state.system, current)[1]
            state = state.replace(virial=virial)
        carry = carry._replace(state=state)
        converted = plan._replace(force=plain_forces, save=lambda *at: save(*at, *consts))
        return lax.scan(lambda c, _: segment(converted, inputs, c), carry, None, length=plan.n_segments)

    def forward_pass(*arguments: Any) -> tuple[tuple[Carry, Any], Any]:
        leaves = jax.tree.leaves(arguments)
        varies = [leaf.perturbed for leaf in leaves]
        varied = [jnp.asarray(leaf.value) for leaf, does in zip(leaves, varies, strict=True) if does]
        n_numbers = sum(x.size for x in varied)
        if n_numbers > max_inputs:
            raise InputError(
                f"forward() would carry derivatives with respect to {n_numbers} numbers, but max_inputs = "
                f"{max_inputs}: differentiate fewer, or use checkpointed() or reversible()"
            )

        def results(varied: list[Array]) -> tuple[Carry, Any]:
            values = iter(varied)
            at = [next(values) if does else leaf.value for leaf, does in zip(leaves, varies, strict=True)]
            return plain(*jax.tree.unflatten(structure, at))

        def along(direction: list[Array]) -> tuple[tuple[Carry, Any], list[Array]]:
            def both(varied: list[Array]) -> tuple[list[Array], tuple[Carry, Any]]:
                outputs = results(varied)
                return floats(outputs)[0], outputs

            _, slopes, outputs = jax.jvp(both, (varied,), (direction,), has_aux=True)
            return outputs, slopes

        if varied:
            # The run does not depend on the direction, and is done once.
            outputs, slopes = jax.vmap(along, out_axes=(None, 0))(_directions(varied))
        else:
            outputs, slopes = results(varied), []
        # The structure of a list of () and None passes through JAX and marks what varies.
        return outputs, (slopes, varied, [() if does else None for does in varies])

    def backward_pass(residuals: Any, cotangents: tuple[Carry, Any]) -> tuple[Any, ...]:
        slopes, varied, marks = residuals
        if not varied:
            return jax.tree.unflatten(structure, [None] * len(marks))
        bars, _ = floats(cotangents)
        n_numbers = sum(x.size for x in varied)
        total = jnp.zeros(n_numbers, varied[0].dtype)
        for slope, bar in zip(slopes, bars, strict=True):
            if not isinstance(bar, SymbolicZero):
                total = total + slope.reshape(n_numbers, -1) @ bar.reshape(-1)
        ends = np.cumsum([x.size for x in varied])
        parts = zip(jnp.split(total, ends[:-1]), varied, strict=True)
        pieces = iter([part.reshape(x.shape) for part, x in parts])
        return jax.tree.unflatten(structure, [None if mark is None else next(pieces) for mark in marks])

    run = jax.custom_vjp(plain)
    run.defvjp(forward_pass, backward_pass, symbolic_zeros=True)
    return run(inputs, carry, consts)


def _directions(varied: list[Array]) -> list[Array]:
    """Unit vectors, one for each number; [numbers, ...] each."""
    n_numbers, directions, start = sum(x.size for x in varied), [], 0
    for x in varied:
        rows = jnp.eye(n_numbers, x.size, k=-start, dtype=x.dtype)
        directions.append(rows.reshape(n_numbers, *x.shape))
        start += x.size
    return directions
