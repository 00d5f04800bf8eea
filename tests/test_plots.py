"""Plots return figures that show the data, and save them where a path is given."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from difmd import plots, units
from difmd.errors import InputError
from difmd.observables import Diffusivity, Estimate

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def diffusivity():
    """A diffusivity of 3e-9 m²/s with made-up curves."""
    times = np.linspace(0, 4, 41) * units.PS
    d = 3 * units.D
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


def check(path):
    data = path.read_bytes()
    assert data.startswith(PNG)
    assert len(data) > 5000


def test_diffusivities(tmp_path):
    path = tmp_path / "new" / "folder" / "d.png"
    figure = plots.plot_diffusivities(
        [107.0, 91.0, 99.0],
        experiment=[3.94, 2.23, 3.03],
        before=[5.0, 3.0, 4.0],
        after=[3.9, 2.3, 3.1],
        stderr=[0.1, 0.05, 0.07],
        fitted_at=[99.0],
        path=path,
    )
    check(path)
    (axis,) = figure.axes
    labels = {line.get_label(): line.get_data() for line in axis.lines}
    np.testing.assert_array_equal(labels["experiment"], [[91, 99, 107], [2.23, 3.03, 3.94]])
    np.testing.assert_array_equal(labels["before the fit"], [[91, 99, 107], [3, 4, 5]])
    bars = {bar.get_label(): bar.lines[0].get_data() for bar in axis.containers}
    np.testing.assert_array_equal(bars["after the fit: fitted temperatures"], [[99], [3.1]])
    np.testing.assert_array_equal(bars["after the fit: predictions"], [[91, 107], [2.3, 3.9]])


@pytest.mark.parametrize("n_species", [1, 2])
def test_fit(tmp_path, n_species):
    history = [
        {"loss": 0.1 / (n + 1), "params": {"sigma": [3.6 + n] * n_species, "epsilon": [0.01] * n_species}}
        for n in range(4)
    ]
    path = tmp_path / "fit.png"
    figure = plots.plot_fit(history, path=path)
    check(path)
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "sigma", "epsilon"]
    assert [len(axis.lines) for axis in figure.axes] == [1, n_species, n_species]
    np.testing.assert_allclose(
        figure.axes[0].lines[0].get_data(), [[1, 2, 3, 4], [0.1, 0.05, 0.1 / 3, 0.025]]
    )


@pytest.mark.parametrize("replicas", [None, 3])
def test_energy(tmp_path, argon, replicas):
    from difmd.trajectory import Frames, Trajectory

    rng = np.random.default_rng(0)
    shape = (5,) if replicas is None else (5, replicas)
    momenta = rng.normal(size=(*shape, 32, 3))
    system = argon if replicas is None else jax.tree.map(lambda x: np.stack([x] * replicas), argon)
    run = Trajectory(
        system=system, steps=np.arange(1, 6), dt=units.PS,
        frames=Frames(momenta, momenta, rng.normal(size=shape), np.zeros((*shape, 3, 3))),
    )  # fmt: skip
    path = tmp_path / "energy.png"
    figure = plots.plot_energy(run, path=path)
    check(path)
    left, right = figure.axes
    assert len(left.lines) == len(right.lines) == (replicas or 1)
    times, energy = left.lines[-1].get_data()
    np.testing.assert_allclose(times, np.arange(1, 6))
    total = run.total_energy.reshape(5, -1)[:, -1]
    np.testing.assert_allclose(energy, 1e3 * (total - total[0]) / 32, atol=1e-9)
    with pytest.raises(InputError, match="at least two frames"):
        plots.plot_energy(run[:1])


def test_fit_of_one_iteration(tmp_path):
    path = tmp_path / "fit.png"
    plots.plot_fit([{"loss": 0.1, "params": {"sigma": [3.6]}}], path=path)
    check(path)


def test_correlations(tmp_path, diffusivity):
    path = tmp_path / "c.png"
    figure = plots.plot_correlations(diffusivity, title="99 K:", path=path)
    check(path)
    left, right = figure.axes
    assert left.get_title() == "99 K: Einstein, D = 3.000 ± 0.150 · 10⁻⁹ m²/s"
    assert right.get_title() == "99 K: Green–Kubo, D = 3.300 ± 0.240 · 10⁻⁹ m²/s"
    times, msd = left.lines[0].get_data()
    np.testing.assert_allclose(times[[0, -1]], [0, 4])
    # 6 × 3e-9 m²/s × 4 ps = 7.2 Å².
    assert msd[-1] == pytest.approx(7.2, rel=1e-9)
    # The dashed line of the fit lies on a straight curve.
    np.testing.assert_allclose(left.lines[1].get_ydata(), msd, atol=1e-9)
    # v²(0) = 3 D/τ with τ = 0.2 ps: 4.5 Å²/ps².
    assert right.lines[0].get_ydata()[0] == pytest.approx(4.5, rel=1e-9)


def test_data(tmp_path):
    from difmd.data import Frame
    from difmd.system import host_system

    def pair(distance, kind, **labels):
        system = host_system([[0, 0, 0], [0, 0, distance]], [6, 8], cell=[4.0, 4.0, 4.0])
        return Frame(system=system, kind=kind, **labels)

    forces = np.array([[0, 0, 1.0], [0, 0, -1.0]])
    frames = [pair(1.1 + 0.01 * n, "ab"[n % 2], energy=-10.0 + n, forces=n * forces) for n in range(10)]
    path = tmp_path / "d.png"
    energy, force, nearest, volume = plots.plot_data(frames, path=path).axes
    check(path)
    assert [text.get_text() for text in energy.get_legend().get_texts()] == ["a", "b"]
    heights = [sum(patch.get_height() for patch in axis.patches) for axis in (force, nearest, volume)]
    assert heights == [60, 20, 10]
    bare = [frame.replace(energy=None, forces=None) for frame in frames]
    assert [len(axis.texts) for axis in plots.plot_data(bare).axes] == [1, 1, 0, 0]


def history(n, level):
    return [
        {
            "epoch": 2 * k + 1,
            "train_loss": level / (k + 1),
            "valid_loss": 2 * level / (k + 1),
            "energy_rmse": 0.02 * level / (k + 1),
            "forces_rmse": 0.3 * level / (k + 1),
            "learning_rate": 1e-3 / (k + 1),
            "weights": {"energy": 1.0 + k, "forces": 1.0, "stress": 0.0},
        }
        for k in range(n)
    ]


@pytest.mark.parametrize("n", [1, 5, 60])
def test_training(tmp_path, n):
    from difmd.training import CommitteeResult, TrainingResult

    common = {
        "best_params": None, "last_params": None, "references": {}, "n_compiled": 2, "seconds": 1.0,
        "is_complete": True,
    }  # fmt: skip
    one = TrainingResult(history=history(n, 1.0), best_epoch=2 * n - 1, **common)
    path = tmp_path / "t.png"
    figure = plots.plot_training(one, path=path)
    check(path)
    loss, errors, rate, weights = figure.axes
    epochs = 2.0 * np.arange(1, n + 1)
    np.testing.assert_allclose(loss.lines[0].get_data(), [epochs, 1 / np.arange(1, n + 1)])
    np.testing.assert_allclose(errors.lines[1].get_data(), [epochs, 300 / np.arange(1, n + 1)])
    np.testing.assert_allclose(loss.lines[2].get_xdata(), 2 * n)
    assert loss.get_yscale() == errors.get_yscale() == rate.get_yscale() == "log"
    # A weight that is always 0 is not shown.
    assert [line.get_label() for line in weights.lines] == ["weight of energy", "weight of forces"]
    two = CommitteeResult(histories=[history(n, 1.0), history(n, 2.0)], best_epochs=(1, -1), **common)
    assert len(plots.plot_training(two).axes[0].lines) == 5
    with pytest.raises(InputError, match="nothing to plot"):
        plots.plot_training(TrainingResult(history=[], best_epoch=-1, **common))


def test_parity(tmp_path):
    from difmd.data import Frame
    from difmd.system import host_system
    from difmd.training import Residuals

    def residuals(n_frames):
        n = 2 * n_frames
        label = np.linspace(-1, 1, 3 * n).reshape(n, 3)
        energy = np.linspace(0, 3, n_frames)
        return Residuals(
            np.arange(n_frames), np.full(n_frames, 2), energy + 0.2, np.where(energy > 2.9, np.nan, energy),
            np.repeat(np.arange(n_frames), 2), np.tile([1, 8], n_frames), label + 0.05, label,
            np.zeros((n_frames, 3, 3)), np.full((n_frames, 3, 3), np.nan), np.ones(n_frames),
            *2 * [np.full((n_frames, 3), np.nan)],
        )  # fmt: skip

    path = tmp_path / "p.png"
    frames = [Frame(system=host_system([[0, 0, 0]], [1]), kind="abc"[k % 3]) for k in range(10)]
    figure = plots.plot_parity(residuals(10), frames=frames, path=path)
    check(path)
    energy, forces = figure.axes
    assert energy.get_title() == "energy: RMSE 100, MAE 100 meV/atom"
    assert forces.get_title() == "forces: RMSE 50, MAE 50 meV/Å"
    # The last frame has no energy.
    assert sorted(len(points.get_offsets()) for points in energy.collections) == [3, 3, 3]
    assert sum(len(points.get_offsets()) for points in forces.collections) == 60
    x, y = energy.collections[0].get_offsets().T
    np.testing.assert_allclose(y - x, 0.1)
    assert [text.get_text() for text in energy.get_legend().get_texts()] == ["a", "b", "c"]
    # Without kinds, elements; of many points the density.
    by_element = plots.plot_parity(residuals(10))
    assert [text.get_text() for text in by_element.axes[1].get_legend().get_texts()] == ["H", "O"]
    density = plots.plot_parity(residuals(1000))
    assert len(density.axes) == 3 and density.axes[1].collections[0].get_array().sum() > 0
    bare = residuals(10)._replace(energy_label=np.full(10, np.nan))
    assert len(plots.plot_parity(bare).axes[0].texts) == 1
    with pytest.raises(InputError, match="10 frames were evaluated, but 3"):
        plots.plot_parity(residuals(10), frames=frames[:3])


def test_notebooks_show_figures():
    """Without pyplot's formatter."""
    figure = plots.plot_fit([{"loss": 0.1, "params": {"sigma": [3.6]}}])
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(PNG)


def test_pyplot_is_not_imported(tmp_path):
    """Matplotlib is imported only when a plot is made, and pyplot never."""
    code = (
        "import sys\n"
        "from difmd import plots\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"plots.plot_fit([{{'loss': 0.1, 'params': {{'a': [1.0]}}}}], path={str(tmp_path / 'f.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    check(tmp_path / "f.png")
