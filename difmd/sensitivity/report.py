"""`GradientReport`: how gradients through trajectories behave, as numbers and as a table."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from difmd import units
from difmd._internal.summaries import summary


class Cost(NamedTuple):
    """Time and memory of a gradient method for one replica over the longest horizon.

    Attributes:
        method: its name.
        seconds: for value and gradient.
        over_forward: ratio to the time of the rollout alone.
        peak_bytes: memory for intermediate results, as the compiler plans it.
        refusal: why the method cannot be used, where the numbers are NaN; else empty.
    """

    method: str
    seconds: float
    over_forward: float
    peak_bytes: float
    refusal: str = ""


class GradientReport(NamedTuple):
    """The result of `gradient_report`; `print` shows it as a table, `plots.plot_gradient_report` as a plot.

    Derivatives are θ ∂A/∂θ of each number (1 · ∂A/∂θ where θ is 0), or along random directions.

    Attributes:
        names: of parameters, or of directions; [numbers].
        times: horizons t [Å√(amu/eV)]; [lags].
        value: ⟨A(t)⟩ over replicas; [lags].
        value_stderr: its standard error; [lags].
        gradient: mean over replicas; [numbers, lags].
        gradient_stderr: its standard error; [numbers, lags].
        effective: n_eff/n = (Σ|g|)²/(n Σ|g|²) over replicas, the share that dominates the mean; [lags].
        relative_error: ‖stderr‖/‖mean‖ over numbers; [lags].
        lyapunov: Lyapunov exponent λ [1/time].
        lyapunov_stderr: its standard error over replicas [1/time].
        horizon: the longest with a relative error below `tolerance`; NaN if there is none [Å√(amu/eV)].
        tolerance: as given.
        n_replicas: number of replicas.
        costs: of each method.
    """

    names: tuple[str, ...]
    times: np.ndarray
    value: np.ndarray
    value_stderr: np.ndarray
    gradient: np.ndarray
    gradient_stderr: np.ndarray
    effective: np.ndarray
    relative_error: np.ndarray
    lyapunov: float
    lyapunov_stderr: float
    horizon: float
    tolerance: float
    n_replicas: int
    costs: tuple[Cost, ...]

    @property
    def replicas_needed(self) -> np.ndarray:
        """Replicas that reduce the relative error to `tolerance`, for each horizon; [lags]."""
        return self.n_replicas * (self.relative_error / self.tolerance) ** 2

    def __repr__(self) -> str:
        """Lyapunov exponent, horizon, and the costs of methods."""
        methods = [f"{c.method} {'–' if c.refusal else f'{c.over_forward:.1f}×'}" for c in self.costs]
        rate, error = self.lyapunov * units.PS, self.lyapunov_stderr * units.PS
        rows = {
            "Lyapunov exponent": f"{rate:.3g} ± {error:.2g} /ps",
            f"horizon for an error of {100 * self.tolerance:g} %": f"{self.horizon / units.PS:.3g} ps",
            "derivatives": ", ".join(self.names),
            "time / time of the rollout": ", ".join(methods),
        }
        until = f"{self.times[-1] / units.PS:.3g} ps"
        return summary(f"GradientReport of {self.n_replicas} replicas up to {until}", rows)

    def __str__(self) -> str:
        """A table of up to ten horizons, and one of methods."""
        rate = f"{self.lyapunov * units.PS:.2f} ± {self.lyapunov_stderr * units.PS:.2f} /ps"
        lines = [
            f"{self.n_replicas} replicas, Lyapunov exponent {rate}",
            "",
            f"{'horizon':>9} {'A':>11} {'|gradient|':>11} {'error':>7} {'n_eff':>6} {'replicas for':>13}",
            f"{'ps':>9} {'':>11} {'':>11} {'%':>7} {'%':>6} {f'{100 * self.tolerance:g} %':>13}",
        ]
        n = len(self.times)
        for k in sorted({round(x) for x in np.linspace(0, n - 1, min(n, 10))}):
            size = np.linalg.norm(self.gradient[:, k])
            lines.append(
                f"{self.times[k] / units.PS:9.3f} {self.value[k]:11.4g} {size:11.4g} "
                f"{100 * self.relative_error[k]:7.1f} {100 * self.effective[k]:6.0f} "
                f"{self.replicas_needed[k]:13.3g}"
            )
        if np.isfinite(self.horizon):
            advice = f"differentiate through {self.horizon / units.PS:.3g} ps at most"
        else:
            best = int(np.argmin(self.relative_error))
            advice = (
                f"no horizon suffices with {self.n_replicas} replicas: use {self.replicas_needed[best]:.3g} "
                f"at {self.times[best] / units.PS:.3g} ps"
            )
        lines += ["", f"For an error of {100 * self.tolerance:g} % {advice}.", ""]
        lines += [f"{'method':<22} {'s/replica':>10} {'/ forward':>10} {'memory, MB':>11}"]
        for cost in self.costs:
            numbers = f"{cost.seconds:10.3g} {cost.over_forward:10.2f} {cost.peak_bytes / 1e6:11.1f}"
            lines.append(f"{cost.method:<22} {cost.refusal or numbers}")
        return "\n".join(lines)
