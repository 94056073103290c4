# SPDX-License-Identifier: Apache-2.0
"""Values of parameters that a template may have rendered to text."""

from __future__ import annotations

from airflow_provider_dockerbackup.exceptions import ConfigurationError


def flag(name: str, value: bool | str) -> bool:
    """Return a flag.

    :raises ConfigurationError: names the parameter.
    """
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in {"true", "false"}:
        return text == "true"
    raise ConfigurationError(f"{name}: expected true or false, got {value!r}")


def whole_number(name: str, value: int | str) -> int:
    """Return a whole number.

    :raises ConfigurationError: names the parameter.
    """
    if not isinstance(value, bool):
        try:
            return int(value)
        except (TypeError, ValueError):
            pass
    raise ConfigurationError(f"{name}: expected a whole number, got {value!r}")
