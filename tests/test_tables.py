"""The tables in docs/ are those that the results and the experiments make."""

import subprocess
import sys


def test_tables_are_fresh(root):
    command = [sys.executable, str(root / "tools" / "make_tables.py"), "--check"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
