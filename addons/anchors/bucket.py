"""A prefix in an S3 bucket: the only boto3. Region, endpoint and credentials are the user's own AWS configuration."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from addons.anchors.protocol import AnchorError
from addons.audit_text import escaped

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
COMPLIANCE = "COMPLIANCE"
# How far the clocks of this host and of the storage may differ.
SKEW = timedelta(minutes=5)
_CHUNK_BYTES = 2**18
_WORDS = 300
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()-]+(?:/[A-Za-z0-9!_.*'()-]+)*")


class S3Refused(AnchorError):
    """The server answered, and its answer is no: `status` of HTTP, `code` of S3."""

    def __init__(self, where: str, doing: str, status: int, code: str, message: str) -> None:
        self.status, self.code = status, code
        super().__init__(f"{where}: {doing}: refused with {status} {code}" + (f" ({message})" if message else ""))


class S3Unreachable(AnchorError):
    """No answer, or none that can be read: no credentials, no connection, a time-out, something that is not S3."""


class S3Damaged(AnchorError):
    """The server gave bytes that do not have the checksum which it keeps for them."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where: `prefix` has no slash at its ends and may be empty. None is left to the configuration."""

    bucket: str
    prefix: str = ""
    region: str | None = None
    endpoint: str | None = None

    @classmethod
    def parse(cls, url: str, region: str | None = None, endpoint: str | None = None) -> Location:
        """The location of `s3://bucket/prefix`; ValueError with what is wrong."""
        scheme, found, rest = url.partition("://")
        bucket, _, prefix = rest.partition("/")
        prefix = prefix.rstrip("/")
        if scheme != "s3" or not found or not _BUCKET.fullmatch(bucket):
            raise ValueError(f"{url}: expected s3://BUCKET/PREFIX")
        if prefix and (not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/"))):
            raise ValueError(f"{url}: a prefix is letters, digits and !_.*'()- between single slashes")
        if endpoint is not None:
            _check_endpoint(endpoint)
        return cls(bucket, prefix, region, endpoint)

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}" if self.prefix else f"s3://{self.bucket}"

    def key(self, *parts: str) -> str:
        """The key of what lies below the prefix."""
        return "/".join((self.prefix, *parts) if self.prefix else parts)


def _check_endpoint(endpoint: str) -> None:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError("an endpoint is http:// or https://, a host and perhaps a port, without user or password")


@dataclass(frozen=True, slots=True)
class Lock:
    """A retention: `mode` COMPLIANCE or GOVERNANCE, `until` in UTC."""

    mode: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Digests:
    """What is sent with a body so that the server can tell a damaged one; in base64."""

    md5: str
    sha256: str

    @classmethod
    def of(cls, chunks: Iterable[bytes]) -> Digests:
        md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        for chunk in chunks:
            md5.update(chunk)
            sha256.update(chunk)
        return cls(base64.b64encode(md5.digest()).decode(), base64.b64encode(sha256.digest()).decode())

    @property
    def sha256_hex(self) -> str:
        return base64.b64decode(self.sha256).hex()


