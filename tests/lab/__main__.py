# SPDX-License-Identifier: Apache-2.0
"""The lab from the command line: ``python -m tests.lab up|down|status|env --dir DIR``."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.lab.engines import SUITES, Engine
from tests.lab.errors import LabError
from tests.lab.images import build_app, build_committed, build_large, run_app_container
from tests.lab.lab import Lab, LabHost


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and give the exit code: 0 done, 1 not done, with the reason on standard error.

    :param arguments: command line without the program; None takes the process's.
    """
    options = _parser().parse_args(arguments)
    verbs = {"up": _up, "down": _down, "status": _status, "env": _env}
    try:
        return verbs[options.verb](options)
    except (LabError, ValueError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description="Real sshd and dockerd on loopback.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    texts = {
        "up": "start the lab, or say that it runs",
        "down": "stop it and remove what it wrote, also after a crash",
        "status": "say what runs and how to reach it",
        "env": "print Airflow's connections as export lines for a shell",
    }
    for verb, text in texts.items():
        one = verbs.add_parser(verb, help=text)
        one.add_argument("--dir", type=Path, required=True, help="the lab's directory")
        if verb == "up":
            one.add_argument("--hosts", type=int, default=1, help="how many Docker hosts (default 1)")
            one.add_argument("--engine", choices=sorted(SUITES), help="engine (default: the installed one)")
            one.add_argument("--containerd", action="store_true", help="containerd image store (26 and 28)")
            one.add_argument(
                "--images",
                choices=("small", "all", "none"),
                default="small",
                help="small: an application, its committed twin and a running container; all: and one of 512 MB",
            )
    return parser


def _up(options: argparse.Namespace) -> int:
    engine = Engine(version=options.engine, containerd_store=options.containerd)
    lab = Lab.open(options.dir)
    if lab is not None and lab.running:
        if (lab.engine, len(lab.hosts)) != (engine, options.hosts):
            raise LabError(
                f"a lab of {len(lab.hosts)} host(s) with engine {lab.engine} runs in {options.dir}; run `down` first"
            )
        print("the lab runs already")
    else:
        begun = time.monotonic()
        lab = Lab.start(options.dir, hosts=options.hosts, engine=engine)
        print(f"the lab is up after {time.monotonic() - begun:.1f} s")
    for host in lab.hosts:
        _fill(host, images=options.images)
    _describe(lab)
    return 0


def _fill(host: LabHost, *, images: str) -> None:
    if images == "none":
        return
    begun = time.monotonic()
    build_app(host.daemon)
    build_committed(host.daemon)
    if images == "all":
        build_large(host.daemon)
    run_app_container(host.daemon)
    print(f"{host.name} has its images after {time.monotonic() - begun:.1f} s")


def _down(options: argparse.Namespace) -> int:
    lab = Lab.open(options.dir)
    if lab is None:
        print(f"no lab in {options.dir}")
        return 0
    lab.stop()
    print("the lab is down")
    return 0


def _status(options: argparse.Namespace) -> int:
    lab = Lab.open(options.dir)
    if lab is None:
        print(f"no lab in {options.dir}")
        return 1
    for part, running in lab.parts.items():
        print(f"{part}: {'runs' if running else 'does not run'}")
    _describe(lab)
    return 0 if lab.running else 1


def _describe(lab: Lab) -> None:
    for host in lab.hosts:
        print(f"{host.name}: ssh -F {shlex.quote(str(lab.ssh_config_path))} {host.name} docker images")
        print(f"{host.name}: port {host.ssh_port}, {host.daemon.docker_host}, connection {host.connection_id}")
    if lab.state.given_docker_host is None:
        print(f"test daemon: {lab.test_daemon.docker_host}")
    else:
        print("test daemon: missing, for without root the lab cannot start daemons; it uses the one that runs")


def _env(options: argparse.Namespace) -> int:
    lab = Lab.open(options.dir)
    if lab is None:
        raise LabError(f"no lab in {options.dir}; start it with `up` first")
    for name, value in lab.airflow_environment().items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
