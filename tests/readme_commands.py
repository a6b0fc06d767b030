"""Run every command of the README in order, as a new user would; CI calls it after the tests.

Blocks fenced as `bash` are run line by line; the two install lines lose their `pip install` part, which CI has done.
Lines after `# not run` in a block are for the reader only.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def commands(text: str) -> list[str]:
    """Commands of all bash blocks, in order."""
    found = []
    for block in re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        runnable = block.partition("# not run")[0]
        for line in runnable.replace("\\\n", " ").splitlines():
            command = re.sub(r"^pip install -e \S+ && ", "", line.split("  #")[0].strip())
            if command and not command.startswith(("#", "git clone", "cd ")) and command != "pytest":
                found.append(command)
    return found


def main() -> int:
    """Run them; stops at the first that fails."""
    for command in commands((ROOT / "README.md").read_text()):
        started = time.monotonic()
        done = subprocess.run(
            command, shell=True, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        print(f"{time.monotonic() - started:6.1f} s  exit {done.returncode}  {command}", flush=True)
        if done.returncode:
            print(done.stdout[-3000:], done.stderr[-3000:], sep="\n")
            return 1
        if command == "python search.py":
            print("\n".join(done.stderr.splitlines()[-12:]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
