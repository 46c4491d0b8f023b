"""Backups in S3: moto's server, with a proxy before it that makes it ill."""

import base64
import hashlib
import http.client
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer
from tests.backups.conftest import OPERATOR, START, Service, contents, run_sql

from auth_manager.app import build_resources
from auth_manager.aws import backup_storage
from auth_manager.aws.backup_storage import Bucket, open_bucket
from auth_manager.backups import StorageFailed
from auth_manager.backups.archive import make_id
from auth_manager.backups.reading import check_parts, open_manifest
from auth_manager.backups.restoring import restore, verify
from auth_manager.backups.retention import Keep, delete_old, find_backup, list_backups
from auth_manager.backups.writing import back_up
from auth_manager.database import Database
from auth_manager.settings import Settings

REGION = "eu-central-1"
BUCKET_REGION = "ap-southeast-2"
CHUNK = 5 * 1024 * 1024
"""S3's least, and moto's."""

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
BAD_DIGEST = b"<Error><Code>BadDigest</Code><Message>The checksum did not match.</Message></Error>"
READ_TIMEOUT = 1.0

BACKUP_ID = make_id(START, bytes(4))
CONTENT = os.urandom(3 * CHUNK + 12_345)


class Proxy(ThreadingHTTPServer):
    """Hands requests on to moto. `fault` says for each what goes wrong: "",
    slow_down, cut, slow, half or lost.

    As S3 does and moto does not, it refuses an upload whose SHA-256 is missing or another one.
    """

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = urlsplit(upstream).netloc
        self.fault: Fault = no_fault
        self.fault_of_path: Callable[[str, str], str] = no_fault
        self.seen: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


Fault = Callable[[str, dict[str, list[str]]], str]


def no_fault(_method: str, _where: object) -> str:
    return ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.handle_any
        raise AttributeError(name)

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append(self.command)
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        fault = self.server.fault(self.command, query) or self.server.fault_of_path(self.command, self.path)
        is_object = self.path.count("/") > 1
        if fault == "cut":
            self.close_connection = True
        elif fault == "slow_down":
            self.answer(503, {}, SLOW_DOWN)
        elif self.command == "PUT" and is_object and self.headers["x-amz-checksum-sha256"] != checksum(body):
            self.answer(400, {}, BAD_DIGEST)
        else:
            time.sleep(READ_TIMEOUT + 1 if fault == "slow" else 0)
            self.hand_on(body, fault)

    def hand_on(self, body: bytes, fault: str) -> None:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=10)
        connection.request(self.command, self.path, body, dict(self.headers.items()))
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if fault == "lost":
            self.close_connection = True
        else:
            self.answer(answer.status, dict(answer.getheaders()), content, half=fault == "half")

    def answer(self, status: int, headers: dict[str, str], content: bytes, *, half: bool = False) -> None:
        ours = {"connection", "transfer-encoding", "date", "server", "content-length"}
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        with suppress(OSError):  # the client may have given up, as it should
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ours:
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if half else content)
        if half:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


