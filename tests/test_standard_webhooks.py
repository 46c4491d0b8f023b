"""Signatures, against the specification's example and its own library."""

import base64
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from auth_manager.standard_webhooks import generate_secret, headers, parse_secret, sign

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class TestSign:
    def test_the_vector_of_the_reference_libraries(self) -> None:
        signature = sign(
            SECRET,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            datetime.fromtimestamp(1614265330, UTC),
            b'{"test": 2432232314}',
        )
        assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

    def test_the_library_takes_each_of_two_secrets(self) -> None:
        first, second = generate_secret(), generate_secret()
        signed = headers([first, second], "1", datetime.now(UTC), b"{}")
        for secret in (first, second):
            assert Webhook(secret).verify(b"{}", signed) == {}


class TestSecrets:
    def test_each_is_its_own_and_long_enough(self) -> None:
        assert len({generate_secret() for _ in range(100)}) == 100
        assert len(parse_secret(generate_secret())) == 32

    @pytest.mark.parametrize("size", [24, 64])
    def test_what_one_is(self, size: int) -> None:
        assert parse_secret("whsec_" + base64.b64encode(bytes(size)).decode()) == bytes(size)

    @pytest.mark.parametrize(
        "secret",
        [
            "",
            "canary",
            "whsec_",
            "whsec_canary!",
            SECRET.removeprefix("whsec_"),
            "whsec_" + base64.b64encode(bytes(23)).decode(),
            "whsec_" + base64.b64encode(bytes(65)).decode(),
            "whsec_é",
        ],
    )
    def test_what_is_none(self, secret: str) -> None:
        with pytest.raises(ValueError, match="a webhook secret is") as caught:
            sign(secret, "1", datetime.now(UTC), b"")
        assert "canary" not in str(caught.value)
