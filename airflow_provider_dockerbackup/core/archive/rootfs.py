# SPDX-License-Identifier: Apache-2.0
"""One container's filesystem as ``docker export`` writes it: its digests, and the image of one layer it restores as."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_dockerbackup.core.archive.hybrid import PlainLayer, image_archive
from airflow_provider_dockerbackup.core.archive.oci_layout import check_digest
from airflow_provider_dockerbackup.core.archive.tar import MemberKind, TarLimits, TarMember, TarScanner, shown_name
from airflow_provider_dockerbackup.core.document import canonical_json
from airflow_provider_dockerbackup.exceptions import IntegrityError

_NOT_PLAIN = re.compile(r"(?:^|/)\.{0,2}(?:/|$)")
_CONFIG_KEYS = (
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "User",
    "WorkingDir",
    "Labels",
    "Volumes",
    "Healthcheck",
    "StopSignal",
    "Shell",
    "OnBuild",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rootfs:
    """One exported filesystem, read to its end.

    :param diff_id: ``sha256:<hex>`` of the uncompressed stream; the diff_id of the layer it restores as.
    :param size_bytes: length of the uncompressed stream.
    :param tree_digest: canonical digest of the tree, see :class:`RootfsScanner`.
    :param members: number of paths.
    :param files_bytes: sum of the sizes of regular files.
    :param kinds: number of paths of each kind, as :class:`MemberKind` spells it.
    :param capabilities: number of paths with the extended attribute ``security.capability``.
    """

    diff_id: str
    size_bytes: int
    tree_digest: str
    members: int
    files_bytes: int
    kinds: Mapping[str, int] = field(default_factory=dict, compare=False)
    capabilities: int = field(default=0, compare=False)


class RootfsScanner:
    """Reads one ``docker export`` stream; memory grows by about 200 bytes for each path.

    The ``tree_digest`` is ``sha256:`` and the hex SHA-256 over one record for each member, the records sorted as bytes
    (so by path) and each preceded by its length as 8 bytes, big-endian. A record is these fields, UTF-8 with
    undecodable bytes as they are, joined by NUL: path without leading ``./`` and
    trailing ``/`` (``.`` for the root); kind (as
    :class:`MemberKind` spells it); permission bits in octal; uid; gid; size in bytes; modification time in
    nanoseconds; link target; device as ``major:minor`` or nothing; lower-case hex SHA-256 of the content of a file or
    nothing; then, for each extended attribute by name, the name and the hex of its value. Numbers are decimal
    unless said otherwise. It does not depend on the order of members nor on the tar format.

    :param max_total_bytes: length above which the stream is refused; None for any.
    :param max_members: number of members above which it is refused.
    """

    def __init__(self, *, max_total_bytes: int | None = None, max_members: int = 4_000_000) -> None:
        self._stream = hashlib.sha256()
        self._tree = _Tree()
        self._tar = TarScanner(self._tree, limits=TarLimits(members=max_members, total_bytes=max_total_bytes))

    def feed(self, chunk: bytes | memoryview) -> None:
        """Scan the next piece, of any length; 1 MiB is a good one.

        :raises IntegrityError: as soon as a rule is broken.
        """
        self._tar.feed(chunk)
        self._stream.update(chunk)

    def finish(self) -> Rootfs:
        """Return what the filesystem is, once the stream is over.

        :raises IntegrityError: when the tar was cut short, holds nothing, or the same path twice.
        """
        self._tar.finish()
        records = sorted(self._tree.records)
        if not records:
            raise IntegrityError("the exported filesystem is empty; docker export always writes at least /etc and /dev")
        return Rootfs(
            diff_id=f"sha256:{self._stream.hexdigest()}",
            size_bytes=self._tar.total_bytes,
            tree_digest=_tree_digest(records),
            members=len(records),
            files_bytes=self._tree.files_bytes,
            kinds=dict(self._tree.kinds),
            capabilities=self._tree.capabilities,
        )


class _Tree:
    """A member handler that makes one record of each member."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.files_bytes = 0
        self.kinds: Counter[str] = Counter()
        self.capabilities = 0
        self._member: TarMember | None = None
        self._content = hashlib.sha256()

    def begin(self, member: TarMember) -> None:
        self._member = member
        self.kinds[str(member.kind)] += 1
        self.capabilities += any(name == "security.capability" for name, _ in member.xattrs)
        if member.kind is MemberKind.FILE:
            self._content = hashlib.sha256()
            self.files_bytes += member.size_bytes

    def data(self, chunk: memoryview) -> None:
        self._content.update(chunk)

    def end(self) -> None:
        if self._member is not None:
            content = self._content.hexdigest() if self._member.kind is MemberKind.FILE else ""
            self.records.append(_record(self._member, content))


