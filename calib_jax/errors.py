"""The one exception type for what a user can mend."""


class UserError(ValueError):
    """Bad input: the message names the file, row, field or key, and the remedy.

    ``main`` prints the message alone, without a traceback, and exits with status 1.
    """
