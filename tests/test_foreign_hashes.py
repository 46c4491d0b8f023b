"""Hashes that passlib does not know."""

import base64
import hmac

import bcrypt
import pytest

from auth_manager.foreign_hashes import VERIFIERS, verify_firebase, verify_wordpress
from auth_manager.passwords import FOREIGN_SCHEMES, find_scheme

FIREBASE = (
    "$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,"
    "sk=jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA=="
    "$42xEC+ixf3L2lw=="
    "$lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ=="
)
"""The vector of github.com/firebase/scrypt, in GoTrue's notation."""

GOTRUE = (
    "$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,"
    "sk=ou9tdYTGyYm8kuR6Dt0Bp0kDuAYoXrK16mbZO4yGwAn3oLspjnN0/c41v8xZnO1n14J3MjKj1b2g6AUCAlFwMw=="
    "$C0sHCg9ek77hsg=="
    "$zKVTMvnWVw5BBOZNUdnsalx4c4c7y/w7IS5p6Ut2+CfEFFlz37J9huyQfov4iizN8dbjvEJlM5tQaJP84+hfTw=="
)
"""The vector of Supabase's own tests."""


class TestFirebase:
    @pytest.mark.parametrize(
        ("stored", "password"), [(FIREBASE, "user1password"), (GOTRUE, "mytestpassword")]
    )
    def test_published_vectors(self, stored: str, password: str) -> None:
        assert verify_firebase(password.encode(), stored)
        assert not verify_firebase(password.upper().encode(), stored)
        assert not verify_firebase(b"", stored)
        assert find_scheme(stored) == "firebase_scrypt"

    @pytest.mark.parametrize(
        "stored",
        [
            FIREBASE.replace("n=14", "n=18"),
            FIREBASE.replace("r=8", "r=9"),
            FIREBASE.replace("p=1", "p=2"),
            FIREBASE.replace("v=1", "v=2"),
            FIREBASE + "\n",
            FIREBASE.replace("$42", "$4?"),
        ],
    )
    def test_other_forms_and_costs_are_not_evaluated(self, stored: str) -> None:
        assert find_scheme(stored) is None

    @pytest.mark.parametrize("stored", ["", "$fbscrypt$", FIREBASE.replace("==$42", "=$4")])
    def test_what_is_none_is_a_value_error(self, stored: str) -> None:
        with pytest.raises(ValueError):
            verify_firebase(b"user1password", stored)


class TestWordpress:
    @pytest.mark.parametrize("password", ["Correct-Horse-7!", "x" * 100, "motörhead"])
    def test_more_than_72_bytes_count(self, password: str) -> None:
        digest = base64.b64encode(hmac.digest(b"wp-sha384", password.encode(), "sha384"))
        stored = "$wp" + bcrypt.hashpw(digest, bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$")
        assert find_scheme(stored) == "wordpress_bcrypt"
        assert verify_wordpress(password.encode(), stored)
        assert not verify_wordpress((password + "x").encode(), stored)


def test_every_verifier_has_a_form() -> None:
    assert VERIFIERS.keys() <= FOREIGN_SCHEMES.keys()
