"""A small S3 server that keeps the rules of Object Lock strictly: in memory, over real HTTP, with signatures checked.

`laxness` makes it as careless as servers that exist. What it does not know it refuses, so that a test never rests on a
call that it guessed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Flag, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.etree import ElementTree
from xml.sax.saxutils import escape

ACCESS_KEY, SECRET_KEY = "AKIDEXAMPLE", "example-secret"
_NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
_MODES = ("COMPLIANCE", "GOVERNANCE")


class Laxness(Flag):
    """What a careless server does not do."""

    NONE = 0
    IGNORES_LOCKS = auto()
    """Takes lock headers and forgets them, as s3rver does."""
    SHORTENS = auto()
    """Lets a COMPLIANCE lock be shortened, downgraded and cleared, as moto does."""
    FORGETS_MD5 = auto()
    """Does not compare Content-MD5, as moto does not."""
    OVERWRITES = auto()
    """Ignores If-None-Match and keeps no SHA-256, as Ceph 16 does."""
    GOVERNS = auto()
    """Makes every lock GOVERNANCE."""
    TRUSTS_ANYBODY = auto()
    """Checks no signature, as moto does not."""
    LOSES = auto()
    """Lets a put or a delete without a version end what lies there."""
    DAMAGES = auto()
    """Changes a byte of what it keeps."""


@dataclass(frozen=True)
class Retention:
    mode: str
    until: datetime


@dataclass
class Kept:
    """A version or, with `body` None, a delete marker."""

    key: str
    version: str
    body: bytes | None
    modified: datetime
    retention: Retention | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    """What the list says, where that is not so."""


@dataclass
class Store:
    """One bucket. Versions of a key stand oldest first."""

    laxness: Laxness = Laxness.NONE
    locked: bool = True
    versioning: str = "Enabled"
    default: tuple[str, int] | None = None
    kept: dict[str, list[Kept]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    page_size: int = 1000
    denied: frozenset[str] = frozenset()
    """HTTP methods, and `METHOD subresource`, that the credentials may not use."""
    denial: str = "AccessDenied"
    _count: int = 0

    def next_version(self) -> str:
        self._count += 1
        return f"v{self._count:06d}"

    def find(self, key: str, version: str | None) -> Kept | None:
        versions = self.kept.get(key, [])
        if version is None:
            return versions[-1] if versions else None
        return next((kept for kept in versions if kept.version == version), None)


class Refusal(Exception):
    def __init__(self, status: int, code: str) -> None:
        self.status, self.code = status, code


@contextlib.contextmanager
def serving(store: Store, bucket: str = "example-bucket") -> Iterator[str]:
    """The endpoint of a server of `store` on loopback."""
    handler = type("Handler", (_Handler,), {"store": store, "bucket": bucket})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    store: Store
    bucket: str
    lock = threading.Lock()

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _serve(self) -> None:
        path, _, query_text = self.path.partition("?")
        query = dict(urllib.parse.parse_qsl(query_text, keep_blank_values=True))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        bucket, _, key = urllib.parse.unquote(path).lstrip("/").partition("/")
        try:
            with self.lock:
                self._authenticate(path, query_text, body)
                if bucket != self.bucket:
                    raise Refusal(404, "NoSuchBucket")
                subresource = next((name for name in ("object-lock", "versioning", "versions", "retention", "delete")
                                    if name in query), "")
                self.store.asked.append((f"{self.command} {subresource}".strip(), key))
                if {self.command, f"{self.command} {subresource}"} & self.store.denied:
                    raise Refusal(403, self.store.denial)
                status, headers, content = self._answer(key, subresource, query, body)
        except Refusal as refusal:
            status, headers = refusal.status, {}
            content = f"<Error><Code>{refusal.code}</Code><Message>as S3 would</Message></Error>".encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

    def _answer(self, key: str, subresource: str, query: Mapping[str, str],
                body: bytes) -> tuple[int, dict[str, str], bytes]:
        return self._answer_of_object(key, subresource, query, body) if key else self._answer_of_bucket(
            subresource, query, body)

    def _answer_of_bucket(self, subresource: str, query: Mapping[str, str],
                          body: bytes) -> tuple[int, dict[str, str], bytes]:
        match (self.command, subresource):
            case ("GET", "object-lock"):
                return 200, {}, self._lock_configuration()
            case ("GET", "versioning"):
                status = f"<Status>{self.store.versioning}</Status>" if self.store.versioning else ""
                return 200, {}, f"<VersioningConfiguration>{status}</VersioningConfiguration>".encode()
            case ("PUT", "versioning"):
                return self._set_versioning(body)
            case ("GET", "versions"):
                return 200, {}, _versions_page(self.store, query)
            case ("POST", "delete"):
                return self._delete_many(body)
        raise Refusal(501, "NotImplemented")

    def _answer_of_object(self, key: str, subresource: str, query: Mapping[str, str],
                          body: bytes) -> tuple[int, dict[str, str], bytes]:
        match (self.command, subresource):
            case ("PUT", "retention"):
                return self._retain(self._found(key, query), body)
            case ("GET", "retention"):
                return 200, {}, self._retention(self._found(key, query))
            case ("PUT", ""):
                return self._put(key, body)
            case ("GET" | "HEAD", ""):
                return self._get(self._found(key, query))
            case ("DELETE", ""):
                return self._delete(key, query.get("versionId"))
        raise Refusal(501, "NotImplemented")

    def _authenticate(self, path: str, query: str, body: bytes) -> None:
        """Signature version 4 over the request as it came, and the hash of the body that it names."""
        if Laxness.TRUSTS_ANYBODY in self.store.laxness:
            return
        scheme, _, rest = self.headers.get("Authorization", "").partition(" ")
        fields = dict(part.strip().split("=", 1) for part in rest.split(",") if "=" in part)
        if scheme != "AWS4-HMAC-SHA256":
            raise Refusal(403, "AccessDenied")
        access_key, date, region, service, _ = fields["Credential"].split("/")
        if access_key != ACCESS_KEY:
            raise Refusal(403, "InvalidAccessKeyId")
        named = self.headers.get("x-amz-content-sha256", "")
        if named != "UNSIGNED-PAYLOAD" and named != hashlib.sha256(body).hexdigest():
            raise Refusal(400, "XAmzContentSHA256Mismatch")
        signed = fields["SignedHeaders"].split(";")
        headers = "".join(f"{name}:{' '.join((self.headers.get(name) or '').split())}\n" for name in signed)
        arguments = "&".join(sorted(part if "=" in part else f"{part}=" for part in query.split("&") if part))
        request = "\n".join((self.command, path, arguments, headers, ";".join(signed), named))
        scope = f"{date}/{region}/{service}/aws4_request"
        to_sign = "\n".join((scheme, self.headers["x-amz-date"], scope, hashlib.sha256(request.encode()).hexdigest()))
        key = f"AWS4{SECRET_KEY}".encode()
        for part in (date, region, service, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        if not hmac.compare_digest(hmac.new(key, to_sign.encode(), "sha256").hexdigest(), fields["Signature"]):
            raise Refusal(403, "SignatureDoesNotMatch")

    def _lock_configuration(self) -> bytes:
        if not self.store.locked:
            raise Refusal(404, "ObjectLockConfigurationNotFoundError")
        rule = ""
        if self.store.default is not None:
            mode, days = self.store.default
            rule = f"<Rule><DefaultRetention><Mode>{mode}</Mode><Days>{days}</Days></DefaultRetention></Rule>"
        return (f"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>{rule}"
                "</ObjectLockConfiguration>").encode()

    def _set_versioning(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        status = ElementTree.fromstring(body).findtext(f"{_NAMESPACE}Status") or ""
        if status not in ("Enabled", "Suspended"):
            raise Refusal(400, "MalformedXML")
        if status == "Suspended" and self.store.locked and Laxness.SHORTENS not in self.store.laxness:
            raise Refusal(409, "InvalidBucketState")
        self.store.versioning = status
        return 200, {}, b""

    def _put(self, key: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        lax, headers = self.store.laxness, self.headers
        self._compare("Content-MD5", hashlib.md5(body).digest(), Laxness.FORGETS_MD5)
        self._compare("x-amz-checksum-sha256", hashlib.sha256(body).digest(), Laxness.FORGETS_MD5 | Laxness.OVERWRITES)
        latest = self.store.find(key, None)
        if headers.get("If-None-Match") == "*" and latest and latest.body is not None and Laxness.OVERWRITES not in lax:
            raise Refusal(412, "PreconditionFailed")
        retention = self._asked_retention()
        if Laxness.GOVERNS in lax and retention is not None:
            retention = Retention("GOVERNANCE", retention.until)
        version = self.store.next_version() if self.store.versioning == "Enabled" else "null"
        kept_body = bytes([body[0] ^ 1]) + body[1:] if body and Laxness.DAMAGES in lax else body
        sha256 = None if Laxness.OVERWRITES in lax else headers.get("x-amz-checksum-sha256")
        kept = Kept(key, version, kept_body, datetime.now(UTC), retention, sha256)
        others = self.store.kept.setdefault(key, [])
        if Laxness.LOSES in lax and others:
            others[0].body = kept_body
        if version == "null":
            others[:] = [other for other in others if other.version != "null"]
        others.append(kept)
        return 200, {"x-amz-version-id": version}, b""

    def _compare(self, header: str, digest: bytes, lax: Laxness) -> None:
        named = self.headers.get(header)
        if named is not None and named != base64.b64encode(digest).decode() and not lax & self.store.laxness:
            raise Refusal(400, "BadDigest")

    def _asked_retention(self) -> Retention | None:
        mode = self.headers.get("x-amz-object-lock-mode")
        until = self.headers.get("x-amz-object-lock-retain-until-date")
        if Laxness.IGNORES_LOCKS in self.store.laxness:
            return None
        if mode is None and until is None:
            if self.store.default is None:
                return None
            mode, days = self.store.default
            return Retention(mode, datetime.fromtimestamp(datetime.now(UTC).timestamp() + days * 86400, UTC))
        if not self.store.locked:
            raise Refusal(400, "InvalidRequest")
        if mode is None or until is None or mode not in _MODES:
            raise Refusal(400, "InvalidArgument")
        if not (self.headers.get("Content-MD5") or self.headers.get("x-amz-checksum-sha256")):
            raise Refusal(400, "InvalidRequest")
        return Retention(mode, self._future(until))

    def _future(self, text: str) -> datetime:
        try:
            until = datetime.fromisoformat(text)
        except ValueError:
            raise Refusal(400, "MalformedXML") from None
        if until <= datetime.now(UTC) and Laxness.SHORTENS not in self.store.laxness:
            raise Refusal(400, "InvalidArgument")
        return until

    def _found(self, key: str, query: Mapping[str, str]) -> Kept:
        kept = self.store.find(key, query.get("versionId"))
        if kept is None:
            raise Refusal(404, "NoSuchVersion" if "versionId" in query else "NoSuchKey")
        if kept.body is None:
            raise Refusal(405 if "versionId" in query else 404, "MethodNotAllowed")
        return kept

    def _get(self, kept: Kept) -> tuple[int, dict[str, str], bytes]:
        body = kept.body or b""
        headers = {
            "x-amz-version-id": kept.version, "Content-Length": str(len(body)), "ETag": '"none"',
            "Last-Modified": kept.modified.strftime("%a, %d %b %Y %H:%M:%S GMT"),
        }  # fmt: skip
        if kept.sha256 and self.headers.get("x-amz-checksum-mode") == "ENABLED":
            headers["x-amz-checksum-sha256"] = kept.sha256
        if kept.retention is not None:
            headers["x-amz-object-lock-mode"] = kept.retention.mode
            headers["x-amz-object-lock-retain-until-date"] = _iso(kept.retention.until)
        return 200, headers, body

    def _held(self, kept: Kept, bypass: bool) -> bool:
        if kept.retention is None or kept.retention.until <= datetime.now(UTC):
            return False
        return kept.retention.mode == "COMPLIANCE" or not bypass

    def _bypass(self) -> bool:
        return self.headers.get("x-amz-bypass-governance-retention", "").lower() == "true"

    def _delete(self, key: str, version: str | None) -> tuple[int, dict[str, str], bytes]:
        if version is None:
            if Laxness.LOSES in self.store.laxness:
                self.store.kept.pop(key, None)
            marker = Kept(key, self.store.next_version(), None, datetime.now(UTC))
            self.store.kept.setdefault(key, []).append(marker)
            return 204, {"x-amz-delete-marker": "true", "x-amz-version-id": marker.version}, b""
        kept = self.store.find(key, version)
        if kept is not None:
            if self._held(kept, self._bypass()):
                raise Refusal(403, "AccessDenied")
            self.store.kept[key].remove(kept)
        return 204, {"x-amz-version-id": version}, b""

    def _delete_many(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        results = []
        for entry in ElementTree.fromstring(body).iter(f"{_NAMESPACE}Object"):
            key, version = entry.findtext(f"{_NAMESPACE}Key") or "", entry.findtext(f"{_NAMESPACE}VersionId")
            try:
                self._delete(key, version)
                results.append(f"<Deleted><Key>{escape(key)}</Key></Deleted>")
            except Refusal as refusal:
                results.append(f"<Error><Key>{escape(key)}</Key><Code>{refusal.code}</Code></Error>")
        return 200, {}, f"<DeleteResult>{''.join(results)}</DeleteResult>".encode()

    def _retain(self, kept: Kept, body: bytes) -> tuple[int, dict[str, str], bytes]:
        tree = ElementTree.fromstring(body)
        mode, until = tree.findtext(f"{_NAMESPACE}Mode"), tree.findtext(f"{_NAMESPACE}RetainUntilDate")
        wanted = Retention(mode, self._future(until)) if mode in _MODES and until else None
        if wanted is None and (mode or until):
            raise Refusal(400, "MalformedXML")
        if Laxness.SHORTENS not in self.store.laxness and self._held(kept, self._bypass()):
            held = kept.retention
            assert held is not None
            if wanted is None or wanted.until < held.until or (held.mode == "COMPLIANCE" != wanted.mode):
                raise Refusal(403, "AccessDenied")
        kept.retention = wanted
        return 200, {}, b""

    def _retention(self, kept: Kept) -> bytes:
        if kept.retention is None:
            raise Refusal(404, "NoSuchObjectLockConfiguration")
        return (f"<Retention><Mode>{kept.retention.mode}</Mode><RetainUntilDate>{_iso(kept.retention.until)}"
                "</RetainUntilDate></Retention>").encode()


def _versions_page(store: Store, query: Mapping[str, str]) -> bytes:
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    after = (query.get("key-marker", ""), query.get("version-id-marker", ""))
    found = [kept for key in sorted(store.kept) if key.startswith(prefix) for kept in reversed(store.kept[key])]
    if after[0]:
        found = [kept for kept in found if kept.key > after[0] or (
            kept.key == after[0] and after[1] and kept.version < after[1])]  # fmt: skip
    folders: dict[str, None] = {}
    parts = []
    page, rest = found[: store.page_size], found[store.page_size :]
    for kept in page:
        name, slash, _ = kept.key.removeprefix(prefix).partition(delimiter) if delimiter else ("", "", "")
        if slash:
            folders[f"{prefix}{name}{slash}"] = None
            continue
        tag = "DeleteMarker" if kept.body is None else "Version"
        size = "" if kept.body is None else f"<Size>{kept.size_bytes or len(kept.body)}</Size>"
        parts.append(f"<{tag}><Key>{escape(kept.key)}</Key><VersionId>{kept.version}</VersionId>"
                     f"<LastModified>{_iso(kept.modified)}</LastModified>{size}</{tag}>")
    parts += [f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders]
    if rest:
        parts.append(f"<NextKeyMarker>{escape(page[-1].key)}</NextKeyMarker>"
                     f"<NextVersionIdMarker>{page[-1].version}</NextVersionIdMarker>")
    return (f"<ListVersionsResult><IsTruncated>{str(bool(rest)).lower()}</IsTruncated>{''.join(parts)}"
            "</ListVersionsResult>").encode()


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
