"""All Python code of the documentation runs, page by page, from top to bottom."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GENERATED = {"_build", "reference", "experiments", "notebooks", "contributing.md", "changelog.md"}
PAGES = sorted(
    path
    for path in (ROOT / "docs").rglob("*.md")
    if not GENERATED & set(path.relative_to(ROOT / "docs").parts)
)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
WITH_CODE = [path for path in PAGES if BLOCK.search(path.read_text())]
QUICK = {"installation", "units"}


def run_blocks(page: Path, folder: Path, *, timeout: float) -> str:
    """Run the blocks of a page in one process, with line numbers as in the page; returns what it printed."""
    text = page.read_text()
    lines = [""] * text.count("\n")
    for block in BLOCK.finditer(text):
        start = text.count("\n", 0, block.start(1))
        for k, line in enumerate(block[1].splitlines()):
            lines[start + k] = line
    script = folder / f"{page.stem}.py"
    script.write_text("\n".join(lines))
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{page.relative_to(ROOT)}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=() if page.stem in QUICK else pytest.mark.slow)
        for page in WITH_CODE
    ],
)
def test_page(page, tmp_path):
    """No block raises."""
    run_blocks(page, tmp_path, timeout=600)


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
            elif parts[:2] == ("docs", "reference"):
                continue
            if not path.exists():
                missing.append(f"{page.relative_to(ROOT)}: {target}")
    assert not missing
