"""The paths of the project's folders.

Must never depend on the current directory, because tests run from any.
"""

from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
