"""`python -m tests.benches [NAME ...]`: all benchmarks of this machine without a name.

Those of others begin with their own name, and what follows is theirs: `training [files bucket ...]`, `cluster [trees leaves ...]`, `slurm`,
`runners PYTHON`, `peers lance=PYTHON ...`, where PYTHON has what they are compared with.
"""

import subprocess
import sys
from pathlib import Path

from tests.benches.bench import main

SCRIPTS = ("training", "cluster", "slurm", "runners", "peers")

if sys.argv[1:2] and sys.argv[1] in SCRIPTS:
    script = Path(__file__).with_name(f"{sys.argv[1]}.py")
    sys.exit(subprocess.run([sys.executable, str(script), *sys.argv[2:]], check=False).returncode)
main()
