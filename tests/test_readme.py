# SPDX-License-Identifier: Apache-2.0
"""What README.md shows is run: its DAG, and every console line but those listed here with the reason."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.lab.lab import Lab, LabHost

README = Path(__file__).parent.parent / "README.md"
BIN = Path(sys.executable).parent

NOT_RUN = {
    "pip install 'airflow-provider-dockerbackup[s3]'": "the package that is tested is installed already",
    "make demo": "makes an environment of its own, which takes minutes; tests/test_dags.py runs the same DAGs",
    "make test": "runs this test",
}

_FENCE = re.compile(r"^```(?P<language>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_BACKUP_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command of a console block.

    :param line: what stands behind ``$``, continuation lines joined, comments left out.
    :param output: what the README shows below it.
    """

    line: str
    output: str


@dataclass(slots=True, kw_only=True)
class Story:
    """What came of running the README from top to bottom.

    :param outputs: standard output of each command that was run, by its line.
    """

    outputs: dict[str, str] = field(default_factory=dict)


def blocks(language: str) -> list[str]:
    """Return the bodies of the README's fences in one language."""
    found = _FENCE.finditer(README.read_text(encoding="utf-8"))
    return [each["body"] for each in found if each["language"] == language]


def commands() -> list[Command]:
    """Return every command of the README's console blocks, in order."""
    found = []
    for body in blocks("console"):
        for text in re.split(r"^\$ ", body.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
            line, _, output = text.partition("\n")
            found.append(Command(line=re.sub(r"\s+#\s.*", "", line).strip(), output=output))
    return found


def shape(text: str) -> str:
    """Return ``text`` without what differs from run to run: ids, digests, numbers, units and widths of columns."""
    text = _BACKUP_ID.sub("ID", text)
    text = re.sub(r"sha256:[0-9a-f]{64}", "DIGEST", text)
    text = re.sub(r"\b\d+(?:\.\d+)? (?:B|kB|MB|GB)(?=\s)", "SIZE", text)
    text = re.sub(r"\b\d+ (?:s|min|h|d)$", "AGE", text, flags=re.MULTILINE)
    text = re.sub(r"\b\d+(?:\.\d+)?\b", "N", text)
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())


class Machine:
    """The machine that the README takes for granted: an Airflow of its own, and the lab's hosts under its names.

    :param home: an empty folder that becomes the user's home.
    """

    def __init__(self, home: Path, lab: Lab) -> None:
        source, target = lab.hosts
        self._exports: list[str] = []
        self._newest = ""
        self.repository = home / "dockerbackup"
        (home / "dags").mkdir()
        (home / ".ssh").mkdir(mode=0o700)
        known = source.known_hosts_path.read_text("utf-8") + target.known_hosts_path.read_text("utf-8")
        (home / ".ssh/known_hosts").write_text(known, encoding="utf-8")
        names = {source: "web1", target: "web2"}
        configs = (
            host.ssh_config_path.read_text("utf-8").replace(f"Host {host.name}\n", f"Host {name}\n")
            for host, name in names.items()
        )
        (home / ".ssh/config").write_text("\n".join(configs), encoding="utf-8")
        self._replacements = {
            "web1.example.com": f"{source.address} --conn-port {source.ssh_port}",
            "--conn-login backup": f"--conn-login {source.user}",
            "/etc/airflow/id_ed25519": str(source.private_key_path),
            "/srv/dockerbackup": str(self.repository),
        }
        unwanted = ("AIRFLOW_CONN_", "AWS_", "DOCKER_")
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)} | {
            "HOME": str(home),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "AIRFLOW_HOME": str(home / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            # Where `docker load` loads to.
            "DOCKER_HOST": target.daemon.docker_host,
        }
        self._dags = home / "dags"

    def replace(self, written: str, real: str) -> None:
        """Put something in the place of what stands in a command."""
        self._replacements[written] = real

    def write_dag(self, body: str) -> None:
        """Put the README's DAG into the DAGs folder."""
        (self._dags / "readme.py").write_text(self._replaced(body), encoding="utf-8")

    def run(self, line: str) -> str:
        """Run one command as a shell does and return its standard output; what it exports stays for the next."""
        line = self._replaced(line)
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", "\n".join([*self._exports, line])],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        if line.startswith("export "):
            self._exports.append(line)
        if found := _BACKUP_ID.search(done.stdout):
            self._newest = found[0]
        return done.stdout

    def _replaced(self, text: str) -> str:
        for written, real in self._replacements.items():
            text = text.replace(written, real)
        # The id, or its beginning, of the backup that the run before made.
        return re.sub(r"\b\d{8}T\d{6}Z-[0-9a-f]{2,16}", self._newest or "NO BACKUP YET", text)


@pytest.fixture(scope="module")
def source_image(lab: Lab) -> Iterator[None]:
    """The image ``app:1``, which has no other name, on the first host."""
    daemon = lab.hosts[0].daemon
    daemon.docker("build", "--quiet", "--tag", "app:1", "-", input=b"FROM lab/app:1\nLABEL readme=1\n")
    yield
    daemon.docker("image", "rm", "app:1")


@pytest.fixture(scope="module")
def story(lab: Lab, source_image: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """The README, run from top to bottom."""
    home = tmp_path_factory.mktemp("readme")
    machine = Machine(home, lab)
    machine.run("airflow db migrate")
    (dag,) = blocks("python")
    machine.write_dag(dag)
    told = Story()
    try:
        for command in commands():
            if command.line not in NOT_RUN:
                told.outputs[command.line] = machine.run(command.line)
        yield told
    finally:
        shutil.rmtree(home)
        remove_images(lab.hosts[1])


def remove_images(host: LabHost) -> None:
    """Leave a host as empty as it was."""
    for image in host.daemon.docker("image", "ls", "-q", "--no-trunc").stdout.decode().split():
        host.daemon.docker("image", "rm", "-f", image, check=False)


def test_every_console_line_is_run_or_listed_with_the_reason(story: Story) -> None:
    """No line of a console block is only text, and the list of exceptions names nothing that is not there."""
    lines = [command.line for command in commands()]
    assert len(lines) == len(set(lines))
    assert set(lines) == set(story.outputs) | set(NOT_RUN)
    assert all(len(shlex.split(line)) > 1 for line in lines)


def test_shown_output_is_what_the_commands_print(story: Story) -> None:
    """Where the README shows output, a real run prints the same but for ids, digests, numbers and widths."""
    shown = {each.line: each.output for each in commands() if each.output.strip() and each.line not in NOT_RUN}
    assert len(shown) >= 3
    for line, output in shown.items():
        assert shape(story.outputs[line]) == shape(output), line


def test_the_backup_that_is_listed_is_verified(story: Story) -> None:
    """The catalog shows the one backup that the README's DAG made, verified."""
    _, row = story.outputs["dockerbackup list"].strip().splitlines()
    assert row.split()[:3] == ["web1", "image", "app:1"]
    assert " verified " in row
    assert "not verified" not in row


def test_the_first_screen_has_what_a_newcomer_looks_for() -> None:
    """Install, connection, DAG, restore and the table of versions come before the first heading below the title."""
    first_screen = README.read_text("utf-8").partition("\n## ")[0]
    for needed in ("pip install", "airflow connections add", "with DAG(", "dockerbackup restore", "| Docker Engine"):
        assert needed in first_screen
    (dag,) = blocks("python")
    assert len(dag.strip().splitlines()) <= 15
