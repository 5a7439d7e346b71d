"""Three trials of a new user, from a file to a recommendation: every command, and every error on the way.

    python benchmarks/new_users.py --model MINILM --classifier FOLDER --out docs/results/import

tickets     one semicolon-separated file of support tickets, five unbalanced classes; lines in Latin-1 and
            lines in UTF-8 with emoji
intents     a folder with files of train and validation rows, 150 intents
unlabelled  300 texts without labels, for a model that was fine-tuned elsewhere

The rows are generated. The first command of each trial has no options on how its file is read; where it is
refused, the next one adds the options that the error names. Training is short: scores are not the point. Each
trial is written to OUT/new-users-NAME.md.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

QUICK = ("--grid", "none", "--rounds", "3", "--meter", "none")
TRAINING = ("--epochs", "1", "--max-length", "32")
LONGER = ("--layers", "3", "--epochs", "8", "--lr", "3e-4", "--max-length", "32")
"""For 150 classes, so that the outputs of a model differ by more than the error of int8."""
PACKAGES = ("effx", "torch", "transformers", "onnxruntime")
TICKETS = {
    "Rechnung": ("die Rechnung ist doppelt", "the invoice has the wrong amount", "bitte Beträge prüfen"),
    "Versand": ("das Paket ist nicht da", "parcel is late", "Lieferung nach Zürich fehlt"),
    "Rückgabe": ("ich möchte die Schuhe zurückgeben", "how do I return this", "Größe passt nicht"),
    "Technik": ("die App stürzt ab", "login does not work", "Bildschirm bleibt schwarz"),
    "Sonstiges": ("vielen Dank für die Hilfe", "are you hiring", "schönes Geschäft"),
}
SHARES = (100, 50, 30, 14, 6)
VERBS = ("book", "cancel", "change", "find", "pay", "open", "close", "report", "check", "share")
THINGS = ("flight", "hotel", "card", "alarm", "song", "bill", "recipe", "meeting", "order", "ticket", "route",
          "loan", "photo", "list", "account")  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One command of a trial."""

    arguments: tuple[str, ...]
    code: int
    seconds: float
    error: str
    """The last line of stderr, where the command failed."""
    output: str

    @property
    def command(self) -> str:
        return "effx " + " ".join(f"'{part}'" if " " in part or not part else part for part in self.arguments)


