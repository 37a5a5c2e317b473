"""Buckets of the strict server, as an anchor sees them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import boto3
import pytest

from addons.anchors.bucket import Bucket, Location
from tests.addons.s3_server import ACCESS_KEY, SECRET_KEY, Store, serving

NAME, PREFIX = "example-bucket", "audit"
URL = f"s3://{NAME}/{PREFIX}"


def use_credentials(
    monkeypatch: pytest.MonkeyPatch, access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY
) -> None:
    """An AWS configuration of these credentials and nothing else, whatever the user's own is."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key, "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent", "NO_PROXY": "*",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@cache
def session() -> boto3.Session:
    """One for all tests: a session reads the descriptions of S3 once, which takes longer than a test."""
    return boto3.Session(ACCESS_KEY, SECRET_KEY)


@contextmanager
def bucket_of(store: Store) -> Iterator[Bucket]:
    """The bucket that a server of `store` gives out."""
    with serving(store, NAME) as endpoint:
        yield Bucket(Location(NAME, PREFIX, None, endpoint), session())
