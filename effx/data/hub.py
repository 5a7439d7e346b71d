"""Rows of a task from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence

from effx.data.tables import Table
from effx.errors import DataError, need
from effx.specs.tasks import Hub


def read(hub: Hub, split: str) -> Table:
    """Return the rows of a split.

    Raises:
        DataError: they cannot be loaded.
    """
    need("hub", "datasets")
    from datasets import ClassLabel, load_dataset

    matched = "_matched" if hub.validation.endswith("_matched") else ""  # MNLI's
    hub_split = {"validation": hub.validation, "test": f"test{matched}"}.get(split, split)
    where = f"{hub.path}{'/' + hub.config if hub.config else ''}, {hub_split}"
    try:
        dataset = load_dataset(hub.path, hub.config, split=hub_split)
    except Exception as error:  # the hub client raises many kinds, without a common base
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"cannot load {where} from the Hugging Face hub ({reason}). Give a folder with local files",
            settings="data",
        ) from error
    columns = tuple(dataset.column_names)
    rows: list[Sequence[object]] = [[row[column] for column in columns] for row in dataset]
    names = {
        column: tuple(feature.names)
        for column, feature in dataset.features.items()
        if isinstance(feature, ClassLabel) and feature.names
    }
    return Table(columns, rows, ((where, len(rows)),), "Hugging Face hub", names)