def checksum(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def proxy(moto_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Proxy]:
    """An S3 that the environment points to, with credentials from there and from nowhere else."""
    proxy = Proxy(moto_url)
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield proxy
    proxy.close()
    boto3.DEFAULT_SESSION = None


@pytest.fixture
def s3(proxy: Proxy, moto_url: str) -> Any:
    """A client that goes around the proxy."""
    assert proxy.url
    return boto3.Session(region_name=BUCKET_REGION).client("s3", endpoint_url=moto_url)


@pytest.fixture
def bucket_name(s3: Any) -> str:
    """A bucket in another region than ours."""
    name = f"backups-{os.urandom(6).hex()}"
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": BUCKET_REGION})
    return name


@pytest.fixture
def bucket(bucket_name: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """The place below a prefix, with time-outs for tests."""
    original = Config.__init__

    def impatient(self: Config, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options | {"read_timeout": READ_TIMEOUT})

    monkeypatch.setattr(Config, "__init__", impatient)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)
    return open_bucket(bucket_name, "stack/backups", chunk_bytes=CHUNK)


def store(bucket: Bucket, name: str, content: bytes) -> None:
    writer = bucket.create(name)
    try:
        for start in range(0, len(content), 1 << 20):
            writer.write(content[start : start + (1 << 20)])
        writer.commit()
    finally:
        writer.abort()


def read(bucket: Bucket, name: str) -> bytes:
    reader = bucket.open(name)
    content = b""
    while piece := reader.read(1 << 20):
        content += piece
    reader.close()
    return content


def open_uploads(s3: Any, bucket_name: str) -> list[str]:
    return [item["Key"] for item in s3.list_multipart_uploads(Bucket=bucket_name).get("Uploads", [])]


class TestBucket:
    @pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, len(CONTENT)])
    def test_what_is_read_is_what_was_written(
        self, bucket: Bucket, s3: Any, bucket_name: str, size: int
    ) -> None:
        store(bucket, "id/part", CONTENT[:size])
        assert read(bucket, "id/part") == CONTENT[:size]
        assert [(item.name, item.size) for item in bucket.list_objects()] == [("id/part", size)]
        head = s3.head_object(Bucket=bucket_name, Key="stack/backups/id/part")
        assert head["ServerSideEncryption"] == "AES256"
        assert open_uploads(s3, bucket_name) == []

    def test_it_is_encrypted_with_the_key_that_is_set(self, bucket_name: str, s3: Any) -> None:
        place = open_bucket(bucket_name, "", kms_key="alias/backups", chunk_bytes=CHUNK)
        for name, content in {"small": b"x", "large": CONTENT}.items():
            store(place, f"id/{name}", content)
            head = s3.head_object(Bucket=bucket_name, Key=f"id/{name}")
            assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "alias/backups")

    def test_each_chunk_has_a_checksum_that_s3_checks(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, s3: Any, bucket_name: str
    ) -> None:
        monkeypatch.setattr(backup_storage, "_checksum", lambda content: checksum(content + b"x"))
        with pytest.raises(StorageFailed, match="S3 answered BadDigest"):
            store(bucket, "id/part", CONTENT)
        assert open_uploads(s3, bucket_name) == []
        assert list(bucket.list_objects()) == []

    def test_it_finds_the_region_of_the_bucket(self, bucket: Bucket) -> None:
        assert bucket._client.meta.region_name == BUCKET_REGION

    def test_nothing_is_seen_before_the_end(self, bucket: Bucket) -> None:
        writer = bucket.create("id/part")
        writer.write(CONTENT)
        assert list(bucket.list_objects()) == []
        writer.commit()
        assert [item.name for item in bucket.list_objects()] == ["id/part"]

    def test_abort_forgets_it(self, bucket: Bucket, s3: Any, bucket_name: str) -> None:
        writer = bucket.create("id/part")
        writer.write(CONTENT)
        assert open_uploads(s3, bucket_name) == ["stack/backups/id/part"]
        writer.abort()
        assert open_uploads(s3, bucket_name) == []
        assert list(bucket.list_objects()) == []

    def test_what_is_not_there(self, bucket: Bucket) -> None:
        with pytest.raises(LookupError):
            bucket.open("id/part")

    def test_it_deletes_below_its_prefix_alone(self, bucket: Bucket, s3: Any, bucket_name: str) -> None:
        s3.put_object(Bucket=bucket_name, Key="id/part", Body=b"theirs")
        names = [f"id/{number}" for number in range(3)]
        for name in names:
            store(bucket, name, b"x")
        bucket.delete([*names[:2], "id/part"])
        assert [item.name for item in bucket.list_objects()] == ["id/2"]
        assert s3.get_object(Bucket=bucket_name, Key="id/part")["Body"].read() == b"theirs"

    def test_uploads_of_killed_backups_are_aborted_when_they_are_old(
        self, bucket: Bucket, s3: Any, bucket_name: str
    ) -> None:
        bucket.create(f"{BACKUP_ID}/part").write(CONTENT)
        bucket.forget_unfinished(datetime(2000, 1, 1, tzinfo=UTC))
        assert open_uploads(s3, bucket_name) == [f"stack/backups/{BACKUP_ID}/part"]
        # To moto each upload is of 2010.
        bucket.forget_unfinished(datetime.now(UTC))
        assert open_uploads(s3, bucket_name) == []

    @pytest.mark.parametrize("prefix", ["", "stack/backups"], ids=["whole bucket", "prefix"])
    def test_what_is_no_backup_is_left_alone(self, s3: Any, bucket_name: str, prefix: str) -> None:
        """A bucket may have other things in it, below the same prefix, also while they are uploaded."""
        place = open_bucket(bucket_name, prefix, chunk_bytes=CHUNK)
        theirs = [f"{prefix}/{name}".lstrip("/") for name in ("film.mp4", "videos/film.mp4", BACKUP_ID)]
        for key in theirs:
            s3.create_multipart_upload(Bucket=bucket_name, Key=f"{key}.uploading")
            s3.put_object(Bucket=bucket_name, Key=key, Body=b"x")
        for backup_id in (BACKUP_ID, make_id(START, bytes([1] * 4))):
            store(place, f"{backup_id}/manifest.json", b"x")
        [old] = delete_old(place, Keep(1, 0, 0), now=datetime.now(UTC) + timedelta(days=9))
        assert old == BACKUP_ID
        assert sorted(open_uploads(s3, bucket_name)) == sorted(f"{key}.uploading" for key in theirs)
        kept = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket_name)["Contents"]]
        assert len(kept) == len(theirs) + 1
        assert set(theirs) < set(kept)


