# SPDX-License-Identifier: Apache-2.0
"""Wait until an image is another one than its newest backup holds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypedDict

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_dockerbackup.core.identity import ImageIdentity, held_by
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.reference import ImageReference
from airflow_provider_dockerbackup.exceptions import ConfigurationError, NotFoundError, TransientError
from airflow_provider_dockerbackup.operators.base import retries_stopped_when_permanent
from airflow_provider_dockerbackup.operators.rendered import flag

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_dockerbackup.hooks.docker_backup import DockerBackupHook
    from airflow_provider_dockerbackup.triggers.image_changed import ImageChangedEvent


class ImageChange(TypedDict):
    """What the sensor found.

    ``reason`` is ``changed``, or ``no backup`` when there is none that stands for the image; ``backup_id`` is that of
    the newest one, None when there is none.
    """

    host: str
    kind: str
    source: str
    image_id: str
    backup_id: str | None
    reason: Literal["changed", "no backup"]


class DockerImageChangedSensor(BaseSensorOperator):
    """Wait until the image that a reference stands for is not the one that its newest backup holds.

    It succeeds when a save would make a backup: also when there is none yet, or the newest one lost bytes or failed its
    last verification.

    :param image: reference ``name[:tag][@digest]``. (templated)
    :param repository: URL of the repository. (templated)
    :param repository_conn_id: connection with the storage's credentials, where it needs any. (templated)
    :param wait_for_missing: wait also for an image that is not on the host; else that is an error. (templated)
    :param deferrable: whether the triggerer waits, without a worker.
    :param dockerbackup_conn_id: connection of type ``dockerbackup`` or ``ssh`` that reaches the host. (templated)
    :return: an :class:`ImageChange`.
    """

    template_fields: Sequence[str] = (
        "image",
        "repository",
        "repository_conn_id",
        "wait_for_missing",
        "dockerbackup_conn_id",
    )
    ui_color = "#dbeafe"

    def __init__(
        self,
        *,
        image: str,
        repository: str,
        repository_conn_id: str | None = None,
        wait_for_missing: bool | str = False,
        deferrable: bool | None = None,
        dockerbackup_conn_id: str = "dockerbackup_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image = image
        self.repository = repository
        self.repository_conn_id = repository_conn_id
        self.wait_for_missing = wait_for_missing
        self.deferrable = deferrable
        self.dockerbackup_conn_id = dockerbackup_conn_id

    def execute(self, context: Context) -> Any:
        """Look; leave the waiting to the triggerer, or look again and again."""
        if not self._defers:
            return super().execute(context)
        return self._look_or_wait(deadline=time.time() + self.timeout)

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        with retries_stopped_when_permanent():
            change, _ = self._look()
        return PokeReturnValue(is_done=change is not None, xcom_value=change)

    def execute_complete(self, context: Context, event: ImageChangedEvent) -> ImageChange:
        """Look again once the trigger has fired: what it saw may be over, or be backed up by now."""
        with retries_stopped_when_permanent():
            if event["status"] == "refused":
                raise ConfigurationError(f"the triggerer cannot wait for image {self.image}: {event['problem']}")
            if event["status"] == "unreachable":
                raise TransientError(f"the triggerer lost the host of image {self.image}: {event['problem']}")
        if event["status"] == "timeout":
            raise AirflowSensorTimeout(
                f"image {self.image} is what its newest backup holds, and stayed so for {self.timeout:g} s"
            )
        return self._look_or_wait(deadline=event["deadline"])

    def on_kill(self) -> None:
        """Cut the connection to the host."""
        if "hook" in self.__dict__:
            self.hook.kill()

    @cached_property
    def hook(self) -> DockerBackupHook:
        """The hook that reaches the host."""
        from airflow_provider_dockerbackup.hooks.docker_backup import DockerBackupHook

        return DockerBackupHook(dockerbackup_conn_id=self.dockerbackup_conn_id)

    def _look_or_wait(self, *, deadline: float) -> ImageChange:
        with retries_stopped_when_permanent():
            change, held = self._look()
            if change is None:
                self._wait(held, deadline=deadline)
            return change

    def _look(self) -> tuple[ImageChange | None, ImageIdentity | None]:
        """Return what changed, None for nothing; and the identity that is backed up."""
        reference = str(ImageReference.parse(self.image))
        source = Source(host=self.hook.settings.host_name, kind=SourceKind.IMAGE, name=reference)
        backup_id, held = self._newest(source)
        with self.hook.docker_host() as host:
            try:
                image = host.inspect_image(reference)
            except NotFoundError:
                if flag("wait_for_missing", self.wait_for_missing):
                    self.log.info("%s: not there", source)
                    return None, held
                raise
        if held is not None and held.is_of(image):
            self.log.info("%s: backup %s holds it", source, backup_id)
            return None, held
        reason: Literal["changed", "no backup"] = "no backup" if held is None else "changed"
        self.log.info("%s: %s (image %s, newest backup %s)", source, reason, image.id, backup_id)
        change = ImageChange(
            host=source.host,
            kind=source.kind.value,
            source=source.name,
            image_id=image.id,
            backup_id=backup_id,
            reason=reason,
        )
        return change, held

    def _newest(self, source: Source) -> tuple[str | None, ImageIdentity | None]:
        from airflow_provider_dockerbackup.hooks.storage import existing_repository

        try:
            repository = existing_repository(self.repository, conn_id=self.repository_conn_id)
        except NotFoundError:
            # The first save makes it.
            return None, None
        newest = repository.catalog.newest(source)
        return (None, None) if newest is None else (newest.backup_id, held_by(newest))

    def _wait(self, held: ImageIdentity | None, *, deadline: float) -> NoReturn:
        """Leave the waiting to the triggerer, if it can reach the host as we do."""
        from airflow_provider_dockerbackup.hooks.async_ssh import refuse_unless_for_triggers
        from airflow_provider_dockerbackup.hooks.connection import connection_of
        from airflow_provider_dockerbackup.triggers.image_changed import ImageChangedTrigger

        refuse_unless_for_triggers(self.hook, connection_of(self.dockerbackup_conn_id).extra_dejson)
        self.defer(
            trigger=ImageChangedTrigger(
                conn_id=self.dockerbackup_conn_id,
                image=str(ImageReference.parse(self.image)),
                ids=sorted(held.ids) if held else (),
                diff_ids=held.diff_ids if held else (),
                deadline=deadline,
                poll_seconds=self.poke_interval,
                wait_for_missing=flag("wait_for_missing", self.wait_for_missing),
            ),
            method_name="execute_complete",
        )

    @property
    def _defers(self) -> bool:
        if self.deferrable is not None:
            return self.deferrable
        return bool(conf.getboolean("operators", "default_deferrable", fallback=False))
