"""All terms of a fit as one objective, and the covariance of the parameters from its curvature."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from difmd.errors import InputError
from difmd.fitting.gauss_newton import rows
from difmd.fitting.result import MOST
from difmd.fitting.terms import Evaluation, Term, concatenated
from difmd.fitting.transforms import Transform


class Objective(NamedTuple):
    """All terms together, in the free coordinates; without residuals if a term has none.

    Attributes:
        loss: Σ w L.
        gradient: its derivative.
        residuals: √w r of all terms; [residuals].
        jacobian: their derivatives; pytree of [residuals, ...].
        jacobian_stderr: the statistical error of these; as above.
        noise: √w times that of the residuals; [residuals].
        terms: number of the term of each; [residuals].
    """

    loss: float
    gradient: Any
    residuals: Any
    jacobian: Any
    jacobian_stderr: Any
    noise: Any
    terms: np.ndarray


def weights_of(terms: Sequence[Term], iteration: int) -> list[float]:
    """Weights of the terms in an iteration; an `InputError` for one that is negative or not finite."""
    weights = [float(t.weight(iteration)) if callable(t.weight) else float(t.weight) for t in terms]
    for term, weight in zip(terms, weights, strict=True):
        if not (np.isfinite(weight) and weight >= 0):
            raise InputError(f"weight of {term.name} = {weight} must be finite and not negative")
    return weights


def objective(
    evaluations: Sequence[Evaluation], weights: list[float], transform: Transform, free: Any
) -> Objective:
    """The `Objective` of evaluated terms."""
    _, pull = jax.vjp(transform.from_free, free)
    weighted = list(zip(weights, evaluations, strict=True))
    loss = sum(w * float(e.loss) for w, e in weighted)
    gradients = [jax.tree.map(lambda g, w=w: w * g, e.gradient) for w, e in weighted]
    (gradient,) = pull(jax.tree.map(lambda *g: sum(g), *gradients))
    if any(e.residuals is None for e in evaluations):
        return Objective(loss, gradient, None, None, None, None, np.zeros(0))
    parts = [jax.tree.map(lambda x, w=w: math.sqrt(w) * x, e.residuals) for w, e in weighted]
    terms = np.concatenate([np.full(len(part.values), k) for k, part in enumerate(parts)])
    residuals = concatenated(parts)
    (jacobian,) = jax.vmap(pull)(residuals.jacobian)
    (errors,) = jax.vmap(pull)(residuals.jacobian_stderr)
    errors = jax.tree.map(jnp.abs, errors)
    return Objective(loss, gradient, residuals.values, jacobian, errors, residuals.noise, terms)


def covariance_of(total: Objective, transform: Transform, free: Any) -> list[list[float]] | None:
    """Covariance of the parameters, as nested lists; NaN where the data do not determine all of them."""
    flat, restore = ravel_pytree(free)
    if total.residuals is None or flat.size > MOST:
        return None

    p = flat.size
    jacobian, errors = (np.asarray(rows(x), np.float64) for x in (total.jacobian, total.jacobian_stderr))
    # The noise of a Jacobian increases its square, as in `gauss_newton`.
    damping = np.sum(errors**2, axis=0).max()
    normal = jacobian.T @ jacobian
    scale = np.sqrt(np.diagonal(normal))
    unknown = np.full((p, p), np.nan).tolist()
    if not (scale > 0).all() or np.linalg.eigvalsh(normal)[0] <= damping:
        return unknown
    # The rank of columns of one length does not depend on units.
    sizes = np.linalg.svd(jacobian / scale, compute_uv=False)
    if len(jacobian) < p or sizes[-1] < p * float(jnp.finfo(flat.dtype).eps) * sizes[0]:
        return unknown
    gain = np.linalg.solve(normal, jacobian.T)
    of_free = (gain * _variances(total, jacobian, gain)) @ gain.T
    slopes = jax.jacobian(lambda x: ravel_pytree(transform.from_free(restore(x)))[0])(flat)
    slopes = np.asarray(slopes, np.float64)
    return (slopes @ of_free @ slopes.T).tolist()


def _variances(total: Objective, jacobian: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Variances of the residuals; unknown ones are estimated from the residuals of the same term."""
    residuals = np.asarray(total.residuals, np.float64)
    variances = np.asarray(total.noise, np.float64) ** 2
    # The part of each residual that the parameters cannot reduce.
    free = 1 - np.einsum("np,pn->n", jacobian, gain)
    for term in np.unique(total.terms):
        unknown = (total.terms == term) & ~np.isfinite(variances)
        n_free = free[unknown].sum()
        rest = np.sum(residuals[unknown] ** 2) / n_free if n_free > 1e-6 else np.nan
        variances = np.where(unknown, rest, variances)
    return variances
