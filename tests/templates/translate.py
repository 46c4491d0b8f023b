"""The SAM transform, as a program: a resolved template comes in, what CloudFormation gets goes out.

Run by the Python of .venv-tools, because the transform holds pydantic back.
"""

import json
import sys

from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

if __name__ == "__main__":
    json.dump(Translator({}, Parser()).translate(json.load(sys.stdin), {}), sys.stdout)
