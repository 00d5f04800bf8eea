"""The README is short, and its code prints what it says."""

import re

import pytest
from blocks import ROOT, run_blocks

README = ROOT / "README.md"


def test_size():
    """A front door: 6 KB and two pictures at most."""
    text = README.read_text()
    assert len(text.encode()) <= 6144
    assert text.count("<img") + len(re.findall(r"!\[", text)) <= 2


@pytest.mark.slow
def test_blocks(tmp_path):
    """All blocks run in order, and the fit ends closer to the measured diffusivity than it began."""
    printed = run_blocks(README, tmp_path, timeout=600)
    number = r"-?\d+\.\d+"
    values = re.search(r"^D = (.*?) 1e-9 m²/s", printed, re.MULTILINE)
    assert values, printed
    D = [float(value) for value in re.findall(number, values[1])]
    assert abs(D[-1] - 3.03) < 0.5 * abs(D[0] - 3.03)
    shown = re.search(r"^D = (.*?) 1e-9 m²/s", README.read_text(), re.MULTILINE)
    assert len(re.findall(number, shown[1])) == len(D)
