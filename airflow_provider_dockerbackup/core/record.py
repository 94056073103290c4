# SPDX-License-Identifier: Apache-2.0
"""The backup record ``backup.json``: creating it is what commits a backup.

It is create-only. No value of a configuration stands in it, only names and salted HMACs.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, model_validator

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.document import Document, Part, UtcTime
from airflow_provider_dockerbackup.core.host_path import archive_path_on_host, check_host_folder
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.exceptions import IntegrityError

ContainerCapture = Literal["snapshot", "paused", "crash", "stopped"]
Capture = Literal["save", "push", "snapshot", "paused", "crash", "stopped"]
Consistent = Literal["crash", "snapshot", "paused", "stopped", "quiesced"]


class Source(Part):
    """What was backed up, on which host.

    :param host: name of the Docker host in the repository.
    :param name: image reference, or container name.
    """

    host: str
    kind: SourceKind
    name: str

    def __str__(self) -> str:
        """Return ``host image name:tag`` for messages and tables."""
        return f"{self.host} {self.kind.value} {self.name}"

    def is_like(self, *, hosts: Iterable[str], names: Iterable[str]) -> bool:
        """Tell whether its host is like one of some shell patterns, and its name like one of others."""
        return any(fnmatchcase(self.host, each) for each in hosts) and any(
            fnmatchcase(self.name, each) for each in names
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the source of what :meth:`__str__` returned.

        :raises ValueError: when it is anything else.
        """
        host, kind, name = text.split(maxsplit=2)
        return cls(host=host, kind=SourceKind(kind), name=name)


class Engine(Part):
    """The Docker daemon it was taken from."""

    version: str
    api_version: str
    store: Literal["graphdriver", "containerd"]
    storage_driver: str
    os: str
    architecture: str
    engine_id: str


class DocumentFile(Part):
    """A document in the record's folder, such as the container's configuration."""

    name: str
    size_bytes: int
    sha256: str


class HostPlace(Part):
    """Where an archive lies that stays on the Docker host it was taken from.

    :param folder: absolute path there; the file is ``<folder>/<backup id>-<name>``.
    :param document: ``image-<attempt>.json``, or ``rootfs-``, in the record's folder says the same; it goes after the
        archive has gone.
    """

    folder: Annotated[str, AfterValidator(check_host_folder)]
    document: DocumentFile


class ArchiveFile(Part):
    """One file that holds bytes of the backup, in the record's folder or on the Docker host.

    :param size_bytes: size of the uncompressed tar.
    :param stored_size_bytes: size of the file.
    :param stored_sha256: sha256 of the file; absent for archives that are neither compressed nor encrypted, where
        ``content_digest`` covers every byte.
    :param content_digest: digest over the uncompressed tar as ``core.archive`` defines it for this kind of archive; of
        one on a host, where nobody scanned it, its sha256.
    :param on_host: where it lies, if not in the record's folder.
    """

    name: str
    compression: Compression
    size_bytes: int
    stored_size_bytes: int
    stored_sha256: str | None = None
    content_digest: str
    on_host: HostPlace | None = None


class Blob(Part):
    """One blob of the repository, named by its digest."""

    digest: str
    size_bytes: int


class LayerBlob(Part):
    """The blob that holds a layer, compressed with zstd.

    :param diff_id: ``sha256:<hex>`` of the uncompressed layer; in an encrypted repository what stands for it, see
        :meth:`~airflow_provider_dockerbackup.core.repository.Repository.layer_name`.
    :param digest: of the blob, as it is stored.
    :param size_bytes: size of the uncompressed layer.
    :param stored_size_bytes: size of the blob.
    """

    diff_id: str
    digest: str
    size_bytes: int
    stored_size_bytes: int


class BlobSet(Part):
    """Where a backup's bytes are in a repository of layout ``layers``.

    :param manifest: the OCI manifest that names configuration and layers.
    :param layers: lowest first.
    :param documents: the files in the record's folder that make it an OCI image layout.
    :param size_bytes: length of the archive as it is read back, see ``core.archive.hybrid``; of a container's backup,
        of the exported tar.
    :param received_bytes: what the host sent for it.
    :param new_bytes: what its new blobs take.
    """

    manifest: Blob
    config: Blob
    layers: tuple[LayerBlob, ...]
    documents: tuple[DocumentFile, ...]
    size_bytes: int
    received_bytes: int
    new_bytes: int

    @property
    def folder(self) -> str:
        """Name of the OCI image layout in the record's folder."""
        return self.documents[0].name.partition("/")[0] if self.documents else ""

    @property
    def sizes(self) -> dict[str, int]:
        """Size of each blob by its digest."""
        documents = {each.digest: each.size_bytes for each in (self.manifest, self.config)}
        return documents | {each.digest: each.stored_size_bytes for each in self.layers}


