# SPDX-License-Identifier: Apache-2.0
"""Programs that tests need are installed by one process at a time."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lab import install

# Fails when it runs twice at once, as the real one does, and says when the packages' services would start.
APT_GET = """#!/bin/sh
mkdir PLACE/running || exit 100
[ -x PLACE/policy ] || echo no policy >> PLACE/log
sleep 0.2
case " $* " in
*" install "*)
  echo "$*" >> PLACE/log
  for program; do :; done
  printf '#!/bin/sh\\n' > "PLACE/$program"
  chmod 755 "PLACE/$program"
  ;;
esac
rmdir PLACE/running
"""


@pytest.mark.skipif(not install.is_root(), reason="only root installs")
def test_processes_that_miss_programs_at_once_install_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one has installed no other installs again, and no service starts meanwhile."""
    apt_get = tmp_path / "apt-get"
    apt_get.write_text(APT_GET.replace("PLACE", str(tmp_path)), encoding="ascii")
    apt_get.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(install, "_POLICY", tmp_path / "policy")
    monkeypatch.setattr(install, "_LOCK", tmp_path / "lock")
    names = ["lab-one", "lab-two", "lab-two", "lab-one"]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: install.ensure_programs({name: name}), names))
    told = (tmp_path / "log").read_text(encoding="ascii").splitlines()
    assert sorted(line.split()[-1] for line in told) == ["lab-one", "lab-two"]
    assert not (tmp_path / "policy").exists()
