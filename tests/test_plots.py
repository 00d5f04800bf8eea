"""Every plot is written, and holds what it should."""

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


@pytest.mark.parametrize("replicas", [None, 3])
def test_energy(tmp_path, figures, argon, replicas):
    from difmd.trajectory.trajectory import Trajectory

    rng = np.random.default_rng(0)
    shape = (5,) if replicas is None else (5, replicas)
    momenta = rng.normal(size=(*shape, 32, 3))
    system = argon if replicas is None else jax.tree.map(lambda x: np.stack([x] * replicas), argon)
    run = Trajectory(
        system=system, times=np.arange(1, 6) * units.PS, positions=momenta, momenta=momenta,
        potential_energy=rng.normal(size=shape), stress=np.zeros((*shape, 3, 3)), state=None, n_replays=0,
        skin=1.0,
    )  # fmt: skip
    path = tmp_path / "energy.png"
    assert plots.plot_energy(path, run) is figures[0]
    check(path)
    left, right = figures[0].axes
    assert len(left.lines) == len(right.lines) == (replicas or 1)
    times, energy = left.lines[-1].get_data()
    np.testing.assert_allclose(times, np.arange(1, 6))
    total = run.total_energy.reshape(5, -1)[:, -1]
    np.testing.assert_allclose(energy, 1e3 * (total - total[0]) / 32, atol=1e-9)
    with pytest.raises(InputError, match="takes two frames or more"):
        plots.plot_energy(path, run._replace(times=run.times[:1]))


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
def test_training(tmp_path, figures, n):
    from difmd.training import CommitteeResult, TrainingResult

    common = {
        "params": None, "last_params": None, "references": {}, "n_compiled": 2, "seconds": 1.0,
        "is_complete": True,
    }  # fmt: skip
    one = TrainingResult(history=history(n, 1.0), best_epoch=2 * n - 1, **common)
    path = tmp_path / "t.png"
    assert plots.plot_training(path, one) is figures[0]
    check(path)
    loss, errors, rate, weights = figures[0].axes
    epochs = 2.0 * np.arange(1, n + 1)
    np.testing.assert_allclose(loss.lines[0].get_data(), [epochs, 1 / np.arange(1, n + 1)])
    np.testing.assert_allclose(errors.lines[1].get_data(), [epochs, 300 / np.arange(1, n + 1)])
    np.testing.assert_allclose(loss.lines[2].get_xdata(), 2 * n)
    assert loss.get_yscale() == errors.get_yscale() == rate.get_yscale() == "log"
    # A weight that is always 0 is not shown.
    assert [line.get_label() for line in weights.lines] == ["weight of energy", "weight of forces"]
    two = CommitteeResult(histories=[history(n, 1.0), history(n, 2.0)], best_epochs=(1, -1), **common)
    plots.plot_training(path, two)
    assert len(figures[1].axes[0].lines) == 5
    with pytest.raises(InputError, match="nothing to plot"):
        plots.plot_training(path, TrainingResult(history=[], best_epoch=-1, **common))


def test_parity(tmp_path, figures):
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
    plots.plot_parity(path, residuals(10), frames=frames)
    check(path)
    energy, forces = figures[0].axes
    assert energy.get_title() == "energy: RMSE 100, MAE 100 meV/atom"
    assert forces.get_title() == "forces: RMSE 50, MAE 50 meV/Å"
    # The last frame has no energy.
    assert sorted(len(points.get_offsets()) for points in energy.collections) == [3, 3, 3]
    assert sum(len(points.get_offsets()) for points in forces.collections) == 60
    x, y = energy.collections[0].get_offsets().T
    np.testing.assert_allclose(y - x, 0.1)
    assert [text.get_text() for text in energy.get_legend().get_texts()] == ["a", "b", "c"]
    # Without kinds, elements; of many points the density.
    plots.plot_parity(path, residuals(10))
    assert [text.get_text() for text in figures[1].axes[1].get_legend().get_texts()] == ["H", "O"]
    plots.plot_parity(path, residuals(1000))
    assert len(figures[2].axes) == 3 and figures[2].axes[1].collections[0].get_array().sum() > 0
    bare = residuals(10)._replace(energy_label=np.full(10, np.nan))
    plots.plot_parity(path, bare)
    assert len(figures[3].axes[0].texts) == 1
    with pytest.raises(InputError, match="10 frames were evaluated, but 3"):
        plots.plot_parity(path, residuals(10), frames=frames[:3])


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