class Layer(Part):
    """One layer of an archived image, lowest first.

    :param member: its name in the archive as it is read back.
    :param size_bytes: size of the uncompressed layer.
    :param stored_size_bytes: size of the archive's member.
    """

    diff_id: str
    member: str
    size_bytes: int
    stored_size_bytes: int
    compression: Compression


class History(Part):
    """One step of an image's history, oldest first.

    :param created_by: its instruction, and a variable's or label's name; commands and values are in the archive only.
    """

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class OtherManifest(Part):
    """A manifest that the image's index names beside the image's own.

    :param kind: ``platform`` for the image as it is for another platform, ``attestation`` for what is said of one.
    :param platform: ``os/architecture[/variant]``; empty for an attestation.
    :param whole: whether the host had it and all that it names.
    :param kept: whether that is in the backup.
    """

    digest: str
    kind: Literal["platform", "attestation"]
    platform: str = ""
    whole: bool
    kept: bool


class Image(Part):
    """An image's identity and what the host said of it.

    :param id: the source engine's ``.Id``.
    :param config_digest: sha256 of the configuration: the identity that every engine shares.
    :param known_ids: every digest under which an engine may show this very archive.
    :param others: what stood beside it under the same ID.
    """

    id: str
    config_digest: str
    known_ids: tuple[str, ...]
    diff_ids: tuple[str, ...]
    repo_tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    created: str
    os: str
    architecture: str
    variant: str = ""
    layers: tuple[Layer, ...]
    history: tuple[History, ...]
    others: tuple[OtherManifest, ...] = ()


class Filesystem(Part):
    """A container's exported filesystem.

    :param diff_id: sha256 of the export stream: the only layer of the image it restores to.
    :param tree_digest: canonical digest over every path and its attributes, independent of order; None of one on a
        host, where nobody scanned it, as is ``members``.
    """

    diff_id: str
    tree_digest: str | None = None
    members: int | None = None


class Container(Part):
    """The container that was exported.

    :param image_id: ``.Id`` of the image it was created from.
    :param configuration_file: ``container-<attempt>.json``: its full inspect document and its image's, secret-bearing.
    :param commit_seconds: how long the temporary commit took, as the worker saw it.
    :param pause_seconds: how long the container was paused by us, as its host measured; None when it was not, and in
        older records.
    :param pre_command_seconds: how long the command took that brought the application to rest; None for none.
    """

    id: str
    name: str
    status: str
    image_id: str
    image_reference: str
    created: str
    started_at: str
    finished_at: str
    commit_seconds: float | None = None
    pause_seconds: float | None = None
    pre_command_seconds: float | None = None
    configuration_file: DocumentFile


class Configuration(Part):
    """Names of configuration values with a salted HMAC-SHA256 of each: drift can be proven, nothing leaks.

    :param salt: hex, random for each record.
    :param values: ``Env.PATH`` or ``Cmd`` → hex HMAC of the value's JSON, compact, ASCII, keys sorted.
    """

    salt: str
    values: dict[str, str]


class UncoveredMount(Part):
    """A mount whose content is not in the backup."""

    type: str
    name: str = ""
    destination: str

    def __str__(self) -> str:
        """Return what messages call it: ``volume data at /var/lib/app``; what an image declares has no name."""
        return " ".join(word for word in (self.type, self.name, "at", self.destination) if word)


class FidelityItem(Part):
    """One thing, and what becomes of it; a configuration value by its name alone.

    :param subject: ``layers``, ``history``, ``tags``, ``identity``, ``platforms``, ``attestations``, ``configuration``,
        ``files`` or ``mounts``.
    :param reason: short, empty where there is nothing to explain.
    """

    subject: str
    name: str
    outcome: Literal["kept", "changed", "lost"]
    reason: str = ""


class Fidelity(Part):
    """What a restore from this backup gives back, changes, and does not give back, one by one."""

    items: tuple[FidelityItem, ...] = ()


