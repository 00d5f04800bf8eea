"""The result of a fit, and errors that carry it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from difmd._internal.summaries import html_table
from difmd._internal.summaries import summary as text_summary
from difmd.errors import DifmdError, InputError
from difmd.fitting.terms import flat_names
from difmd.potentials import Params
from difmd.training.result import to_table

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

MOST = 64
"""Largest number of parameters for which a covariance is computed."""


class FitError(DifmdError, RuntimeError):
    """A fit failed; `partial_result` is the `FitResult` of the completed iterations."""

    def __init__(self, message: str, partial_result: Any = None) -> None:
        """Store the result of the completed iterations."""
        super().__init__(message)
        self.partial_result = partial_result


class FitInterrupted(FitError, KeyboardInterrupt):
    """Ctrl-C during a fit; the same call with the same folder continues it."""


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class FitResult:
    """The result of `fit`; `params` are the parameters to use.

    They are `best_params`, except with an optimiser that averages the noise of the loss over its steps, as
    `gauss_newton` does: then they are `last_params`, since the lowest of several noisy losses may be chance.

    Attributes:
        params: the parameters to use.
        best_params: parameters with the lowest loss.
        last_params: parameters after the last step.
        best_loss: loss of `best_params`, with the weights of the last iteration.
        history: a dict for each iteration: `loss`, `params` (flat, by name), `losses` and `weights` (of each
            term), and the record of each term under its name.
        covariance: C of the parameters, in the order of `jax.flatten_util.ravel_pytree`, see `fit`; None
            where a term gives no residuals, or with more than 64 parameters; [numbers, numbers].
    """

    params: Params
    best_params: Params
    last_params: Params
    best_loss: float
    history: list[dict[str, Any]]
    covariance: Float[np.ndarray, "numbers numbers"] | None = None

    @property
    def stderr(self) -> Params:
        """Standard errors, like the params, NaN where undetermined; an `InputError` without covariance."""
        flat, restore = ravel_pytree(self.params)
        return restore(jnp.asarray(np.sqrt(np.diagonal(self._covariance())), flat.dtype))

    def stderr_of(self, gradient: Any) -> float:
        """Standard error of a prediction due to the errors of the parameters, √(gᵀ C g), in its unit.

        Its gradient g in the parameters, like the params, is for instance
        `measure_diffusivity(…, with_gradient=True)[0].gradient.gradient`.

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

    def summary(self) -> dict[str, float]:
        """Iterations, first and lowest loss, and up to 64 parameters with their standard errors."""
        rows = {"n_iterations": float(len(self.history)), "best_loss": self.best_loss}
        if self.history:
            rows["first_loss"] = float(self.history[0]["loss"])
        numbers = _numbers(flat_names(self.params))
        if len(numbers) <= MOST:
            rows |= numbers
        if self.covariance is not None:
            errors = _numbers(flat_names(self.stderr))
            rows |= {f"{name}_stderr": error for name, error in errors.items()}
        return rows

    def to_pandas(self) -> pandas.DataFrame:
        """The history, a row for each iteration and a column for each number; `InputError` without pandas."""
        table = to_table([_numbers(entry) for entry in self.history])
        return table.set_axis(range(1, len(table) + 1)).rename_axis("iteration")

    def plot(self, path: str | Path | None = None) -> Figure:
        """Loss and parameters by iteration, as `difmd.plots.plot_fit`; `path` is an image file to write."""
        from difmd.plots import plot_fit

        return plot_fit(self.history, path=path)

    def __repr__(self) -> str:
        """Iterations, losses and parameters."""
        return text_summary("FitResult", self._rows())

    def _repr_html_(self) -> str:
        return html_table("FitResult", self._rows())

    def _rows(self) -> dict[str, str]:
        rows = self.summary()
        losses = f"{rows.get('first_loss', np.nan):.4g} in the first iteration, lowest {self.best_loss:.4g}"
        names = list(_numbers(flat_names(self.params)))
        if len(names) > 3:
            parameters = {"parameters": f"{len(names)} numbers: {', '.join(flat_names(self.params))}"}
        else:
            errors = ["" if self.covariance is None else f" ± {rows[f'{name}_stderr']:.2g}" for name in names]
            parameters = {n: f"{rows[n]:.6g}{error}" for n, error in zip(names, errors, strict=True)}
        return {"iterations": str(len(self.history)), "loss": losses, **parameters}


def _numbers(entry: Any, name: str = "") -> dict[str, Any]:
    """Nested dicts and lists as one dict of numbers, by names such as `params.sigma` and `D[1]`."""
    if isinstance(entry, dict):
        parts = [_numbers(value, f"{name}.{key}" if name else str(key)) for key, value in entry.items()]
    elif isinstance(entry, list) and len(entry) == 1:
        return _numbers(entry[0], name)
    elif isinstance(entry, list):
        parts = [_numbers(value, f"{name}[{k}]") for k, value in enumerate(entry)]
    else:
        return {name: entry}
    return {key: value for part in parts for key, value in part.items()}
