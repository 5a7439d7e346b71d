"""A collection for retrieval, made of SQuAD: paragraphs are documents, questions are queries.

    python benchmarks/retrieval_rows.py dev-v1.1.json collection --queries 500

The paragraph of a question is the only relevant document, though others may answer it too; so scores are
lower bounds. Questions are chosen at random, with a fixed seed. Writes corpus.jsonl (with the article as
title), queries.jsonl and qrels/test.tsv, as BEIR does.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("squad", type=Path, help="file of SQuAD v1.1, also .gz")
    parser.add_argument("out", type=Path)
    parser.add_argument("--queries", type=int, default=500)
    options = parser.parse_args()
    content = options.squad.read_bytes()
    articles = json.loads(gzip.decompress(content) if options.squad.suffix == ".gz" else content)["data"]
    documents: list[dict[str, Any]] = []
    questions: list[tuple[str, str, str]] = []
    for article in articles:
        title = article["title"].replace("_", " ")
        for number, paragraph in enumerate(article["paragraphs"]):
            name = f"{article['title']}-{number}"
            documents.append({"_id": name, "title": title, "text": paragraph["context"]})
            questions += [(each["id"], each["question"], name) for each in paragraph["qas"]]
    random.Random(0).shuffle(questions)
    chosen = questions[: options.queries]
    (options.out / "qrels").mkdir(parents=True, exist_ok=True)
    write(options.out / "corpus.jsonl", documents)
    write(options.out / "queries.jsonl", [{"_id": name, "text": text} for name, text, _ in chosen])
    lines = ["query-id\tcorpus-id\tscore", *(f"{name}\t{document}\t1" for name, _, document in chosen)]
    (options.out / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(documents)} documents, {len(chosen)} queries in {options.out}")


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
