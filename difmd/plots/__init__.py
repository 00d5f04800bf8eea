"""Plots of trajectories, data, training, fits and certificates, each a Matplotlib figure.

Matplotlib is imported when the first figure is made, pyplot never.
"""

from difmd.plots.certificate import plot_certificate
from difmd.plots.dynamics import plot_energy, plot_relaxation
from difmd.plots.liquids import plot_correlations, plot_diffusivities, plot_fit, plot_gradient_report
from difmd.plots.training import plot_data, plot_parity, plot_training

__all__ = [
    "plot_certificate",
    "plot_correlations",
    "plot_data",
    "plot_diffusivities",
    "plot_energy",
    "plot_fit",
    "plot_gradient_report",
    "plot_parity",
    "plot_relaxation",
    "plot_training",
]
