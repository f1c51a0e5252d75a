"""`make lock`: write the locks and environment.yml from pyproject.toml.

The locks are requirements.txt, install/torch-cuda.txt and install/gpu.txt.

uv resolves once for Python 3.11 to 3.13 on Linux and macOS, and takes what is locked already where it still fits. The
files are plain ones for pip, with the hashes of every file that the package index has, and name no index.
install/torch-cpu.txt is not written here: the index of those builds is another one.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.markers import Marker

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
# What torch's CUDA build asks for besides: torch-cuda.txt.
CUDA = re.compile(r"(nvidia|cuda)-.*|triton")
LOCKS = ("requirements.txt", "install/torch-cuda.txt", "install/gpu.txt")
MAKE = (
    "# Written by `make lock` from pyproject.toml: exact versions, all that they need in turn, and the hashes of their "
    "files.\n"
)
HEADERS = {
    "requirements.txt": MAKE
    + "# pip install --no-deps -r requirements.txt; --no-deps leaves out ray, which RecBole names and nothing here "
    "uses\n",
    "install/torch-cuda.txt": MAKE
    + "# What torch's CUDA build for Linux needs besides: pip install --no-deps -r install/torch-cuda.txt\n",
    "install/gpu.txt": MAKE
    + "# What the extra `gpu` adds to requirements.txt: pip install --no-deps -r install/gpu.txt\n",
}
ENVIRONMENT = """\
# `conda env create -f environment.yml`, and for each rule `snakemake --cores all --software-deployment-method conda`.
# The packages are those of requirements.txt, the one lock, written out: Snakemake copies this file alone, so that it
# can't name another (tests/test_environment.py compares them). conda's pip can't leave out ray, which RecBole names: it
# and what it needs close the list. Written by `make lock`.
name: r2ec-bench
channels: [conda-forge]
dependencies:
  - python=3.11
  - pip
  - pip:
"""


def compiled(requirements: list[str], folder: Path, *options: str) -> dict[str, str]:
    """uv's resolution: the lines of each package, by name, its marker left out where it holds on all of our
    machines."""
    uv = shutil.which("uv")
    if uv is None:
        sys.exit("error: no uv on the PATH, which resolves the lock; pip install uv")
    (folder / "wanted.in").write_text("\n".join(requirements) + "\n")
    (folder / "locked.txt").write_text("\n".join((ROOT / lock).read_text() for lock in LOCKS if (ROOT / lock).exists()))
    command = [
        uv,
        "pip",
        "compile",
        "wanted.in",
        "--quiet",
        "--no-config",
        "--universal",
        "--python-version",
        PYTHONS[0],
    ]
    command += ["--generate-hashes", "--no-annotate", "--no-header", "--output-file", "locked.txt", *options]
    if subprocess.run(command, cwd=folder, check=False).returncode:
        sys.exit("error: uv found no versions that go together (above)")
    packages = {}
    for entry in re.split(r"\n(?=\S)", (folder / "locked.txt").read_text().strip()):
        name = entry.partition("==")[0]
        if kept := for_our_machines(entry):
            packages[name] = kept
    return packages


def for_our_machines(entry: str) -> str | None:
    """An entry without a marker that holds everywhere; None for one that holds nowhere.

    >>> for_our_machines("a==1 ; sys_platform != 'win32' \\\\\\n    --hash=sha256:0")
    'a==1 \\\\\\n    --hash=sha256:0'
    >>> for_our_machines("a==1 ; sys_platform == 'win32' \\\\\\n    --hash=sha256:0") is None
    True
    """
    line, _, hashes = entry.partition(" \\\n")
    pin, _, marker = line.partition(" ; ")
    if marker:
        machines = [
            {
                "python_version": python,
                "python_full_version": f"{python}.0",
                "sys_platform": system,
                "platform_machine": machine,
                "platform_python_implementation": "CPython",
            }
            for python in PYTHONS
            for system, machine in MACHINES
        ]
        holds = [Marker(marker).evaluate(one) for one in machines]  # type: ignore[arg-type]  # dict[str, str] it is
        if not any(holds):
            return None
        if all(holds):
            line = pin
    return f"{line} \\\n{hashes}"


def pin_of(entry: str) -> str:
    """The line of an entry without its hashes."""
    return entry.partition(" \\\n")[0]


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = project["project"]["dependencies"] + extras["dev"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "overrides.txt").write_text("\n".join(project["tool"]["uv"]["override-dependencies"]) + "\n")
        plain = compiled(wanted, folder, "--override", "overrides.txt")
        gpu = compiled(wanted + extras["gpu"], folder, "--override", "overrides.txt")
        conda = compiled(wanted, folder)
    cuda = {name for name in plain if CUDA.fullmatch(name)}
    files = {
        "requirements.txt": [entry for name, entry in plain.items() if name not in cuda],
        "install/torch-cuda.txt": [plain[name] for name in sorted(cuda)],
        "install/gpu.txt": [entry for name, entry in gpu.items() if name not in plain],
    }
    for file, entries in files.items():
        (ROOT / file).write_text(HEADERS[file] + "\n".join(entries) + "\n")
    pins = [pin_of(entry) for entry in files["requirements.txt"]]
    pins += [pin_of(entry) for name, entry in conda.items() if name not in plain]
    (ROOT / "environment.yml").write_text(ENVIRONMENT + "".join(f'      - "{pin}"\n' for pin in pins))
    print(f"{len(files['requirements.txt'])} packages in requirements.txt; see `git diff`")


if __name__ == "__main__":
    main()
