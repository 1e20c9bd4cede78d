"""How a code block of the docs is found.

Must never run one: each test runs the blocks of its page in its own way.
"""

import re

BLOCK = re.compile(r"^```python[ \t]*(?P<note>[^\n]*)\n(?P<code>.*?)^```[ \t]*$", re.M | re.S)
