# SPDX-License-Identifier: Apache-2.0
"""Which error a connection that could not be made is, and what to do about it."""

from __future__ import annotations

import base64
import hashlib

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from airflow_provider_dockerbackup.exceptions import ConfigurationError, DockerBackupError, TransientError

_VERIFY = "compare the fingerprint on the host itself (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub)"


def fingerprint(key: paramiko.PKey) -> str:
    """Return a key's fingerprint as OpenSSH shows it: ``SHA256:…``."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode("ascii").rstrip("=")


def explain_connect_error(err: BaseException, where: str) -> DockerBackupError:
    """Return our error for one that connecting raised; to be raised ``from err``.

    :param err: what paramiko, the socket or a client factory raised.
    :param where: the host, for the message.
    """
    if isinstance(err, DockerBackupError):
        return err
    if isinstance(err, paramiko.BadHostKeyException):
        return ConfigurationError(
            f"{where}: the host key changed from {fingerprint(err.expected_key)} to {fingerprint(err.key)}. Somebody "
            f"may be in between; {_VERIFY}, then replace the key in known_hosts (ssh-keygen -R) or in the connection's "
            "host_key"
        )
    if isinstance(err, paramiko.AuthenticationException):
        return _explain_authentication(err, where)
    if isinstance(err, paramiko.SSHException):
        return _explain_ssh(err, where)
    if isinstance(err, (OSError, EOFError)):
        return _explain_system(err, where)
    return ConfigurationError(f"{where}: cannot connect: {type(err).__name__}: {err}; see the connection's settings")


def _explain_system(err: OSError | EOFError, where: str) -> DockerBackupError:
    if isinstance(err, (FileNotFoundError, PermissionError)) and err.filename:
        return ConfigurationError(f"{where}: cannot read {err.filename}: {err.strerror}; correct its path or its mode")
    reason = str(err) or type(err).__name__
    return TransientError(f"{where}: cannot connect: {reason}; see whether host and port are right and sshd runs")


def _explain_authentication(err: paramiko.AuthenticationException, where: str) -> DockerBackupError:
    if "timeout" in str(err).lower():
        return TransientError(f"{where}: logging in took too long ({err}); try again")
    if isinstance(err, paramiko.PasswordRequiredException):
        return ConfigurationError(f"{where}: the private key is encrypted; give its passphrase or add it to ssh-agent")
    return ConfigurationError(
        f"{where}: login refused ({err}); see user name and key, and the user's authorized_keys on the host"
    )


def _explain_ssh(err: paramiko.SSHException, where: str) -> DockerBackupError:
    text = str(err) or type(err).__name__
    if "not found in known_hosts" in text:
        return ConfigurationError(
            f"{where}: the host key is not known ({text}); get it with ssh-keyscan, {_VERIFY}, "
            "then add it to known_hosts or to the connection's host_key"
        )
    if isinstance(err, IncompatiblePeer):
        return ConfigurationError(f"{where}: no algorithm in common with sshd ({text}); CBC and 3DES are not offered")
    if "No authentication methods available" in text or "private key" in text.lower():
        return ConfigurationError(f"{where}: no usable key or password ({text}); give one, or start ssh-agent")
    return TransientError(f"{where}: cannot connect: {text}; sshd may be busy (MaxStartups) or restarting, try again")
