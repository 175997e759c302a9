"""papermill, which starts in half of the time, one at a time for each executed notebook, and ends
with whoever started the workflow.

jsonschema loads a grammar of web addresses where it finds one (rfc3987_syntax, which Jupyter brings
along), and that takes a second each time. No notebook's schema asks for it.
"""
import os
import sys
from pathlib import Path

sys.modules["rfc3987_syntax"] = None # as if it were not installed
os.environ.pop("PYTHONOPTIMIZE", None) # notebooks assert what they say

import psutil # noqa: E402 (Jupyter brings it)
from papermill.cli import papermill # noqa: E402

from edgetpu_repro.core.errors import UsageError # noqa: E402
from edgetpu_repro.core.files import hold # noqa: E402
from edgetpu_repro.core.processes import follow # noqa: E402

LEFT_S = 60 # seconds for the same notebook of a killed run to end
AT_ONCE_S = 3 # seconds for a kernel to write a checkpoint, before it is killed


def end():
    "End the kernel, what it started, and this process."
    below = psutil.Process().children(recursive=True)
    for process in below:
        try: process.terminate()
        except psutil.NoSuchProcess: pass
    for process in psutil.wait_procs(below, AT_ONCE_S)[1]: process.kill()
    os._exit(1)


def main():
    "Run the notebook of the command line."
    follow(end)
    executed = Path(sys.argv[2]).resolve()
    with hold(executed.with_name(f".{executed.name}.lock"), f"notebook {executed}", LEFT_S):
        papermill()


if __name__ == "__main__":
    try: main()
    except UsageError as e: sys.exit(f"error: {e}")
