"""Errors that a user can mend: one line that names the thing, the value and the way out."""


class DataError(Exception):
    """A file, model, image or prompt that cannot be used. The command ends with exit code 1."""


class MachineStopped(Exception):
    """A machine stopped with an error; the message has its code, the instruction and the layer. The
    command ends with exit code 1."""


class Mismatch(Exception):
    """Two machines left different bytes; the message says which, where and when. The command ends
    with exit code 1."""


class UsageError(Exception):
    """An option or argument that makes no sense. The command ends with exit code 2."""