class TestFaults:
    """Either the object is there, whole, or it fails and nothing is left of it."""

    @pytest.mark.parametrize("fault", ["slow_down", "cut", "slow"])
    @pytest.mark.parametrize("number", ["1", "3"])
    def test_a_chunk_that_fails_once_is_sent_again(
        self, bucket: Bucket, proxy: Proxy, fault: str, number: str
    ) -> None:
        left = [fault]
        proxy.fault = lambda method, query: (
            left.pop() if left and method == "PUT" and query.get("partNumber") == [number] else ""
        )
        store(bucket, "id/part", CONTENT)
        assert left == []
        proxy.fault = no_fault
        assert read(bucket, "id/part") == CONTENT

    @pytest.mark.parametrize("fault", ["slow_down", "cut", "slow"])
    def test_a_chunk_that_fails_for_good_leaves_nothing(
        self, bucket: Bucket, proxy: Proxy, s3: Any, bucket_name: str, fault: str
    ) -> None:
        proxy.fault = lambda method, query: (
            fault if method == "PUT" and query.get("partNumber") == ["2"] else ""
        )
        with pytest.raises(StorageFailed, match="SlowDown" if fault == "slow_down" else "no answer from S3"):
            store(bucket, "id/part", CONTENT)
        assert list(bucket.list_objects()) == []
        assert open_uploads(s3, bucket_name) == []

    @pytest.mark.parametrize("fault", ["slow_down", "cut"])
    @pytest.mark.parametrize("step", ["uploads", "uploadId"], ids=["begin", "complete"])
    def test_an_upload_that_cannot_begin_or_end(
        self, bucket: Bucket, proxy: Proxy, s3: Any, bucket_name: str, fault: str, step: str
    ) -> None:
        proxy.fault = lambda method, query: fault if method == "POST" and step in query else ""
        with pytest.raises(StorageFailed):
            store(bucket, "id/part", CONTENT)
        proxy.fault = no_fault
        assert list(bucket.list_objects()) == []
        assert open_uploads(s3, bucket_name) == []

    def test_a_small_object_that_fails(self, bucket: Bucket, proxy: Proxy) -> None:
        proxy.fault = lambda method, _query: "slow_down" if method == "PUT" else ""
        with pytest.raises(StorageFailed, match="SlowDown"):
            store(bucket, "id/part", b"x")
        assert proxy.seen.count("PUT") == backup_storage.ATTEMPTS

    def test_a_download_that_is_cut_goes_on_where_it_was(self, bucket: Bucket, proxy: Proxy) -> None:
        store(bucket, "id/part", CONTENT)
        left = ["half", "half"]
        proxy.fault = lambda method, query: left.pop() if left and method == "GET" and not query else ""
        assert read(bucket, "id/part") == CONTENT
        assert left == []

    def test_a_download_that_is_always_cut_fails(self, bucket: Bucket, proxy: Proxy) -> None:
        store(bucket, "id/part", CONTENT)
        calls = 0

        def fault(method: str, query: dict[str, list[str]]) -> str:
            nonlocal calls
            calls += method == "GET" and not query
            return "half" if calls == 1 else "cut" if calls else ""

        proxy.fault = fault
        with pytest.raises(StorageFailed):
            read(bucket, "id/part")


