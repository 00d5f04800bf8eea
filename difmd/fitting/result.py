"""The outcome of a fit, and errors that carry it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from difmd.errors import DifmdError, InputError
from difmd.potentials import Params

MOST = 64
"""Parameters of which a covariance is kept."""


class FitError(DifmdError, RuntimeError):
    """A fit had to stop; `result` holds what it had, the best parameters among them."""

    def __init__(self, message: str, result: FitResult) -> None:
        """Keep what the fit had."""
        super().__init__(message)
        self.result = result


class FitInterrupted(FitError, KeyboardInterrupt):
    """Ctrl-C during a fit; run it again with the same folder to go on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitResult:
    """The outcome of `fit`.

    Attributes:
        params: after the last step.
        best_params: those whose measured loss was lowest; the loss is noisy where it comes from a simulation,
            so `params` of an averaging optimiser are usually the better ones.
        best_loss: their loss, with the weights of the last iteration.
        history: a dict per iteration: `loss`, `params` (flat, by name), `losses` and `weights` (of each
            term), and what each term recorded, by its name.
        covariance: C of the parameters, in the order of `jax.flatten_util.ravel_pytree`, see `fit`; None
            where a term gives no residuals, or with more than 64 parameters; [numbers, numbers].
    """

    params: Params
    best_params: Params
    best_loss: float
    history: list[dict[str, Any]]
    covariance: Float[np.ndarray, "numbers numbers"] | None = None

    @property
    def stderr(self) -> Params:
        """Standard errors of the parameters, like these; NaN where the data do not determine them.

        Raises:
            InputError: there is no covariance.
        """
        flat, restore = ravel_pytree(self.params)
        return restore(jnp.asarray(np.sqrt(np.diagonal(self._covariance())), flat.dtype))

    def stderr_of(self, gradient: Any) -> float:
        """Standard error of a prediction that the errors of the parameters make, gᵀ C g under the root.

        Args:
            gradient: g of the prediction in the parameters, such as
                `measure_diffusivity(…, with_gradient=True)[0].gradient.gradient`; like the params.

        Raises:
            InputError: there is no covariance.
        """
        flat = np.asarray(ravel_pytree(gradient)[0], np.float64)
        return float(np.sqrt(flat @ self._covariance() @ flat))

    def _covariance(self) -> np.ndarray:
        if self.covariance is None:
            raise InputError(
                f"there is no covariance: a term without residuals, or more than {MOST} parameters"
            )
        return self.covariance
