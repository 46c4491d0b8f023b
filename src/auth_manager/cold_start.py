"""What the start of a process that somebody waits for leaves out. The figures are in docs/performance.md."""

import gc
import sys
from collections.abc import Generator
from contextlib import contextmanager

SPARED_IMPORTS = (
    "email_validator",  # for the `contact` of an OpenAPI document; ours has none
    "pydantic.v1",  # to recognise models of pydantic 1
)
"""Modules that FastAPI loads for what we have no use for, and does without where they are missing."""


@contextmanager
def sparing_imports() -> Generator[None]:
    """Make these imports fail as if the modules were not installed; afterwards they work as ever.

    None in `sys.modules` is Python's own way to say so (language reference, section 5.3.1). For a process
    with one thread: another one that wants such a module meanwhile fails, too.
    """
    missing = [name for name in SPARED_IMPORTS if name not in sys.modules]
    sys.modules.update(dict.fromkeys(missing))  # type: ignore[arg-type]  # see above
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


@contextmanager
def sparing_collections() -> Generator[None]:
    """Look for no garbage meanwhile, nor ever again among what is there at the end: modules and routes stay.

    Otherwise the collector walks through all of it, again and again as it grows, and later in the middle of
    a request.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
