"""Draw the pictures of docs/pictures.md with its code: `python scripts/doc_pictures.py`."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def draw(folder: Path) -> None:
    """Run the page's code, block by block, in a folder that its files go to."""
    page = (DOCS / "pictures.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    with contextlib.chdir(folder):
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", page, re.S)):
            exec(compile(block, f"pictures.md, block {number}", "exec"), names)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder))
        for picture in sorted(Path(folder).glob("*.png")):
            shutil.copy(picture, DOCS / "images" / picture.name)
            print(f"{picture.name}: {picture.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
