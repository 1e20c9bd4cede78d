"""The warning of the plugin. Owns its name, by which a project filters it."""

__all__ = ["LeftOpenWarning"]


class LeftOpenWarning(UserWarning):
    """A test has left a connection open to one of its servers."""

    __module__ = "rsock.pytest_plugin"
