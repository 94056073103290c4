# SPDX-License-Identifier: Apache-2.0
"""``make demo``: the example DAGs, run by Airflow against real Docker hosts on this machine.

Starts a lab of two Docker hosts and sshd, runs example DAGs with ``airflow dags test`` (save, export, verify, rotate,
restore; save into a repository that keeps each layer once), shows the catalog, restores a backup to the second host
with the console script, and proves the audit trail. Everything is stopped at the end; the repositories stay in
``.demo/repository`` and ``.demo/layers``, to look at with ``dockerbackup``.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.images import LARGE, build_app, build_committed, build_large, run_app_container, wait_healthy
from tests.lab.lab import Lab

ROOT = Path(__file__).parent.parent.parent
DEMO = ROOT / ".demo"
REPOSITORY = DEMO / "repository"
LAYERS = DEMO / "layers"
BIN = Path(sys.executable).parent
# Of a task's log, what a reader of the demo should see.
_TOLD = (
    *(" as backup ", "passed level", "restored to", "committed as", "not in this"),
    *("no rule keeps", "newest verified", "keep_last", " kept, ", " are held; "),
)


def main() -> int:
    """Run the demo and return the exit code."""
    shutil.rmtree(DEMO, ignore_errors=True)
    try:
        with Lab.start(DEMO / "lab", hosts=2) as lab:
            _say("building images on Docker host 1 (an application, its committed twin, one of 512 MB)")
            daemon = lab.hosts[0].daemon
            build_app(daemon)
            build_committed(daemon)
            build_large(daemon)
            run_app_container(daemon, name="app")
            wait_healthy(daemon, "app")
            environment = _environment(lab)
            _run_dags(lab, environment)
            _share_layers(lab, environment)
            _restore(lab, environment)
    except LabError as err:
        print(f"demo: {err}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as err:
        print(f"demo: {shlex.join(map(str, err.cmd))} ended with exit code {err.returncode}", file=sys.stderr)
        return 1
    return 0


def _run_dags(lab: Lab, environment: dict[str, str]) -> None:
    _say("making a key that signs audit events, and preparing Airflow's database")
    subprocess.run([BIN / "dockerbackup", "audit", "keygen", DEMO / "audit.key"], check=True)
    _run("airflow", "db", "migrate", environment=environment, quiet=True)
    where = {"repository": f"file://{REPOSITORY}"}
    _dag("example_dockerbackup_images", {**where, "names": ["lab/*"]}, environment)
    _dag("example_dockerbackup_container", {**where, "container": "app"}, environment)
    _run("dockerbackup", "save", "lab/app:1", "--force", *_host(lab), environment=environment)
    policy = {"keep_last": 1, "min_verified": 1}
    _dag("example_dockerbackup_rotate", {**where, "policy": policy}, environment)
    backup_id = _backup_of("lab/app:1", environment)
    _dag("example_dockerbackup_restore", {**where, "backup_id": backup_id}, environment)


def _share_layers(lab: Lab, environment: dict[str, str]) -> None:
    """Save the images into a second repository, where each layer is kept once; then one that changed."""
    where = {"repository": f"file://{LAYERS}"}
    _dag("example_dockerbackup_layers", {**where, "names": ["lab/*"]}, environment)
    daemon = lab.hosts[0].daemon
    made = daemon.docker("create", "--network", "none", LARGE, "/bin/true").stdout.decode().strip()
    daemon.docker("cp", str(ROOT / "README.md"), f"{made}:/changed")
    daemon.docker("commit", "--message", "a small change", made, LARGE)
    daemon.docker("rm", made)
    _say(f"a small change in {LARGE}, and the same DAG again: only what is new comes")
    _dag("example_dockerbackup_layers", {**where, "names": ["lab/*"]}, environment)
    _run("dockerbackup", "list", "--repository", str(LAYERS), environment=environment)


def _restore(lab: Lab, environment: dict[str, str]) -> None:
    target = lab.hosts[1]
    _say("the catalog")
    _run("dockerbackup", "list", environment=environment)
    backup_id = _backup_of("lab/app:1", environment)
    command = ["dockerbackup", "restore", backup_id, "--host", target.name, "--recorded-tags"]
    command += ["--ssh-config", str(target.ssh_config_path)]
    _say("restoring lab/app:1 to Docker host 2, which has no image yet; the exact command:")
    print(f"  export DOCKERBACKUP_REPOSITORY={environment['DOCKERBACKUP_REPOSITORY']}\n  {shlex.join(command)}\n")
    _run(*command, environment=environment)
    print(target.daemon.docker("images").stdout.decode())
    _say("what happened, and the proof that nobody edited the story")
    _run("dockerbackup", "audit", "checkpoint", environment=environment)
    _run("dockerbackup", "audit", "log", "--type", "backup.", environment=environment)
    _run("dockerbackup", "audit", "verify", "--public-key", f"{DEMO}/audit.key.pub", environment=environment)
    _say("the audit report, also as a page: .demo/report.html")
    report = ["dockerbackup", "audit", "report", "--public-key", f"{DEMO}/audit.key.pub"]
    report += ["--host", lab.hosts[0].name, "--ssh-config", str(lab.hosts[0].ssh_config_path)]
    _run(*report, "--format", "html", "--output", str(DEMO / "report.html"), environment=environment)
    _run(*report, environment=environment)
    _say(f"done; look around with: {BIN / 'dockerbackup'} list --repository {REPOSITORY}")


def _host(lab: Lab) -> tuple[str, ...]:
    """Return the options by which the command reaches Docker host 1."""
    host = lab.hosts[0]
    return ("--host", host.name, "--ssh-config", str(host.ssh_config_path))


def _dag(dag_id: str, conf: dict[str, object], environment: dict[str, str]) -> None:
    _say(f"airflow dags test {dag_id} --conf {json.dumps(conf)}")
    began = time.monotonic()
    log = DEMO / f"{dag_id}.log"
    with log.open("wb") as output:
        done = subprocess.run(
            [BIN / "airflow", "dags", "test", dag_id, "--conf", json.dumps(conf)],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    if done.returncode != 0:
        print("\n".join(lines[-60:]))
        raise subprocess.CalledProcessError(done.returncode, done.args)
    for line in lines:
        if any(mark in line for mark in _TOLD):
            # Between Airflow's time and level and its logger's name.
            print("  " + line.partition("] ")[2].partition(" [airflow")[0].strip())
    print(f"  succeeded in {time.monotonic() - began:.0f} s, log in {log.relative_to(ROOT)}")


def _backup_of(source: str, environment: dict[str, str]) -> str:
    listed = subprocess.run(
        [BIN / "dockerbackup", "list", "--source", source, "--json"], env=environment, capture_output=True, check=True
    )
    return str(json.loads(listed.stdout)[0]["backup_id"])


def _environment(lab: Lab) -> dict[str, str]:
    home = DEMO / "airflow"
    return {
        **os.environ,
        **lab.airflow_environment(),
        "AIRFLOW_CONN_DOCKERBACKUP_DEFAULT": lab.hosts[0].airflow_connection(),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DOCKERBACKUP__SIGNING_KEY_FILE": str(DEMO / "audit.key"),
        "DOCKERBACKUP_REPOSITORY": f"file://{REPOSITORY}",
        "DOCKERBACKUP_SIGNING_KEY": str(DEMO / "audit.key"),
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }


def _run(*command: str, environment: dict[str, str], quiet: bool = False) -> None:
    output = subprocess.DEVNULL if quiet else None
    subprocess.run([BIN / command[0], *command[1:]], env=environment, check=True, stdout=output, stderr=output)


def _say(text: str) -> None:
    print(f"\n=== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
