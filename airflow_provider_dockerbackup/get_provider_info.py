# SPDX-License-Identifier: Apache-2.0
"""What Airflow is told about this provider. Imports nothing: Airflow calls it in every command."""

from __future__ import annotations

from typing import Any

_NAME = "airflow_provider_dockerbackup"
_OPERATORS = (
    "audit",
    "capture",
    "checkpoint",
    "commit",
    "copy",
    "export",
    "fleet_freshness",
    "freshness",
    "garbage_collect",
    "list_due",
    "list_sources",
    "remove",
    "restore",
    "restore_container",
    "rollback",
    "rotate",
    "sample",
    "save",
    "stop",
    "verify",
)


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description by Airflow's ``provider_info.schema.json``."""
    return {
        # Must be the canonical name (PEP 503), or every airflow command fails.
        "package-name": "airflow-provider-dockerbackup",
        "name": "Docker Backup",
        "description": "Scheduled, verified backups of Docker images and containers over SSH.",
        "versions": ["0.1.0"],
        "integrations": [
            {
                "integration-name": "Docker Backup",
                "external-doc-url": "https://docs.docker.com/reference/cli/docker/image/save/",
                "tags": ["software"],
            }
        ],
        "hooks": [{"integration-name": "Docker Backup", "python-modules": [f"{_NAME}.hooks.docker_backup"]}],
        "operators": [
            {
                "integration-name": "Docker Backup",
                "python-modules": [f"{_NAME}.operators.{operator}" for operator in _OPERATORS],
            }
        ],
        "sensors": [{"integration-name": "Docker Backup", "python-modules": [f"{_NAME}.sensors.image_changed"]}],
        "triggers": [
            {
                "integration-name": "Docker Backup",
                "python-modules": [f"{_NAME}.triggers.image_changed", f"{_NAME}.triggers.save_on_host"],
            }
        ],
        "notifications": [f"{_NAME}.notifications.webhook.DockerBackupWebhookNotifier"],
        "cli": [f"{_NAME}.airflow_command.get_commands"],
        "extra-links": [f"{_NAME}.links.backup.BackupLink"],
        "config": {
            "dockerbackup": {
                "description": "Backups of Docker images and containers.",
                "options": _options(),
            }
        },
        "connection-types": [
            {
                "connection-type": "dockerbackup",
                "hook-name": "Docker host (backup over SSH)",
                "hook-class-name": f"{_NAME}.hooks.docker_backup.DockerBackupHook",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema"],
                    "relabeling": {"login": "Username"},
                    "placeholders": {"host": "docker.example.com", "port": "22"},
                },
                "conn-fields": _connection_fields(),
            }
        ],
    }


def _options() -> dict[str, Any]:
    """Return the options of section ``[dockerbackup]`` of Airflow's configuration."""
    return {
        "signing_key_file": _option(
            "File of the Ed25519 private key (PEM, mode 0600) that signs audit events; empty for none. "
            "Every worker needs it. Make one with: dockerbackup audit keygen FILE"
        ),
        "signing_conn_id": _option("Connection whose password is that key, instead of a file; empty for none."),
        "identity_file": _option(
            "File of the private key (age key file, or OpenSSH key without passphrase; mode 0600) that "
            "decrypts archives; empty for none. Only workers that verify, restore or roll back need it."
        ),
        "identity_conn_id": _option(
            "Connection whose password is that private key, instead of a file; empty for none."
        ),
        "archive_host_conn_ids": _option(
            "Connections, separated by commas, of the Docker hosts on which archives lie; tasks that read "
            "or remove such archives find the host in them by its name. A task can name its own instead."
        ),
        "repositories": _option(
            "Repositories that the page 'Image backups' shows, separated by commas: URLs as operators take "
            "them, each with a name before it if wanted. No private key is used.",
            example="main=file:///srv/backups, offsite=s3://aws_default@bucket/prefix",
        ),
        "page_rpo": _option(
            "How old the newest verified backup of a source may be before the page calls it stale.",
            default="36h",
        ),
        "page_rpo_by_source": _option(
            "Other such limits, separated by commas: PATTERN=DURATION, where the shell pattern is of 'host "
            "kind name' or of the name; the first that matches counts.",
            example="db1 *=6h, *:nightly=7d",
        ),
        "page_index_folder": _option(
            "Folder of the page's index on the API server; empty is dockerbackup in Airflow's home. It can "
            "be deleted at any time."
        ),
    }


def _connection_fields() -> dict[str, Any]:
    """Return the form of the connection type, in the order in which it is filled in."""
    return {
        "host_name": _text(
            "Name in the repository",
            "Name under which this host's backups are kept; empty means its address. Do not change it later: backups "
            "under another name belong to another host.",
        ),
        "key_file": _text("Private key file", "Path of the SSH private key on the worker."),
        "private_key": _text("Private key", "The SSH private key itself, PEM, instead of a file.", format="password"),
        "private_key_passphrase": _text("Private key passphrase", "Passphrase of the private key.", format="password"),
        "host_key": _text(
            "Host key",
            "The host's public key, 'ssh-ed25519 AAAA…'; empty means that known_hosts on the worker has it.",
        ),
        "no_host_key_check": {
            "label": "Skip host key verification",
            "description": "Talk to a host whose key is not verified. Anybody on the way can then read and change "
            "backups; every record says so.",
            "schema": {"type": ["boolean", "null"], "default": False},
        },
        "docker_command": _text(
            "Docker command", "How docker is called on the host, such as 'sudo -n docker'.", default="docker"
        ),
        "docker_socket": _text(
            "Docker socket", "Socket of the daemon, 'unix:///path'; empty means the host's own default."
        ),
        "conn_timeout": _seconds("Connect timeout", "Seconds until connecting counts as failed.", 20),
        "first_byte_timeout": _seconds(
            "First-byte timeout",
            "Seconds until the first byte of a stream: Docker spools a whole image before it sends it.",
            1800,
        ),
        "stall_timeout": _seconds("Stall timeout", "Seconds without any data after which a stream is given up.", 120),
        "deadline": _seconds("Deadline", "Seconds that one stream may take as a whole, at most 20 hours.", 21600),
        "max_captures": {
            "label": "Captures at once",
            "description": "How many saves, pushes and exports this host does at once for its SSH user; others wait.",
            "schema": {"type": ["integer", "null"], "default": 2, "minimum": 1, "maximum": 999},
        },
    }


def _text(label: str, description: str, **schema: str) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": ["string", "null"], **schema}}


def _seconds(label: str, description: str, default: int) -> dict[str, Any]:
    return {
        "label": label,
        "description": description,
        "schema": {"type": ["integer", "null"], "minimum": 1, "default": default},
    }


def _option(description: str, *, default: str = "", example: str | None = None) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": "string",
        "example": example,
        "default": default,
    }
