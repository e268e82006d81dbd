"""Remove a torchvision that cannot be imported, and say so.

backpack-for-pytorch requires torchvision, whose wheels are built against a CUDA torch and fail to
import beside a CPU build. BackPACK does not need it at run time, but `import transformers` finds
it and breaks. Run after every install.
"""

import importlib.util
import subprocess
import sys


def main() -> None:
    if importlib.util.find_spec("torchvision") is None:
        return
    trial = subprocess.run(
        [sys.executable, "-c", "import torchvision"], capture_output=True, text=True, check=False
    )
    if trial.returncode == 0:
        return
    reason = (trial.stderr.strip().splitlines() or ["no message"])[-1]
    print(f"torchvision cannot be imported here ({reason}); removing it, nothing needs it")
    subprocess.run(
        [sys.executable, "-m", "pip", "uninstall", "--yes", "--quiet", "torchvision"], check=True
    )


if __name__ == "__main__":
    main()
