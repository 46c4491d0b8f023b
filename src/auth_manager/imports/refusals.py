"""Why a record, or a whole file, is not imported."""


class Refused(Exception):
    """This record is not imported; `code` is stable, and neither quotes what was in the record."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class FileUnreadable(Exception):
    """The file cannot be read further: what came before is kept, and what follows is not looked at."""
