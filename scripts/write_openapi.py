# ruff: noqa: INP001 -- a script is no package
"""Write docs/openapi.json, or print it with `--print`. Needs no database: none is opened before a request."""

import json
import sys
from pathlib import Path

from auth_manager.app import build_resources, create_app
from auth_manager.settings import Settings
from auth_manager.signing_keys import generate_signing_key, serialize_key_set

TARGET = Path(__file__).resolve().parent.parent / "docs" / "openapi.json"


def render() -> str:
    """Return the OpenAPI document of the defaults, whatever AUTH_* the environment has; keys sorted."""
    settings = Settings(
        mode="local",
        docs_enabled=True,
        public_url="http://127.0.0.1:8000",
        product_name=Settings.model_fields["product_name"].default,
        cors_origins=(),
        database_url="postgresql://localhost/none",
        # Made for this and thrown away; ES256 because an RSA key takes seconds.
        signing_algorithm="ES256",
        signing_keys=serialize_key_set([generate_signing_key("ES256")]),
        signing_keys_file="",
        signing_keys_secret_arn="",
        secret_keys=("thrown-away-0123456789-abcdefghijklmnop",),
    )
    document = create_app(build_resources(settings)).openapi()
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the document, or print it."""
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(render())
        return
    TARGET.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
