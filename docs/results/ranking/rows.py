"""Rows of ranking from QNLI: a question with the sentence that answers it and nine others of the split.

The others are those with the most words of the question among 100 random sentences.
"""
import gzip, json, random, re, sys
from pathlib import Path

source, target = map(Path, sys.argv[1:])
for split, questions in (("train", 400), ("validation", 200)):
    rng = random.Random(0)
    with gzip.open(source / f"{split}.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    answered = [row for row in rows if row["label"] == 0]
    rng.shuffle(answered)
    sentences = sorted({row["sentence2"] for row in rows})
    words = lambda text: set(re.findall(r"\w+", text.lower()))
    with (target / f"{split}.jsonl").open("w") as out:
        seen = set()
        for row in answered:
            query, passage = row["sentence1"], row["sentence2"]
            if query in seen:
                continue
            seen.add(query)
            others = [text for text in rng.sample(sentences, 101) if text != passage][:100]
            others.sort(key=lambda text: -len(words(text) & words(query)))
            candidates = [(passage, 1), *((text, 0) for text in others[:9])]
            rng.shuffle(candidates)
            for text, label in candidates:
                out.write(json.dumps({"query": query, "passage": text, "label": label}) + "\n")
            if len(seen) == questions:
                break
