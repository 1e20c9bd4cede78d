"""Where the project's folders are.

Must never depend on the current directory: tests run from any.
"""

from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
