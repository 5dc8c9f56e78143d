"""The script that makes the virtual environment: what it says when there is no Python to make it with."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from servers import REPOSITORY

OLD = "#!/bin/sh\n[ $1 = --version ] && echo Python 3.9.1 && exit 0\nexit 1\n"


@pytest.mark.parametrize("named", [True, False], ids=["named", "found"])
def test_a_python_that_is_too_old_is_named_with_the_version_wanted(tmp_path: Path, named: bool) -> None:
    old = tmp_path / "python3"
    old.write_text(OLD)
    old.chmod(0o755)
    # Named, it counts even where a newer one would be found.
    environment = {**os.environ, "PYTHON": str(old)} if named else {"PATH": str(tmp_path)}
    venv = tmp_path / "venv"

    done = subprocess.run(
        ["/bin/sh", REPOSITORY / "scripts" / "environment.sh", venv],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "Anneal needs Python 3.11 or newer" in done.stderr
    assert "Python 3.9.1" in done.stderr
    assert (str(old) in done.stderr) == named
    assert not venv.exists()
