"""Backups in S3: a bucket below a prefix, in whatever region it is.

Credentials come from boto3's chain (environment, web identity, profile, container, instance), never from a
setting. Objects go up in chunks of a multipart upload, so that memory does not grow with them; each chunk has
a SHA-256 that S3 checks. An object is there when its upload was completed, and not before.
"""

import base64
import hashlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from auth_manager.backups import StorageFailed
from auth_manager.backups.archive import time_of
from auth_manager.backups.storage import ObjectReader, ObjectWriter, StoredObject

CHUNK_BYTES = 8 * 1024 * 1024
"""Of a multipart upload; S3 wants at least 5 MiB of each but the last, and 10,000 of them at most."""

ATTEMPTS = 5
"""Of each request, with pauses that double (botocore's standard mode), and of a download that is cut."""

Client = Any
"""boto3's for S3; the stubs are not there at run time."""

_DELETE_BATCH = 1000
"""Keys of one DeleteObjects."""

_HINTS = {
    "AccessDenied": "the role may not do that",
    "403": "the role may not do that",
    "NoSuchBucket": "there is no such bucket",
    "404": "there is no such bucket",
    "ExpiredToken": "the credentials have expired",
    "InvalidAccessKeyId": "the credentials are not valid",
    "NoCredentialsError": "there are no AWS credentials",
}


def open_bucket(
    bucket: str, prefix: str, *, kms_key: str = "", client: Client = None, chunk_bytes: int = CHUNK_BYTES
) -> "Bucket":
    """Return the place below a prefix of a bucket, wherever the bucket is.

    Args:
        bucket: its name.
        prefix: of every key, without a slash at either end; may be empty.
        kms_key: the id or ARN of a key of the bucket's region; empty encrypts with S3's own (SSE-S3).
        client: for S3, other than one for the bucket's region.
        chunk_bytes: of a multipart upload.

    Raises:
        StorageFailed: there is no such bucket, no credentials, or no answer.
    """
    return Bucket(client or _client_for(bucket), bucket, prefix, kms_key, chunk_bytes)


class Bucket:
    """A storage for backups (backups/storage.py)."""

    def __init__(self, client: Client, bucket: str, prefix: str, kms_key: str, chunk_bytes: int) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._chunk_bytes = chunk_bytes
        self._encryption = (
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key}
            if kms_key
            else {"ServerSideEncryption": "AES256"}
        )

    @property
    def url(self) -> str:
        """Bucket and prefix."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def create(self, name: str) -> ObjectWriter:
        """Begin an object; S3 hears of it with its first chunk."""
        return _Upload(self._client, self._at(name), self._encryption, self._chunk_bytes)

    def open(self, name: str) -> ObjectReader:
        """Read an object."""
        return _Download(self._client, self._at(name))

    def list_objects(self) -> Iterator[StoredObject]:
        """Return what is below the prefix; an upload is not there before its end."""
        with _translated(self.url):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            for page in pages:
                for item in page.get("Contents", []):
                    name = item["Key"].removeprefix(self._prefix)
                    yield StoredObject(name, item["Size"], item["LastModified"])

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects, in batches."""
        keys = [{"Key": self._prefix + name} for name in names]
        with _translated(self.url):
            for start in range(0, len(keys), _DELETE_BATCH):
                answer = self._client.delete_objects(
                    Bucket=self._bucket,
                    Delete={"Objects": keys[start : start + _DELETE_BATCH], "Quiet": True},
                )
                for refused in answer.get("Errors", []):
                    raise StorageFailed(f"{self.url}: {refused['Key']} was not deleted: {refused['Code']}")

    def forget_unfinished(self, before: datetime) -> None:
        """Abort uploads of killed backups where the role may list them; elsewhere a life-cycle rule does.

        Those of other programs go on: the prefix may be theirs, too, or empty.
        """
        with suppress(StorageFailed), _translated(self.url):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            for upload in [item for page in pages for item in page.get("Uploads", [])]:
                backup_id = upload["Key"].removeprefix(self._prefix).partition("/")[0]
                if time_of(backup_id) is not None and upload["Initiated"] < before:
                    self._client.abort_multipart_upload(
                        Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}


