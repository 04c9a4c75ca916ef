"""The folder with everything of one soak, gigabytes of it: made anew for each, and so only ever removed by its mark."""

import shutil
from pathlib import Path

MARK = "made-by-soak"


def made(out: Path) -> Path:
    """An empty `state` below `out`, in place of an earlier soak's. What is not a soak's stays, and is an error."""
    folder = out.resolve() / "state"
    if folder.exists():
        if not (folder / MARK).is_file():
            raise FileExistsError(f"{folder} is not of a soak; remove it, or say another --out")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    return folder
