"""Runs the reliability suite from the root of the project: `python -m tests.reliability`.

Owns the one difference from an import: it puts the tests' directory on the path, where the
scenarios and the modules that they share with the tests are found. Must never choose a scenario.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from reliability.run import main

if __name__ == "__main__":
    sys.exit(main())
