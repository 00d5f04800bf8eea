"""Draw the pictures of the documentation: `python docs/pictures.py`."""

import json
from pathlib import Path

from difmd import plots

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "_static" / "methane_diffusivity.png"


def draw_diffusivities(path: Path = PICTURE) -> None:
    """D of liquid methane from `experiments/methane_diffusivity/report.json`."""
    report = json.loads((ROOT / "experiments" / "methane_diffusivity" / "report.json").read_text())
    figure = plots.plot_diffusivities(
        report["temperature_K"],
        experiment=report["D_exp"],
        before=report["D_before"],
        after=report["D_after"],
        stderr=report["D_stderr"],
        fitted_at=report["fitted_at_K"],
    )
    figure.axes[0].set_title("Self-diffusion of liquid methane", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    draw_diffusivities()
