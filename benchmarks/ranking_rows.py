"""Write rows of ranking from QNLI: a question with the sentence that answers it and nine others of the split.

The others are those with the most words of the question among 100 random sentences.

    python benchmarks/ranking_rows.py ../shared/data/qnli_subset questions
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

QUESTIONS = {"train": 400, "validation": 200}
OTHERS = 9
DRAWN = 100


def words(text: str) -> set[str]:
    """Return the words of a text in lower case."""
    return set(re.findall(r"\w+", text.lower()))


def ranked(rows: list[dict[str, Any]], questions: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Yield the rows of a number of questions, each with its candidates in random order."""
    answered = [row for row in rows if row["label"] == 0]
    rng.shuffle(answered)
    sentences = sorted({row["sentence2"] for row in rows})
    seen: set[str] = set()
    for row in answered:
        query, passage = row["sentence1"], row["sentence2"]
        if query in seen:
            continue
        seen.add(query)
        others = [text for text in rng.sample(sentences, DRAWN + 1) if text != passage][:DRAWN]
        others.sort(key=lambda text: -len(words(text) & words(query)))
        candidates = [(passage, 1), *((text, 0) for text in others[:OTHERS])]
        rng.shuffle(candidates)
        for text, label in candidates:
            yield {"query": query, "passage": text, "label": label}
        if len(seen) == questions:
            return


def main() -> None:
    """Read QNLI's rows and write train.jsonl and validation.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("qnli", type=Path, help="folder with train.jsonl.gz and validation.jsonl.gz")
    parser.add_argument("target", type=Path, help="folder to write to")
    arguments = parser.parse_args()
    arguments.target.mkdir(parents=True, exist_ok=True)
    for split, questions in QUESTIONS.items():
        with gzip.open(arguments.qnli / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        with (arguments.target / f"{split}.jsonl").open("w", encoding="utf-8") as out:
            for row in ranked(rows, questions, random.Random(0)):
                out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
