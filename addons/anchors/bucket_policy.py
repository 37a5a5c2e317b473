"""The least that an AWS identity must be allowed so that Governor can anchor in a bucket, or read what is anchored."""

from __future__ import annotations

from addons.anchors.bucket import Location

type Document = dict[str, str | list[dict[str, object]]]

# A put with a lock is two permissions. In COMPLIANCE mode the second one can only make a lock longer.
_PUBLISH = ("s3:PutObject", "s3:PutObjectRetention")
_READ = ("s3:GetObjectVersion", "s3:GetObjectRetention")
_LIST = ("s3:ListBucketVersions",)
_LOOK = ("s3:GetBucketObjectLockConfiguration", "s3:GetBucketVersioning")
_NEVER = (
    "s3:BypassGovernanceRetention", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutBucketObjectLockConfiguration",
    "s3:PutBucketVersioning", "s3:PutLifecycleConfiguration",
)  # fmt: skip


def publishing(location: Location) -> Document:
    """For the host that Governor runs on: it writes and cannot take back, whatever else its identity is given."""
    bucket, objects = _names(location)
    return _document([
        _statement("WriteAndCheckHeads", "Allow", (*_PUBLISH, *_READ), objects),
        _listing(location),
        _statement("LookAtTheLock", "Allow", _LOOK, bucket),
        {**_statement("TakeNothingBack", "Deny", _NEVER, bucket), "Resource": [bucket, f"{bucket}/*"]},
    ])  # fmt: skip


def reading(location: Location) -> Document:
    """For whoever verifies."""
    _, objects = _names(location)
    return _document([_statement("ReadHeads", "Allow", _READ, objects), _listing(location)])


def _names(location: Location) -> tuple[str, str]:
    bucket = f"arn:aws:s3:::{location.bucket}"
    return bucket, f"{bucket}/{location.key('*')}"


def _listing(location: Location) -> dict[str, object]:
    statement = _statement("ListHeads", "Allow", _LIST, _names(location)[0])
    if location.prefix:
        statement["Condition"] = {"StringLike": {"s3:prefix": location.key("*")}}
    return statement


def _statement(name: str, effect: str, actions: tuple[str, ...], resource: str) -> dict[str, object]:
    return {"Sid": name, "Effect": effect, "Action": list(actions), "Resource": resource}


def _document(statements: list[dict[str, object]]) -> Document:
    return {"Version": "2012-10-17", "Statement": statements}