def effx(folder: Path, *arguments: str) -> Step:
    """Run a command in a folder."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "effx", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("effx: ")]
    error = "\n".join(lines) if done.returncode else ""
    return Step(arguments, done.returncode, time.perf_counter() - start, error, done.stdout)


def write_tickets(path: Path) -> None:
    """Write a file as exports of a help desk are: lines in Latin-1, those with emoji in UTF-8."""
    rng = random.Random(0)
    rows = [
        (f"{rng.choice(texts)}, Nr. {number}{rng.choice(('', '; danke', ' 😀', ' 🙏'))}", label)
        for (label, texts), count in zip(TICKETS.items(), SHARES, strict=True)
        for number in range(count)
    ]
    rng.shuffle(rows)
    with path.open("wb") as file:
        file.write(b"Nummer;Anfrage;Art\r\n")
        for number, (text, label) in enumerate(rows):
            line = f'{number};"{text}";{label}\r\n'
            file.write(line.encode("utf-8" if any(ord(char) > 255 for char in line) else "latin-1"))


def write_intents(folder: Path) -> None:
    """Write train.csv and validation.csv with 150 intents: six and two rows of each."""
    folder.mkdir()
    train = ("please {} the {}", "I want to {} my {}", "can you {} that {}", "how do I {} a {}",
             "{} the {} now", "need to {} this {} today")  # fmt: skip
    for name, forms in (("train", train), ("validation", ("{} a {}", "could you {} the {} please"))):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["utterance", "intent"])
            writer.writerows(
                (form.format(verb, thing), f"{verb}_{thing}")
                for form in forms
                for verb in VERBS
                for thing in THINGS
            )


def write_texts(path: Path) -> None:
    """Write 300 texts with their numbers, without labels."""
    rng = random.Random(1)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        for number in range(300):
            what, how = rng.choice(("film", "plot", "acting")), rng.choice(("dull", "warm", "good", "bad"))
            writer.writerow([number, f"the {what} of number {number} is {how}"])


def tickets(folder: Path, model: str) -> Iterator[Step]:
    write_tickets(folder / "tickets.csv")
    train = ("train", "finetune", "tickets", "--model", model, "--data", "tickets.csv", *TRAINING)
    yield effx(folder, *train)
    named = ("--split", "0.8", "--encoding", "utf-8,latin-1", "--text-column", "Anfrage", "--label-column",
             "Art")  # fmt: skip
    yield effx(folder, *train, *named)
    yield from measured(folder)


def intents(folder: Path, model: str) -> Iterator[Step]:
    write_intents(folder / "intents")
    yield effx(folder, "train", "finetune", "intents", "--model", model, "--data", "intents", *LONGER)
    yield from measured(folder)


def unlabelled(folder: Path, classifier: str) -> Iterator[Step]:
    write_texts(folder / "texts.csv")
    export = ("export", classifier, "--data", "texts.csv", "--variant", "fp32", "--variant", "int8")
    yield effx(folder, *export)
    yield effx(folder, *export, "--unlabelled")
    yield effx(folder, "profile", *QUICK)
    yield effx(folder, "recommend")


def measured(folder: Path) -> Iterator[Step]:
    """Export, profile and recommend what was trained."""
    yield effx(folder, "export", "--variant", "fp32", "--variant", "int8")
    yield effx(folder, "profile", *QUICK)
    yield effx(folder, "recommend")


TRIALS: dict[str, Callable[[Path, str], Iterator[Step]]] = {
    "tickets": tickets,
    "intents": intents,
    "unlabelled": unlabelled,
}


def page(name: str, steps: Sequence[Step], model: str) -> str:
    """Return a trial as Markdown; the path of the model is replaced by its option."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    lines = [
        f"# From a file to a recommendation, as a new user: {name}",
        "",
        f"Written by `python benchmarks/new_users.py` on {datetime.date.today()}; {platform.machine()}, "
        f"{platform.system()}, Python {platform.python_version()}; {versions}. The rows are generated, the "
        "trainings short, and the machine was not idle: errors are what is tried here, not speed or scores.",
    ]
    errors = sum(step.code != 0 for step in steps)
    lines += ["", f"{errors} error{'s' * (errors != 1)} in {len(steps)} commands.", ""]
    for step in steps:
        lines += [f"    {step.command}", f"    exit code {step.code}, {step.seconds:.0f} s"]
        lines += [f"    {line}" for line in step.error.splitlines()]
        lines.append("")
    lines += [f"    {line}".rstrip() for line in steps[-1].output.splitlines()[:12]]
    return "\n".join(lines).replace(model, "CLASSIFIER" if name == "unlabelled" else "MINILM") + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True, help="pretrained encoder")
    parser.add_argument("--classifier", required=True, help="model that was fine-tuned elsewhere, one text")
    parser.add_argument("--trial", action="append", choices=TRIALS, help="only this one")
    parser.add_argument("--out", type=Path, required=True, help="folder of the Markdown files")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    most_errors = 0
    with tempfile.TemporaryDirectory(prefix="new-users-") as scratch:
        for name in options.trial or TRIALS:
            folder = Path(scratch) / name
            folder.mkdir()
            model = str(Path(options.classifier if name == "unlabelled" else options.model).resolve())
            steps = []
            for step in TRIALS[name](folder, model):
                print(f"{step.command}: exit code {step.code} {step.error}", flush=True)
                steps.append(step)
            (options.out / f"new-users-{name}.md").write_text(page(name, steps, model), encoding="utf-8")
            most_errors = max(most_errors, sum(step.code != 0 for step in steps))
    return int(most_errors > 1)


if __name__ == "__main__":
    sys.exit(main())
