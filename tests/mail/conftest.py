from collections.abc import Callable, Iterator

import pytest
from tests.mail.scenes import SENDER, MailServer, serve_mail

from auth_manager.mail.compose import Composer
from auth_manager.one_time_secrets import OneTimeSecrets
from auth_manager.secret_keys import SecretKeys
from auth_manager.settings import Settings


@pytest.fixture
def one_time_secrets(make_settings: Callable[..., Settings]) -> OneTimeSecrets:
    return OneTimeSecrets(SecretKeys(make_settings().secret_keys))


@pytest.fixture
def make_composer(
    make_settings: Callable[..., Settings], one_time_secrets: OneTimeSecrets
) -> Callable[..., Composer]:
    """Composers with a sender; keyword arguments override settings."""
    return lambda **overrides: Composer(make_settings(**{"mail_from": SENDER} | overrides), one_time_secrets)


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    """One in clear, as `tls=none` reaches it."""
    with serve_mail() as server:
        yield server