@dataclass(frozen=True, slots=True)
class Stored:
    """What the server says of a version: `lock` None without one, `sha256` in base64 where it keeps one."""

    lock: Lock | None
    sha256: str | None
    size_bytes: int
    modified: datetime

    def compliance_lock(self, where: str) -> Lock:
        """The lock that Governor asks for; `AnchorError` where it is another, or none."""
        if self.lock is None or self.lock.mode != COMPLIANCE:
            raise AnchorError(f"{where} has {self.lock.mode if self.lock else 'no'} lock; COMPLIANCE was asked")
        return self.lock


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a key, or a delete marker."""

    key: str
    version: str
    size_bytes: int
    modified: datetime
    is_marker: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """What the bucket does by itself. `default_mode` is the lock of versions that come without one; None for none."""

    locked: bool
    default_mode: str | None


class Bucket:
    """The calls of S3 that an anchor makes, each tried once: `S3Refused` and `S3Unreachable` say what came of it."""

    def __init__(self, location: Location, session: Any = None, client: Any = None) -> None:
        """`session` and `client` are those of boto3, made from the configuration where there are none yet."""
        self.location = location
        with self._asking("reading the AWS configuration"):
            self._session = session or _boto().session()
            self._client = client or _client(location, self._session)

    def at(self, prefix: str) -> Bucket:
        """The same bucket at another prefix."""
        return Bucket(replace(self.location, prefix=prefix), self._session, self._client)

    def with_wrong_secret(self) -> Bucket:
        """The same bucket, asked by somebody who knows the access key and not its secret."""
        with self._asking("looking for credentials"):
            found = self._session.get_credentials()
            if found is None:
                raise S3Unreachable(f"{self.location.url}: no AWS credentials (AWS_ACCESS_KEY_ID, a profile or a role)")
            known = found.get_frozen_credentials()
            forged = {"aws_access_key_id": known.access_key, "aws_secret_access_key": "0" * 40,
                      "aws_session_token": known.token}  # fmt: skip
            return Bucket(self.location, self._session, _client(self.location, self._session, **forged))

    def anonymously(self) -> Bucket:
        """The same bucket, asked by nobody."""
        return Bucket(self.location, self._session, _client(self.location, self._session, signed=False))

    def put(self, key: str, body: bytes | BinaryIO, digests: Digests, lock: Lock | None = None, *,
            only_new: bool = False) -> str:
        """Write a version and give its id. With `only_new`, status 412 where the key has a version already."""
        arguments: dict[str, Any] = {"ContentMD5": digests.md5, "ChecksumSHA256": digests.sha256}
        if lock is not None:
            arguments |= {"ObjectLockMode": lock.mode, "ObjectLockRetainUntilDate": lock.until}
        if only_new:
            arguments["IfNoneMatch"] = "*"
        with self._asking(f"writing {key}"):
            answer = self._client.put_object(Bucket=self.location.bucket, Key=key, Body=body,
                                             ContentType="text/plain", **arguments)
            return str(answer.get("VersionId") or "")

    def put_half_locked(self, key: str, body: bytes, digests: Digests, lock: Lock) -> str:
        """Write a version with the mode of a lock and without its date: nonsense, to be refused."""
        with self._asking(f"writing {key}"):
            answer = self._client.put_object(
                Bucket=self.location.bucket, Key=key, Body=body, ContentMD5=digests.md5,
                ChecksumSHA256=digests.sha256, ObjectLockMode=lock.mode)  # fmt: skip
            return str(answer.get("VersionId") or "")

    def head(self, key: str, version: str) -> Stored:
        """What the server says of one version."""
        with self._asking(f"asking for {key}"):
            answer = self._client.head_object(
                Bucket=self.location.bucket, Key=key, VersionId=version, ChecksumMode="ENABLED")
            lock = _lock(answer.get("ObjectLockMode"), answer.get("ObjectLockRetainUntilDate"))
            modified = answer["LastModified"].astimezone(UTC)
            return Stored(lock, answer.get("ChecksumSHA256"), int(answer["ContentLength"]), modified)

    def read(self, key: str, version: str, most_bytes: int) -> Iterator[bytes]:
        """The bytes of one version, in pieces; `S3Unreachable` beyond `most_bytes`."""
        with self._asking(f"reading {key}"):
            body = self._client.get_object(Bucket=self.location.bucket, Key=key, VersionId=version)["Body"]
            try:
                while chunk := body.read(_CHUNK_BYTES):
                    most_bytes -= len(chunk)
                    if most_bytes < 0:
                        raise S3Unreachable(f"{self.location.url}: {key} is longer than anything Governor writes there")
                    yield chunk
            finally:
                body.close()

    def versions(self, prefix: str) -> Iterator[Version]:
        """Every version and delete marker whose key begins with `prefix`: by key, of one key the newest first."""
        with self._asking(f"listing {prefix}"):
            for page in self._client.get_paginator("list_object_versions").paginate(
                    Bucket=self.location.bucket, Prefix=prefix):  # fmt: skip
                found = [_version(entry, is_marker=False) for entry in page.get("Versions", ())]
                found += [_version(entry, is_marker=True) for entry in page.get("DeleteMarkers", ())]
                yield from sorted(found, key=lambda version: version.key)

    def folders(self, prefix: str) -> list[str]:
        """The names that stand below `prefix`, which ends in a slash, with something below them."""
        with self._asking(f"listing {prefix}"):
            pages = self._client.get_paginator("list_object_versions").paginate(
                Bucket=self.location.bucket, Prefix=prefix, Delimiter="/")
            names = [str(entry["Prefix"]) for page in pages for entry in page.get("CommonPrefixes", ())]
            return [name.removeprefix(prefix).rstrip("/") for name in names]

    def rules(self) -> Rules:
        """Whether the bucket has Object Lock, and what it does by itself."""
        with self._asking("asking for the bucket's Object Lock"):
            answer = self._client.get_object_lock_configuration(Bucket=self.location.bucket)
            found = answer.get("ObjectLockConfiguration", {})
            default = found.get("Rule", {}).get("DefaultRetention", {})
            return Rules(found.get("ObjectLockEnabled") == "Enabled", default.get("Mode"))

    def versioning(self) -> str:
        """Enabled, Suspended, or empty where it never was."""
        with self._asking("asking for the bucket's versioning"):
            return str(self._client.get_bucket_versioning(Bucket=self.location.bucket).get("Status") or "")

    def set_versioning(self, status: str) -> None:
        with self._asking(f"setting the bucket's versioning to {status}"):
            self._client.put_bucket_versioning(
                Bucket=self.location.bucket, VersioningConfiguration={"Status": status})

    def delete(self, key: str, version: str | None = None, *, bypass: bool = False) -> None:
        """Delete a version; without one, put a delete marker."""
        arguments: dict[str, Any] = {"VersionId": version} if version is not None else {}
        if bypass:
            arguments["BypassGovernanceRetention"] = True
        with self._asking(f"deleting {key}"):
            self._client.delete_object(Bucket=self.location.bucket, Key=key, **arguments)

    def delete_in_batch(self, key: str, version: str, *, bypass: bool = False) -> None:
        """Delete a version by the call that deletes many; a refusal inside the answer counts as one."""
        arguments: dict[str, Any] = {"BypassGovernanceRetention": True} if bypass else {}
        doing = f"deleting {key} in a batch"
        with self._asking(doing):
            answer = self._client.delete_objects(
                Bucket=self.location.bucket, Delete={"Objects": [{"Key": key, "VersionId": version}]}, **arguments)
            for error in answer.get("Errors", ()):
                code, message = _told(error.get("Code")), _told(error.get("Message") or "")
                raise S3Refused(self.location.url, doing, 403, code, message)

    def retain(self, key: str, version: str, lock: Lock | None, *, bypass: bool = False) -> None:
        """Give a version another lock, or none."""
        retention = {"Mode": lock.mode, "RetainUntilDate": lock.until} if lock is not None else {}
        arguments: dict[str, Any] = {"BypassGovernanceRetention": True} if bypass else {}
        with self._asking(f"changing the lock of {key}"):
            self._client.put_object_retention(
                Bucket=self.location.bucket, Key=key, VersionId=version, Retention=retention, **arguments)

    def retention(self, key: str, version: str) -> Lock | None:
        """The lock of a version, by the call that is made for it."""
        with self._asking(f"asking for the lock of {key}"):
            answer = self._client.get_object_retention(Bucket=self.location.bucket, Key=key, VersionId=version)
            found = answer.get("Retention", {})
            return _lock(found.get("Mode"), found.get("RetainUntilDate"))

    @contextmanager
    def _asking(self, doing: str) -> Iterator[None]:
        where, boto = self.location.url, _boto()
        # boto3 raises the built-in ones on an answer that it cannot read.
        faults: tuple[type[Exception], ...] = (*boto.faults, ValueError, KeyError, TypeError, AttributeError)
        try:
            yield
        except boto.refusal as refused:
            error = refused.response.get("Error", {})
            status = int(refused.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            raise S3Refused(where, doing, status, _told(error.get("Code")), _told(error.get("Message") or "")) from None
        except boto.damage as fault:
            raise S3Damaged(f"{where}: {doing}: {_told(fault)}") from None
        except faults as fault:
            said = f"{fault}" if isinstance(fault, boto.faults) else f"an answer that is not S3's ({fault!r})"
            raise S3Unreachable(f"{where}: {doing}: {_told(said)}") from None


def _told(words: object) -> str:
    """What the server says, as text that a terminal shows and does not obey."""
    return escaped(str(words)[:_WORDS])


def _lock(mode: Any, until: Any) -> Lock | None:
    return Lock(str(mode), until.astimezone(UTC)) if mode and until else None


def _version(entry: dict[str, Any], *, is_marker: bool) -> Version:
    modified = entry["LastModified"].astimezone(UTC)
    return Version(str(entry["Key"]), str(entry["VersionId"]), int(entry.get("Size", 0)), modified, is_marker)


@dataclass(frozen=True, slots=True)
class _Boto:
    """What is used of boto3. Imported when it is needed: it takes a third of a second."""

    session: Any
    config: Any
    unsigned: Any
    refusal: type[Any]
    damage: type[Any]
    faults: tuple[type[Exception], ...]


def _boto() -> _Boto:
    try:
        import boto3  # type: ignore[import-untyped]
        from botocore import UNSIGNED  # type: ignore[import-untyped]
        from botocore.config import Config  # type: ignore[import-untyped]
        from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError  # type: ignore[import-untyped]
        from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]
    except ImportError as missing:
        hint = "pip install 'governor-proxy[s3]'"
        raise AnchorError(f"S3 needs the extra s3, which is not installed ({missing.name}): {hint}") from None
    faults = (BotoCoreError, ResponseParserError)
    return _Boto(boto3.Session, Config, UNSIGNED, ClientError, FlexibleChecksumError, faults)


def _client(location: Location, session: Any, *, signed: bool = True, **credentials: str | None) -> Any:
    boto = _boto()
    options: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS, "retries": {"total_max_attempts": 1},
        # A server that is not Amazon's seldom has a name for each bucket.
        "s3": {"addressing_style": "path" if location.endpoint else "auto"},
    }  # fmt: skip
    if not signed:
        options["signature_version"] = boto.unsigned
    # Amazon's own default; other servers take any.
    region = location.region or session.region_name or "us-east-1"
    return session.client(
        "s3", region_name=region, endpoint_url=location.endpoint, config=boto.config(**options), **credentials)
