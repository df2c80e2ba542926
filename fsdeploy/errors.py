"""Errors that a user can cause. Each says what was wrong, in which file, and what to do about it, in one line."""


class FsdeployError(Exception):
    """Base of every error that is shown to a user as one line, without a traceback."""

    exit_code = 2


class InputError(FsdeployError):
    """A path, file or argument that cannot be used (exit code 2)."""


class ConfigError(InputError):
    """An option with an unknown name or a value outside its range (exit code 2)."""


class PluginError(InputError):
    """An installed plugin that cannot be imported, or does not do what its base class says (exit code 2)."""


class UnknownModelError(InputError):
    """No usable model plugin of that name is installed (exit code 2)."""


class CorruptModelError(InputError):
    """A model folder or one of its files is damaged or incomplete (exit code 2)."""


class ReplacedError(InputError):
    """A model that was saved anew while it was being read: what was read is of no one save (exit code 2)."""


class NotAFaceError(InputError):
    """An image without usable face metadata (exit code 2)."""


class UnsupportedFormatError(InputError):
    """A legacy file of an unknown or refused format (exit code 2)."""


class HostileFileError(InputError):
    """A file that claims absurd sizes, reaches outside itself or carries code (exit code 2)."""


class CheckFailedError(FsdeployError):
    """The work was done and did not meet its own check (exit code 1)."""

    exit_code = 1


class ProviderUnavailableError(FsdeployError):
    """The requested execution provider cannot run here (exit code 3)."""

    exit_code = 3
