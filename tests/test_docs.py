"""All Python code of the documentation runs, page by page, from top to bottom."""

import functools
import importlib.util
import re

import pytest
from blocks import BLOCK, ROOT, run_blocks

DOCS = ROOT / "docs"
GENERATED = {"_build", "reference", "experiments", "notebooks", "contributing.md", "changelog.md"}
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if not GENERATED & set(path.relative_to(DOCS).parts)]
QUICK = {"installation", "units"}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=() if page.stem in QUICK else pytest.mark.slow)
        for page in PAGES
        if BLOCK.search(page.read_text())
    ],
)
def test_page(page, tmp_path):
    """No block raises."""
    run_blocks(page, tmp_path, timeout=1200)


def test_links_lead_somewhere():
    """Relative links of README, CONTRIBUTING and pages are files of the repository, or generated pages."""
    link = re.compile(r"\]\((?!https?:|#|mailto:)([^)#]+)(?:#[^)]*)?\)")
    missing = []
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *PAGES):
        for target in link.findall(page.read_text()):
            path = (page.parent / target).resolve()
            parts = path.relative_to(ROOT).parts
            if parts[:2] == ("docs", "experiments"):
                path = ROOT / "experiments" / path.stem / "README.md"
            elif path.parent == DOCS and path.name in GENERATED:
                path = ROOT / f"{path.stem.upper()}.md"
            elif parts[:2] == ("docs", "reference"):
                continue
            if not path.exists():
                missing.append(f"{page.relative_to(ROOT)}: {target}")
    assert not missing


def test_every_public_name_has_an_entry(tmp_path):
    """The reference is generated from `__all__`."""
    pytest.importorskip("sphinx")
    spec = importlib.util.spec_from_file_location("generated", DOCS / "generated.py")
    generated = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generated)
    generated.write_all(tmp_path)
    modules = generated.public_modules()
    assert len(modules) > 15
    for module in modules:
        page = (tmp_path / "reference" / f"{module.__name__}.md").read_text()
        names = getattr(module, "__all__", None) or generated.public_names(module)
        for name in names:
            entry = rf"(?:auto|py:)\w+(?:::|\}}) {re.escape(module.__name__)}\.{re.escape(name)}$"
            assert re.search(entry, page, re.MULTILINE), f"{module.__name__}.{name}"


def test_picture(tmp_path):
    """The committed picture is what the script draws."""
    from matplotlib.image import imread

    spec = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    pictures.draw_diffusivities(tmp_path / "picture.png")
    new, old = imread(tmp_path / "picture.png"), imread(pictures.PICTURE)
    assert new.shape == old.shape
    # Fonts differ a little between versions of Matplotlib.
    assert abs(new - old).mean() < 0.02


def test_names_exist():
    """Names of the package that the pages mention, such as `sensitivity.gradient_report`, are there."""
    import difmd

    unknown = []
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES):
        for name in re.findall(r"`((?:\w+\.)+\w+)[`(=]", page.read_text()):
            first, *rest = name.removeprefix("difmd.").split(".")
            # Data files, and variables of the examples.
            if not hasattr(difmd, first) or name in ("neighbors.rank", "trajectory.h5"):
                continue
            try:
                functools.reduce(getattr, rest, getattr(difmd, first))
            except AttributeError:
                unknown.append(f"{page.relative_to(ROOT)}: {name}")
    assert not unknown
