"""papermill, which starts in half of the time.

jsonschema loads a grammar of web addresses where it finds one (rfc3987_syntax, which Jupyter brings
along), and that takes a second each time. No notebook's schema asks for it.
"""
import sys

sys.modules["rfc3987_syntax"] = None # as if it were not installed

from papermill.cli import papermill # noqa: E402

papermill()
