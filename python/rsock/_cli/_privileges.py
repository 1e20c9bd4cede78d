"""The identity of a process, for `--user` or `--group`. It must never gain a privilege."""

import grp
import os
import pwd

from ._errors import Failure, UsageError, message

__all__ = ["Identity"]


class Identity:
    """What a process becomes once it has bound its addresses.

    Raises UsageError for a user or a group that does not exist.
    """

    def __init__(self, user: str | None, group: str | None) -> None:
        self._user: pwd.struct_passwd | None = None
        self._group: int | None = None
        if user is not None:
            try:
                number = user.isascii() and user.isdigit()
                self._user = pwd.getpwuid(int(user)) if number else pwd.getpwnam(user)
            except (KeyError, OverflowError):
                raise UsageError(f"--user {user!r}: no such user") from None
            self._group = self._user.pw_gid
        if group is not None:
            try:
                number = group.isascii() and group.isdigit()
                self._group = (grp.getgrgid(int(group)) if number else grp.getgrnam(group)).gr_gid
            except (KeyError, OverflowError):
                raise UsageError(f"--group {group!r}: no such group") from None

    def take(self) -> None:
        """Become this user and group, with the user's further groups; all threads do.

        Raises Failure if the process may not.
        """
        try:
            if self._group is not None:
                if os.geteuid() == 0:
                    name = self._user.pw_name if self._user is not None else None
                    if name is None:
                        os.setgroups([self._group])
                    else:
                        os.initgroups(name, self._group)
                os.setgid(self._group)
            if self._user is not None:
                os.setuid(self._user.pw_uid)
        except OSError as error:
            what = "--user" if self._user is not None else "--group"
            raise Failure(f"{what}: {message(error)}") from None
