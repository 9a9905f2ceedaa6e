"""Where am I? What a job sees of the machine that it runs on."""

import os
import platform
import sys
from pathlib import Path

name = sys.argv[1] if len(sys.argv) > 1 else "world"
print(f"Hello, {name}!")
print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
print(f"job {os.environ.get('GRIDX_JOB', '-')}, attempt {os.environ.get('GRIDX_ATTEMPT', '-')}")
print(f"in {Path.cwd()}, as user {os.getuid() if hasattr(os, 'getuid') else '-'}")
