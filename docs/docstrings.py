"""An extension of griffe: an ``Example:`` in a docstring is a section of examples.

Google's style guide writes "Example:" for one and "Examples:" for several. Griffe knows the second
alone, and would show the prompts ``>>>`` of the first as quotations.
"""

import re

import griffe


class Examples(griffe.Extension):
    """Reads "Example:" as "Examples:"."""

    def on_instance(self, *, obj: griffe.Object, **_) -> None:
        """Called by griffe with every object that it has parsed."""
        if obj.docstring:
            obj.docstring.value = re.sub(
                r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE
            )