class TestRefusals:
    def test_no_such_bucket(self, proxy: Proxy) -> None:
        assert proxy.url
        with pytest.raises(StorageFailed, match="there is no such bucket"):
            open_bucket("nowhere-at-all", "")

    def test_no_credentials(self, proxy: Proxy, bucket_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        assert proxy.url
        boto3.DEFAULT_SESSION = None
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(StorageFailed, match="there are no AWS credentials"):
            open_bucket(bucket_name, "")

    def test_no_answer(self, bucket_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)
        with pytest.raises(StorageFailed, match="no answer from S3"):
            open_bucket(bucket_name, "")

    def test_credentials_of_a_web_identity(
        self, proxy: Proxy, bucket_name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, s3: Any
    ) -> None:
        """OIDC federation, as of a CI job or a Kubernetes pod: no key is stored anywhere."""
        assert proxy.url
        boto3.DEFAULT_SESSION = None
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        token = tmp_path / "token"
        token.write_text("header.payload.signature")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backups")
        place = open_bucket(bucket_name, "federated")
        store(place, "id/part", b"x")
        credentials = place._client._get_credentials()
        assert credentials.method == "assume-role-with-web-identity"
        assert s3.head_object(Bucket=bucket_name, Key="federated/id/part")["ContentLength"] == 1


class TestBackup:
    """A whole backup in S3, with several chunks in a part and several parts in a table."""

    PART = 2 * CHUNK

    @pytest.fixture
    def source(self, database: Database, database_url: str) -> str:
        """A database with 14 MB that cannot be compressed."""
        for number in range(14):
            with database.one_trip() as connection:
                connection.add(
                    """
                    INSERT INTO idempotency_keys
                        (key_hash, request_hash, claim_id, claimed_until, expires_at, answer)
                    VALUES (%(key)s, '', gen_random_uuid(), now(), now(), %(answer)s)
                    """,
                    {"key": bytes([number]), "answer": os.urandom(1 << 20)},
                )
        return database_url

    @pytest.fixture
    def target(self, server_url: str) -> Iterator[str]:
        name = f"auth_manager_s3_{secrets.token_hex(4)}"
        run_sql(server_url, f"CREATE DATABASE {name}")
        yield urlsplit(server_url)._replace(path=f"/{name}").geturl()
        run_sql(server_url, f"DROP DATABASE {name} WITH (FORCE)")

    def test_it_comes_back_and_people_sign_in(
        self,
        bucket: Bucket,
        make_settings: Callable[..., Settings],
        source: str,
        target: str,
        bucket_name: str,
    ) -> None:
        before, after = (
            Service(build_resources(make_settings(database_url=url))) for url in (source, target)
        )
        before.create("anna@example.com")
        manifest = back_up(source, bucket, now=START, part_bytes=self.PART)
        assert [len(table.parts) for table in manifest.tables if table.name == "idempotency_keys"] == [2]

        place = open_bucket(bucket_name, "stack/backups")
        found = find_backup(place, "latest")
        assert verify(source, place, found.id, now=START, random=os.urandom(4)) == manifest
        restore(target, place, found.id, OPERATOR)

        assert {**contents(target), "audit_events": None} == {**contents(source), "audit_events": None}
        assert after.log_in("anna@example.com").status_code == 200
        for service in (before, after):
            service.client.close()
            service.resources.database.close()

    @pytest.mark.parametrize("fault", ["slow_down", "cut", "slow"])
    def test_a_fault_in_the_middle_is_survived(
        self, bucket: Bucket, proxy: Proxy, source: str, fault: str
    ) -> None:
        left = [fault, fault]
        proxy.fault = lambda _method, query: left.pop() if left and query.get("partNumber") == ["2"] else ""
        manifest = back_up(source, bucket, now=START, part_bytes=self.PART)
        assert left == []
        proxy.fault = no_fault
        check_parts(bucket, open_manifest(bucket, manifest.id))

    @pytest.mark.parametrize("fault", ["slow_down", "cut"])
    @pytest.mark.parametrize("where", ["partNumber", "manifest.json"])
    def test_one_that_stays_leaves_no_backup(
        self,
        bucket: Bucket,
        proxy: Proxy,
        source: str,
        s3: Any,
        bucket_name: str,
        where: str,
        fault: str,
    ) -> None:
        count = 0

        def hits(method: str, path: str) -> str:
            nonlocal count
            count += method == "PUT" and where in path
            return fault if method == "PUT" and where in path and (count > 2 or where != "partNumber") else ""

        proxy.fault_of_path = hits
        with pytest.raises(StorageFailed):
            back_up(source, bucket, now=START, part_bytes=self.PART)
        proxy.fault_of_path = no_fault
        assert count > 2
        assert list_backups(bucket) == []
        assert open_uploads(s3, bucket_name) == []

    def test_what_was_lost_alone_is_the_answer(self, bucket: Bucket, proxy: Proxy, source: str) -> None:
        """S3 has the manifest, and nobody hears of it: there is no backup that looks complete."""
        proxy.fault_of_path = lambda method, path: (
            "lost" if method == "PUT" and "manifest.json" in path else ""
        )
        with pytest.raises(StorageFailed):
            back_up(source, bucket, now=START)
        proxy.fault_of_path = no_fault
        assert list_backups(bucket) == []
