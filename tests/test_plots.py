"""Every plot is written, and holds what it should."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from difmd import plots, units
from difmd.observables import Diffusivity, Estimate

PNG = b"\x89PNG\r\n\x1a\n"
D_UNIT = 1e-9 * units.M2_PER_S


@pytest.fixture
def found():
    """A diffusivity of 3e-9 m²/s with made-up curves."""
    times = np.linspace(0, 4, 41) * units.PS
    d = 3 * D_UNIT
    vacf = np.exp(-times / (0.2 * units.PS)) * 3 * d / (0.2 * units.PS)
    return Diffusivity(
        einstein=Estimate(np.float64(d), np.float64(0.05 * d)),
        green_kubo=Estimate(np.float64(1.1 * d), np.float64(0.08 * d)),
        times=times,
        msd=6 * d * times,
        msd_stderr=0.3 * d * times,
        vacf=vacf,
        vacf_stderr=0.02 * vacf,
        window=(1.5 * units.PS, 2 * units.PS),
        samples=np.full(4, d),
        green_kubo_samples=np.full(4, 1.1 * d),
    )


@pytest.fixture
def figures(monkeypatch):
    """Figures as they are saved, to look into."""
    saved, save = [], Figure.savefig

    def keep(self, *args, **kwargs):
        saved.append(self)
        return save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved


def check(path):
    data = path.read_bytes()
    assert data.startswith(PNG)
    assert len(data) > 5000


def test_diffusivities(tmp_path, figures):
    path = tmp_path / "new" / "folder" / "d.png"
    plots.plot_diffusivities(
        path,
        [107.0, 91.0, 99.0],
        experiment=[3.94, 2.23, 3.03],
        before=[5.0, 3.0, 4.0],
        after=[3.9, 2.3, 3.1],
        stderr=[0.1, 0.05, 0.07],
        fitted_at=[99.0],
    )
    check(path)
    (axis,) = figures[0].axes
    labels = {line.get_label(): line.get_data() for line in axis.lines}
    np.testing.assert_array_equal(labels["experiment"], [[91, 99, 107], [2.23, 3.03, 3.94]])
    np.testing.assert_array_equal(labels["before the fit"], [[91, 99, 107], [3, 4, 5]])
    bars = {bar.get_label(): bar.lines[0].get_data() for bar in axis.containers}
    np.testing.assert_array_equal(bars["after: fitted temperatures"], [[99], [3.1]])
    np.testing.assert_array_equal(bars["after: predicted"], [[91, 107], [2.3, 3.9]])


@pytest.mark.parametrize("n_species", [1, 2])
def test_fit(tmp_path, figures, n_species):
    history = [
        {"loss": 0.1 / (n + 1), "params": {"sigma": [3.6 + n] * n_species, "epsilon": [0.01] * n_species}}
        for n in range(4)
    ]
    path = tmp_path / "fit.png"
    plots.plot_fit(path, history)
    check(path)
    assert [axis.get_ylabel() for axis in figures[0].axes] == ["loss", "sigma", "epsilon"]
    assert [len(axis.lines) for axis in figures[0].axes] == [1, n_species, n_species]
    np.testing.assert_allclose(
        figures[0].axes[0].lines[0].get_data(), [[1, 2, 3, 4], [0.1, 0.05, 0.1 / 3, 0.025]]
    )


def test_fit_of_one_iteration(tmp_path):
    path = tmp_path / "fit.png"
    plots.plot_fit(path, [{"loss": 0.1, "params": {"sigma": [3.6]}}])
    check(path)


def test_correlations(tmp_path, figures, found):
    path = tmp_path / "c.png"
    plots.plot_correlations(path, found, title="99 K")
    check(path)
    left, right = figures[0].axes
    assert left.get_title() == "99 K  D = 3.000 ± 0.150"
    assert right.get_title() == "D = 3.300 ± 0.240 · 10⁻⁹ m²/s"
    times, msd = left.lines[0].get_data()
    np.testing.assert_allclose(times[[0, -1]], [0, 4])
    # 6 × 3e-9 m²/s × 4 ps = 7.2 Å².
    assert msd[-1] == pytest.approx(7.2, rel=1e-9)
    # The dashed line of the fit lies on a straight curve.
    np.testing.assert_allclose(left.lines[1].get_ydata(), msd, atol=1e-9)
    # v²(0) = 3 D/τ with τ = 0.2 ps: 4.5 Å²/ps².
    assert right.lines[0].get_ydata()[0] == pytest.approx(4.5, rel=1e-9)


def test_data(tmp_path, figures):
    from difmd.data import Frame
    from difmd.system import host_system

    def pair(distance, kind, **labels):
        system = host_system([[0, 0, 0], [0, 0, distance]], [6, 8], cell=[4.0, 4.0, 4.0])
        return Frame(system=system, kind=kind, **labels)

    forces = np.array([[0, 0, 1.0], [0, 0, -1.0]])
    frames = [pair(1.1 + 0.01 * n, "ab"[n % 2], energy=-10.0 + n, forces=n * forces) for n in range(10)]
    check(plots.plot_data(path := tmp_path / "d.png", frames) or path)
    energy, force, nearest, volume = figures[0].axes
    assert [text.get_text() for text in energy.get_legend().get_texts()] == ["a", "b"]
    heights = [sum(patch.get_height() for patch in axis.patches) for axis in (force, nearest, volume)]
    assert heights == [60, 20, 10]
    bare = [frame.replace(energy=None, forces=None) for frame in frames]
    check(plots.plot_data(path, bare) or path)
    assert [len(axis.texts) for axis in figures[1].axes] == [1, 1, 0, 0]


def test_no_window_system_is_chosen(tmp_path):
    """Matplotlib is imported only when a plot is made, and never its pyplot."""
    code = (
        "import sys\n"
        "from difmd import plots\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"plots.plot_fit({str(tmp_path / 'f.png')!r}, [{{'loss': 0.1, 'params': {{'a': [1.0]}}}}])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    check(tmp_path / "f.png")
