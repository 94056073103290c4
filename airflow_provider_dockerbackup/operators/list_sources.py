# SPDX-License-Identifier: Apache-2.0
"""List what there is to back up on a Docker host, for dynamic task mapping."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_dockerbackup.exceptions import ConfigurationError, NotFoundError
from airflow_provider_dockerbackup.operators.base import DockerHostOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

_STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")


class DockerListSourcesOperator(DockerHostOperator):
    """Return the names of images or containers of a Docker host, sorted, to ``expand`` saves or exports over.

    :param kind: ``image`` or ``container``.
    :param labels: ``key`` or ``key=value`` that all must carry. (templated)
    :param names: shell patterns such as ``registry.example.com/*:prod``; what matches any of them is returned. For
        images they match ``name:tag``. (templated)
    :param exclude: shell patterns; what matches any of them is left out. (templated)
    :param states: for containers: states such as ``running`` and ``exited``; none means all. (templated)
    :param allow_empty: return an empty list when nothing matches; else that is an error, because a backup that maps
        over nothing succeeds without backing up anything.
    :param dockerbackup_conn_id: connection of type ``dockerbackup`` or ``ssh`` that reaches the host. (templated)
    :return: image references or container names. Untagged images are left out: they have no name to find them by.
    """

    template_fields: Sequence[str] = ("labels", "names", "exclude", "states", "dockerbackup_conn_id")

    def __init__(
        self,
        *,
        kind: Literal["image", "container"],
        labels: Sequence[str] = (),
        names: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        states: Sequence[str] = (),
        allow_empty: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(multiple_outputs=False, **kwargs)
        self.kind = kind
        self.labels = labels
        self.names = names
        self.exclude = exclude
        self.states = states
        self.allow_empty = allow_empty

    def work(self, context: Context) -> list[str]:
        """List the sources."""
        self._check()
        with self.hook.docker_host() as host:
            if self.kind == "image":
                found = {each.reference for each in host.list_images(labels=self.labels)}
                found = {name for name in found if not name.startswith(("sha256:", "dockerbackup-"))}
            else:
                listed = host.list_containers(labels=self.labels)
                found = {each.name for each in listed if not self.states or each.state in self.states}
                found = {name for name in found if not name.startswith("dockerbackup-")}
            sources = sorted(name for name in found if _matches(name, self.names) and not _matches(name, self.exclude))
            if not sources and not self.allow_empty:
                raise NotFoundError(
                    f"no {self.kind} on {host.name} matches labels {list(self.labels)}, names {list(self.names)}, "
                    f"exclude {list(self.exclude)}, states {list(self.states)}; if that may be, set allow_empty=True"
                )
            self.log.info("%s: %d of %d %ss: %s", host.name, len(sources), len(found), self.kind, ", ".join(sources))
            return sources

    def _check(self) -> None:
        if self.kind not in {"image", "container"}:
            raise ConfigurationError(f"kind: expected image or container, got {self.kind!r}")
        for field in ("labels", "names", "exclude", "states"):
            value = getattr(self, field)
            if isinstance(value, str) or not all(isinstance(item, str) for item in value):
                raise ConfigurationError(f"{field}: expected a list of texts, got {value!r}")
        if not self.names:
            raise ConfigurationError("names: expected at least one pattern, got an empty list; ['*'] means all")
        if unknown := [state for state in self.states if state not in _STATES]:
            raise ConfigurationError(f"states: expected some of {', '.join(_STATES)}, got {unknown[0]!r}")
        if self.states and self.kind == "image":
            raise ConfigurationError("states: images have none; expected an empty list")


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