class _Upload:
    """One object: put at once when it is small, in chunks when it is not."""

    def __init__(
        self, client: Client, at: dict[str, str], encryption: dict[str, str], chunk_bytes: int
    ) -> None:
        self._client = client
        self._at = at
        self._encryption = encryption
        self._chunk_bytes = chunk_bytes
        self._buffer = bytearray()
        self._upload_id: str | None = None
        self._chunks: list[dict[str, Any]] = []

    def write(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= self._chunk_bytes:
            self._send_chunk(bytes(self._buffer[: self._chunk_bytes]))
            del self._buffer[: self._chunk_bytes]

    def commit(self) -> None:
        if self._upload_id is None:
            content = bytes(self._buffer)
            with _translated(self._where):
                self._client.put_object(
                    **self._at, **self._encryption, Body=content, ChecksumSHA256=_checksum(content)
                )
            return
        if self._buffer:
            self._send_chunk(bytes(self._buffer))
            self._buffer.clear()
        with _translated(self._where):
            self._client.complete_multipart_upload(
                **self._at, UploadId=self._upload_id, MultipartUpload={"Parts": self._chunks}
            )
        self._upload_id = None

    def abort(self) -> None:
        self._buffer.clear()
        if self._upload_id is None:
            return
        with suppress(StorageFailed), _translated(self._where):
            self._client.abort_multipart_upload(**self._at, UploadId=self._upload_id)
        self._upload_id = None

    @property
    def _where(self) -> str:
        return f"s3://{self._at['Bucket']}/{self._at['Key']}"

    def _send_chunk(self, content: bytes) -> None:
        with _translated(self._where):
            if self._upload_id is None:
                begun = self._client.create_multipart_upload(
                    **self._at, **self._encryption, ChecksumAlgorithm="SHA256"
                )
                self._upload_id = begun["UploadId"]
            number, checksum = len(self._chunks) + 1, _checksum(content)
            answer = self._client.upload_part(
                **self._at,
                UploadId=self._upload_id,
                PartNumber=number,
                Body=content,
                ChecksumSHA256=checksum,
            )
        self._chunks.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum})


class _Download:
    """One object, read to its end; a connection that is cut is taken up where it was."""

    def __init__(self, client: Client, at: dict[str, str]) -> None:
        self._client = client
        self._at = at
        self._position = 0
        self._etag: str | None = None
        self._body = self._get()

    def read(self, size: int) -> bytes:
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415 -- boto3 costs as much as FastAPI
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 -- likewise

        with _translated(self._where):
            for left in reversed(range(ATTEMPTS)):
                try:
                    piece: bytes = self._body.read(size)
                except (BotoCoreError, HTTPError, OSError):
                    if not left:
                        raise
                    self.close()
                    self._body = self._get()
                else:
                    self._position += len(piece)
                    return piece
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        self._body.close()

    @property
    def _where(self) -> str:
        return f"s3://{self._at['Bucket']}/{self._at['Key']}"

    def _get(self) -> Any:  # noqa: ANN401 -- botocore's StreamingBody
        rest = {"Range": f"bytes={self._position}-", "IfMatch": self._etag} if self._position else {}
        with _translated(self._where):
            answer = self._client.get_object(**self._at, **rest)
        self._etag = answer["ETag"]
        return answer["Body"]


def _client_for(bucket: str) -> Client:
    """Return a client for the region that the bucket is in, which S3 tells even those it refuses."""
    import boto3  # noqa: PLC0415 -- as above
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import ClientError  # noqa: PLC0415

    config = Config(
        connect_timeout=5,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
    )
    with _translated(f"s3://{bucket}"):
        client: Any = boto3.client("s3", config=config)
        try:
            answer: Any = client.head_bucket(Bucket=bucket)
        except ClientError as error:
            answer = error.response
            if error.response.get("Error", {}).get("Code") not in {"301", "400", "403"}:
                raise
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        region = answer.get("BucketRegion") or headers.get("x-amz-bucket-region")
        if region and region != client.meta.region_name:
            client = boto3.client("s3", config=config, region_name=region)
    return client


def _checksum(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


@contextmanager
def _translated(where: str) -> Generator[None]:
    """Say what S3 said in words; no object is LookupError."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 -- as above
    from urllib3.exceptions import HTTPError  # noqa: PLC0415 -- likewise

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code == "NoSuchKey":
            raise LookupError(where) from None
        hint = f" ({_HINTS[code]})" if code in _HINTS else ""
        raise StorageFailed(f"{where}: S3 answered {code}{hint}") from error
    except (BotoCoreError, HTTPError, OSError) as error:
        name = type(error).__name__
        raise StorageFailed(f"{where}: {_HINTS.get(name, 'no answer from S3')} ({name})") from error