class BackupRecord(Document):
    """One backup: what it is, whence, and every digest and size needed to prove it whole.

    :param backup_id: ``<UTC time of the run>-<16 hex of the idempotency key>``.
    :param attempt: random name of the try that won; its files carry it.
    :param captured_at: when the bytes were really taken.
    :param capture: how: ``save`` or ``push`` for images; for containers ``snapshot``, ``paused``, ``crash`` or
        ``stopped``.
    :param consistency: how far a container's files agree with each other: ``crash`` when it ran on meanwhile,
        ``snapshot`` or ``paused`` when they are of one moment, ``stopped`` when nothing ran, ``quiesced`` when a
        command in the container also brought the application to rest; None for images, and in older records.
    :param access: how the host was reached: user, address, host key fingerprint.
    :param actor: who did it: DAG run or user, and software versions.
    :param archive: the file that holds the bytes, in layout ``archive``.
    :param blobs: the blobs that hold the bytes, in layout ``layers``; either this or ``archive``.
    :param encryption: of the archive and the container's configuration: ``age``, or ``none``.
    :param recipients: fingerprints of those who can decrypt it.
    :param retention: the source's own retention policy, as its label said then, empty for none; None when nobody
        looked, and in older records.
    :param copied_from: id of the repository that it was copied from; None when it was made in this one.
    """

    backup_id: str
    idempotency_key: str
    attempt: str
    source: Source
    captured_at: UtcTime
    committed_at: UtcTime
    capture: Capture
    consistency: Consistent | None = None
    engine: Engine
    access: dict[str, str]
    actor: dict[str, str]
    archive: ArchiveFile | None = None
    blobs: BlobSet | None = None
    encryption: Literal["none", "age"] = "none"
    recipients: tuple[str, ...] = ()
    retention: str | None = None
    copied_from: str | None = None
    image: Image | None = None
    filesystem: Filesystem | None = None
    container: Container | None = None
    configuration: Configuration
    not_covered: tuple[UncoveredMount, ...] = ()
    fidelity: Fidelity
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _require_one_place(self) -> Self:
        if (self.archive is None) == (self.blobs is None):
            raise ValueError("expected either 'archive' or 'blobs'")
        if self.archive is not None and self.archive.on_host is not None:
            # Refused here, so that nobody is ever sent to another file on a host.
            archive_path_on_host(self.archive.on_host.folder, self.backup_id, self.archive.name)
        return self

    @property
    def archive_file(self) -> ArchiveFile:
        """The file that holds the bytes, in layout ``archive``.

        :raises IntegrityError: when the backup is one of layout ``layers``.
        """
        if self.archive is None:
            raise IntegrityError(f"backup {self.backup_id} lies in blobs, not in an archive")
        return self.archive

    @property
    def size_bytes(self) -> int:
        """Length of the uncompressed archive as it is read back."""
        return self._place.size_bytes

    @property
    def stored_size_bytes(self) -> int:
        """What its files or blobs take; blobs that other backups use as well are counted in full."""
        return self.archive.stored_size_bytes if self.archive is not None else sum(self.blob_sizes.values())

    @property
    def content_digest(self) -> str:
        """Digest that stands for all of its bytes: that of the archive, or of the OCI manifest."""
        return self.archive.content_digest if self.archive is not None else self._blobs.manifest.digest

    @property
    def blob_sizes(self) -> dict[str, int]:
        """Size of each blob of the repository that it needs, by digest."""
        return {} if self.blobs is None else self.blobs.sizes

    @property
    def files(self) -> dict[str, int]:
        """Size of each file in its folder that it needs, by name."""
        files = {each.name: each.size_bytes for each in (self.blobs.documents if self.blobs is not None else ())}
        if self.archive is not None and self.archive.on_host is not None:
            files[self.archive.on_host.document.name] = self.archive.on_host.document.size_bytes
        elif self.archive is not None:
            files[self.archive.name] = self.archive.stored_size_bytes
        if self.container is not None:
            files[self.container.configuration_file.name] = self.container.configuration_file.size_bytes
        return files

    @property
    def path_on_host(self) -> str | None:
        """Absolute path of the archive on the Docker host; None when it is in the repository."""
        if self.archive is None or self.archive.on_host is None:
            return None
        return archive_path_on_host(self.archive.on_host.folder, self.backup_id, self.archive.name)

    @property
    def _place(self) -> ArchiveFile | BlobSet:
        return self.archive if self.archive is not None else self._blobs

    @property
    def _blobs(self) -> BlobSet:
        if self.blobs is None:
            raise IntegrityError(f"the record of backup {self.backup_id} names neither an archive nor blobs")
        return self.blobs

    @property
    def image_ids(self) -> frozenset[str]:
        """Return every digest by which an engine may show the image: as it came, or as it is loaded again."""
        ids = {self.image.config_digest, *self.image.known_ids} if self.image is not None else set()
        if self.blobs is not None and self.encryption == "none":
            ids.add(self.blobs.manifest.digest)  # in a containerd store that was given the blobs themselves
        return frozenset(ids)

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """Return the diff_ids of the image this backup restores to, lowest first."""
        if self.image is not None:
            return self.image.diff_ids
        return (self.filesystem.diff_id,) if self.filesystem is not None else ()
