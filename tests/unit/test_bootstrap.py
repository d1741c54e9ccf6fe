"""What bootstrap does where it can do nothing: one clear sentence, and exit code 3."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import places


def machine(folder: Path, *programs: str) -> dict[str, str]:
    """Return the environment of a machine that has these programs and nothing else."""
    for name in programs:
        # the interpreter itself: on PATH there may be a shim that needs more than itself
        found = Path(sys.executable).resolve() if name == "python3" else shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return {"PATH": str(folder), "HOME": str(folder), "TMPDIR": str(folder)}


def bootstrap(environment: dict[str, str], cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(places.SHIPPED / "bootstrap", cwd)
    return subprocess.run(
        ["/bin/sh", "./bootstrap", *arguments],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    if not (places.SHIPPED / "bootstrap").exists():
        pytest.skip("not a checkout")
    folder = tmp_path / "checkout"
    folder.mkdir()
    return folder


def test_without_python_it_says_so_and_exits_3(tmp_path: Path, checkout: Path) -> None:
    (tmp_path / "bin").mkdir()
    done = bootstrap(machine(tmp_path / "bin", "dirname", "mktemp", "rm", "id", "tail", "sed"), checkout, "report")
    assert done.returncode == 3
    assert (
        done.stderr.strip().splitlines()[-1] == "bootstrap: Python 3.11 or newer is needed, and none was found on PATH"
    )


def test_without_a_package_index_it_says_so_and_exits_3(tmp_path: Path, checkout: Path) -> None:
    (tmp_path / "bin").mkdir()
    environment = machine(tmp_path / "bin", "dirname", "mktemp", "rm", "id", "tail", "sed", "python3")
    environment |= {
        "PIP_INDEX_URL": "http://127.0.0.1:1/simple",
        "PIP_NO_INDEX": "1",
        "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": "/dev/null",
    }
    done = bootstrap(environment, checkout, "report")
    assert done.returncode == 3
    assert "nox could not be installed with pip" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
