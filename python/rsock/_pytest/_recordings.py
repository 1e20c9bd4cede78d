"""The recordings of a test: where the file of each is, and the service that plays or makes it.

Owns the names of files. A recording of a test that failed must never replace an older one.
"""

import hashlib
import os
import pathlib
import re
import shlex
from collections.abc import Iterable
from typing import Any, Final

import pytest

from .._replay import Replay
from .._rsock import Forward
from ._targets import forward_to

__all__ = ["TestRecording", "command", "rules_of"]

# The folder, unless the configuration names one.
_FOLDER: Final = "recordings"
# Characters of a name that every file system and every shell pattern can have.
_ODD: Final = re.compile(r"[^\w.,=+@()\[\]-]")
_MOST: Final = 120


class TestRecording:
    """One recording of a test, which is made or played.

    `number`: which one of the test it is, from 1. `redact`: what it must not have. `options`: how
    it is played.
    """

    __test__ = False

    def __init__(
        self, item: pytest.Item, number: int, redact: list[Any], options: dict[str, Any]
    ) -> None:
        self._item = item
        self._redact = redact
        # Those of a Replay.
        self._options = options
        config = item.config
        to = config.getoption("rsock_record")
        self.is_made = to is not None
        self.is_kept = False
        if to is not None:
            self._folder = config.invocation_params.dir / to
        else:
            self._folder = _looked_for(item)
        self.path = self._folder / _name(item, self._folder, number)
        # Complete, and of a test that passed, before it takes the place of an older one.
        self._partial = self.path.with_name(f".{self.path.name}.{os.getpid()}")

    def made_from(self, target: Any, tls: Any) -> Forward:
        """Return the service that records what the server at `target` says."""
        __tracebackhide__ = True
        if callable(target):
            target = target()
        service = forward_to(target, tls=tls, recording=self._partial, redact=self._redact)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return service

    def played(self) -> Replay:
        """Return the service that plays the recording. Fails the test if there is none."""
        __tracebackhide__ = True
        # A wrong pattern is an error now, and not only where it is needed.
        Forward("localhost", 1, recording=self._partial, redact=self._redact)
        if not self.path.exists():
            pytest.fail(
                f"no recording {self._shown(self.path)}\n"
                f"To record it from the real server: {self.again}",
                pytrace=False,
            )
        return Replay(self.path, **self._options)

    def check(self) -> None:
        """Raise what the playing of what was recorded would, such as for a wrong argument."""
        if self._partial.exists():
            Replay(self._partial, **self._options)

    def keep(self) -> None:
        """Keep what was recorded, in place of an older recording."""
        # Missing where the server did not start, as the test may have expected.
        if self._partial.exists():
            self._partial.replace(self.path)
            self.is_kept = True

    def discard(self) -> None:
        """Discard what was recorded, and keep an older recording."""
        self._partial.unlink(missing_ok=True)

    @property
    def again(self) -> str:
        """The command that records it again."""
        folder = shlex.quote(self._shown(self._folder))
        return f"{command(self._item)} --rsock-record={folder}"

    def __str__(self) -> str:
        return self._shown(self.path)

    def _shown(self, path: pathlib.Path) -> str:
        """A path as it is typed where pytest was started."""
        return os.path.relpath(path, self._item.config.invocation_params.dir)


def command(item: pytest.Item) -> str:
    """Return the command that runs a test."""
    # `Config.cwd_relative_nodeid` takes another type from pytest 9.2 on.
    file, colons, test = item.nodeid.partition("::")
    where = os.path.relpath(item.config.rootpath / file, item.config.invocation_params.dir)
    return f"pytest {shlex.quote(where + colons + test)}"


def rules_of(given: Any) -> list[Any]:
    """Return what `redact` may be: a pattern, a (pattern, replacement) pair, or a list of them."""
    is_pair = isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], bytes)
    if isinstance(given, Iterable) and not isinstance(given, bytes | str) and not is_pair:
        return list(given)
    return [given]


def _looked_for(item: pytest.Item) -> pathlib.Path:
    """Where the recordings of a test are played from."""
    config = item.config
    wanted: str = config.getini("rsock_recordings")
    if wanted:
        start = config.rootpath if config.inipath is None else config.inipath.parent
        return start / os.path.expanduser(wanted)
    beside = item.path.parent
    for folder in (beside, *beside.parents):
        if (folder / _FOLDER).is_dir():
            return folder / _FOLDER
        if folder == config.rootpath:
            break
    return beside / _FOLDER


def _name(item: pytest.Item, folder: pathlib.Path, number: int) -> pathlib.Path:
    """The file of a recording below the folder: `test_shop/test_price[tea].rec`."""
    places = (folder.parent, item.config.rootpath, item.path.parent)
    start = next(place for place in places if item.path.is_relative_to(place))
    module = item.path.relative_to(start).with_suffix("")
    _, _, name = item.nodeid.partition("::")
    plain = _ODD.sub("_", name.replace("::", "."))[:_MOST]
    if plain != name.replace("::", "."):
        # Another name may have become the same.
        plain += f"-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    if number > 1:
        plain += f"-{number}"
    return module / f"{plain}.rec"
