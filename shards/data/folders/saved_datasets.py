"""Folders that ``datasets.Dataset.save_to_disk`` writes: which of their Arrow files are the dataset.

``datasets`` leaves files of computed copies (``cache-….arrow``) beside them, so its list of files decides. The library
itself is not needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from storage.errors import Invalid

_LIST: Final = "state.json"
_DESCRIPTION: Final = "dataset_info.json"
_SEVERAL: Final = "dataset_dict.json"


def saved_dataset(folder: Path) -> tuple[Path, ...] | None:
    """Return the files of a saved dataset, in its order; None when the folder does not hold one.

    Raises ``Invalid`` when it holds several datasets, or its list of files is damaged.
    """
    if (folder / _SEVERAL).is_file():
        splits = sorted(each.parent.name for each in folder.glob(f"*/{_LIST}"))
        first = "train" if "train" in splits else next(iter(splits), "train")
        remedy = f"Name one of them, such as {folder / first}."
        raise Invalid("the folder holds a dictionary of datasets", remedy, folder=str(folder))
    if not (folder / _LIST).is_file() or not (folder / _DESCRIPTION).is_file():
        return None
    try:
        names = [each["filename"] for each in json.loads((folder / _LIST).read_text(encoding="utf-8"))["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError):
        names = []
    if not names or any(Path(name).name != name for name in names):
        fact = f"the folder of a saved dataset has a damaged {_LIST}"
        raise Invalid(fact, "Save the dataset again with save_to_disk.", folder=str(folder))
    if missing := [name for name in names if not (folder / name).is_file()]:
        fact = f"the folder of a saved dataset lacks {missing[0]}"
        raise Invalid(fact, "Save the dataset again with save_to_disk.", folder=str(folder))
    return tuple(folder / name for name in names)


def is_about_dataset(name: str) -> bool:
    """Return whether a file of such a folder describes the dataset, and so is not data itself."""
    return name in {_LIST, _DESCRIPTION}
