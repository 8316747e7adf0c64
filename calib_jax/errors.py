"""The one exception type for what a user can mend, and the warning for what they should know."""


class UserError(ValueError):
    """Bad input: the message names the file, row, field or key, and the remedy.

    ``main`` prints the message alone, without a traceback, and exits with status 1.
    """


class UserNotice(UserWarning):
    """What a user should know and may ignore; ``main`` prints it as one line on standard error."""
