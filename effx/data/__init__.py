"""Rows of a task: from local files, the Hugging Face hub, or the embedded demo corpus. Without PyTorch.

text         bytes -> text: encodings, compression
dialects     text -> fields: delimiter and quoting
tables       files -> tables: CSV, JSON, parquet
layouts      folder -> files of a split: plain names, the hub's layouts, GLUE's original files
columns      header -> which columns hold the texts and the label
labels       label texts -> the kind of task, and numbers
split        one file -> training and validation rows
retrieval    documents, queries and which belong together
load         all of these together
location     artifact -> files of its rows on this machine
summary      rows -> what was understood of them, and the baseline
"""

from effx.data.layouts import PREDICTED_SPLITS, has_documents
from effx.data.load import (
    Cache,
    column_values,
    load,
    load_to_measure,
    paths,
    published_numbers,
    resolve,
    resolve_to_measure,
)
from effx.data.location import locate, recorded
from effx.data.rows import Origin, Rows, UnlabelledRows
from effx.data.summary import Baseline, DataSummary, scored, summarize, truncation

__all__ = [
    "PREDICTED_SPLITS",
    "Baseline",
    "Cache",
    "DataSummary",
    "Origin",
    "Rows",
    "UnlabelledRows",
    "column_values",
    "has_documents",
    "load",
    "load_to_measure",
    "locate",
    "paths",
    "published_numbers",
    "recorded",
    "resolve",
    "resolve_to_measure",
    "scored",
    "summarize",
    "truncation",
]