def _record(member: TarMember, content: str) -> bytes:
    device = "" if member.device is None else f"{member.device[0]}:{member.device[1]}"
    text = (
        f"{path_in_tree(member.name)}\0{member.kind}\0{member.mode & 0o7777:o}\0{member.uid}\0{member.gid}\0"
        f"{member.size_bytes}\0{member.mtime_ns}\0{member.link_name}\0{device}\0{content}"
    )
    for name, value in member.xattrs:
        text += f"\0{name}\0{value.hex()}"
    return text.encode("utf-8", "surrogateescape")


def path_in_tree(name: str) -> str:
    """Return the path within the filesystem; what could lie outside of it is refused."""
    if name in (".", "./"):
        return "."
    path = name.removeprefix("./").removesuffix("/")
    if _NOT_PLAIN.search(path) is not None:
        raise IntegrityError(f"tar member {shown_name(name)}: the path is absolute, or has '.', '..' or '' in it")
    return path


def _tree_digest(records: list[bytes]) -> str:
    tree = hashlib.sha256()
    before = None
    for record in records:
        path = record[: record.index(b"\0")]
        if path == before:
            shown = shown_name(path.decode("utf-8", "surrogateescape"))
            raise IntegrityError(f"tar member {shown}: the path comes twice")
        before = path
        tree.update(len(record).to_bytes(8, "big") + record)
    return f"sha256:{tree.hexdigest()}"


def image_config_from(
    container_config: Mapping[str, Any],
    *,
    architecture: str,
    os: str,
    variant: str,
    created: str,
    diff_id: str,
    comment: str,
) -> bytes:
    """Return the configuration of an image of one layer that runs as the container did.

    :param container_config: ``.Config`` of ``docker container inspect``; what belongs to the one container, such as
        its host name, is left behind.
    :param architecture: as Docker names it, ``amd64``.
    :param os: as Docker names it, ``linux``.
    :param variant: ``v7`` and the like, empty for none.
    :param created: RFC 3339 time for the image and its one step of history.
    :param diff_id: ``sha256:<hex>`` of the layer.
    :param comment: of that step.
    :returns: canonical JSON (docker image specification v1.2); the same arguments always give the same bytes.
    :raises ConfigurationError: when ``diff_id`` is no digest or a value has no JSON form.
    """
    check_digest(diff_id)
    config = {key: container_config[key] for key in _CONFIG_KEYS if container_config.get(key)}
    image: dict[str, Any] = {
        "architecture": architecture,
        "config": config,
        "created": created,
        "history": [{"comment": comment, "created": created}],
        "os": os,
        "rootfs": {"diff_ids": [diff_id], "type": "layers"},
    }
    if variant:
        image["variant"] = variant
    return canonical_json(image)


def one_layer_image(
    *,
    config: bytes,
    layer_chunks: Iterable[bytes],
    layer_size_bytes: int,
    diff_id: str,
    tags: Sequence[str],
) -> Iterator[bytes]:
    """Yield a docker-archive with one layer, in the one form that every engine from 20.10 on loads.

    See :func:`~airflow_provider_dockerbackup.core.archive.hybrid.image_archive`.

    :param config: image configuration, as :func:`image_config_from` returns it.
    :param layer_chunks: the uncompressed layer.
    :param layer_size_bytes: its size.
    :param diff_id: ``sha256:<hex>`` of it.
    :param tags: ``name:tag`` each; none leaves the image untagged.
    :raises ConfigurationError: when a tag or the digest is not one.
    :raises IntegrityError: when the layer has another size or digest.
    """
    layer = PlainLayer(diff_id=diff_id, size_bytes=layer_size_bytes, chunks=lambda: nullcontext(layer_chunks))
    return image_archive(config=config, layers=[layer], tags=tags)
