"""Text files with an invalid frame, and truncated files: messages name the frame and the remedy."""

import gzip

import pytest
from labelled import text_of

from difmd.data import read, stream
from difmd.errors import InputError


def nth_line(text, number, change):
    lines = text.splitlines()
    lines[number] = change(lines[number])
    return "\n".join(lines) + "\n"


def field(column, value):
    def change(line):
        words = line.split()
        words[column] = value
        return " ".join(words)

    return change


# Lines 6 and 7 of a file are the header of frame 1, whose atoms are lines 8 to 11.
CORRUPTED = {
    "nan position": (lambda t: nth_line(t, 9, field(2, "nan")), r"frame 1 .*positions\[1, 1\] = nan"),
    "nan force": (
        lambda t: nth_line(t, 10, field(5, "nan")),
        r"frame 1 .*: forces of atom 2 is nan: the calc",
    ),
    "infinite energy": (lambda t: t.replace("energy=-11.0", "energy=inf"), r"frame 1 .*: energy is inf"),
    "text energy": (
        lambda t: t.replace("energy=-11.0", "energy=none"),
        r"frame 1 .*: energy = 'none' is not a number",
    ),
    "two energies": (
        lambda t: t.replace("energy=-11.0", 'energy="1 2"'),
        r"frame 1 .*energy has shape \[2\]",
    ),
    "short dipole": (
        lambda t: nth_line(t, 7, lambda line: line.split(" dipole=")[0] + ' dipole="1 2"'),
        r"frame 1 .*dipole has shape \[2\], not \[3\]",
    ),
    "unknown element": (
        lambda t: nth_line(t, 8, field(0, "Qq")),
        r"frame 1 .*'Qq' is unknown; is it a chemical",
    ),
    "no element": (lambda t: nth_line(t, 8, field(0, "X")), r"frame 1 .*atom 0 has no element"),
    "colliding": (
        lambda t: nth_line(t, 9, lambda line: " ".join(line.split()[:1] + t.splitlines()[8].split()[1:])),
        r"frame 1 .*atoms 0 and 1 coincide",
    ),
    "missing column": (lambda t: nth_line(t, 9, lambda line: line[:40]), r"frame 1 \(counted from 0\): \w+"),
    "flat cell": (
        lambda t: nth_line(t, 7, lambda line: 'Lattice="1 0 0 1 0 0 0 0 1" ' + line.split('" ', 1)[1]),
        r"frame 1 .*cell is singular",
    ),
    "conflict": (
        lambda t: t.replace("energy=-11.0", "energy=-11.0 REF_energy=3"),
        r"frame 1 .*energy and REF_energy differ: select one with Keys\(energy='REF_energy'\)",
    ),
    "six stresses": (
        lambda t: nth_line(t, 7, lambda line: line + ' REF_virial="1 2 3 4 5"').replace(" stress=", " s="),
        r"frame 1 .*virial has shape \[5\], not 3×3 numbers",
    ),
}


@pytest.mark.parametrize("case", CORRUPTED)
def test_bad_frame(tmp_path, case):
    spoil, message = CORRUPTED[case]
    text = text_of(tmp_path)
    path = tmp_path / "bad.xyz"
    path.write_text(spoil(text))
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert "bad.xyz" in str(caught.value) and "skip_bad=True" in str(caught.value)
    with pytest.raises(InputError, match=message):
        list(stream(path))
    with pytest.warns(UserWarning, match=r"1 frames skipped, 2 read: .*frame 1 \(counted"):
        valid = read(path, skip_bad=True)
    assert [frame.energy for frame in valid] == [-10.0, -12.0]


CUT = {
    "within a frame": (lambda t: t[: t.rindex("\n", 0, -1) - 40], r"frame 2 .*: the file ends within it"),
    "atoms missing": (
        lambda t: "\n".join(t.splitlines()[:-2]) + "\n",
        r"frame 2 .*the file ends within it, after 2 of 4 atoms; 2 frames before it are complete: copy or",
    ),
    "no number": (
        lambda t: nth_line(t, 12, lambda _: "four"),
        r"frame 2 .*'four' instead of a number of atoms",
    ),
    "empty line": (
        lambda t: nth_line(t, 11, lambda line: line + "\n"),
        r"frame 2 .*an empty line instead of a number",
    ),
}


@pytest.mark.parametrize("case", CUT)
@pytest.mark.parametrize("compressed", [False, True])
def test_truncated_file(tmp_path, case, compressed):
    cut, message = CUT[case]
    text = cut(text_of(tmp_path))
    path = tmp_path / ("bad.xyz.gz" if compressed else "bad.xyz")
    if compressed:
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    if case == "within a frame":
        message = r"frame 2 .*"
    with pytest.raises(InputError, match=message):
        read(path)
    with pytest.warns(UserWarning, match="1 frames skipped, 2 read"):
        assert len(read(path, skip_bad=True)) == 2


def test_truncated_compression(tmp_path):
    complete = gzip.compress(text_of(tmp_path, 200).encode())
    (tmp_path / "a.xyz.gz").write_bytes(complete[: len(complete) // 2])
    with pytest.raises(
        InputError,
        match=r"a.xyz.gz: frame \d+ .*rest of the file cannot be read .* before it are complete",
    ):
        read(tmp_path / "a.xyz.gz")
