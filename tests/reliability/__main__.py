"""Runs the campaign from the root of the project: `python -m tests.reliability`.

Owns the one thing that differs there: the tests' directory, where the scenarios and what they share
with the tests are found, is put on the path.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from reliability.run import main

if __name__ == "__main__":
    sys.exit(main())
