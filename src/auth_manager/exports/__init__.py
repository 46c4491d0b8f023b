"""Moving out: every account with all that belongs to it, as JSON Lines that anybody can read.

docs/exporting.md has the format; `auth-manager import --from json` reads it back.
"""

FORMAT = "auth-manager-export"
FORMAT_VERSION = 1


class ExportFailed(Exception):
    """Nothing is exported; the message says why."""
