"""The embedded demo corpus: short reviews from a grammar, with the sentiment the grammar gives.

    review   = verdict | weak verdict, verdict | verdict, CONTRAST verdict | although ...
               [, distractor] [, closing]
    verdict  = SUBJECT was [NEGATION] [INTENSIFIER] ADJECTIVE [and ...]

Every review has a sentiment, which is its label. Its main verdict shows that sentiment, by an
adjective of that sign or a negated adjective of the opposite sign. A clause of a contrast, or one with
a weak intensifier, shows the opposite; what other people say (a distractor) is random. Adjectives
joined by "and" have the same sign, and some reviews close with a plain judgement, so that masked
language modelling can learn which words occur together. Adjectives follow a Zipf law, so many are rare.
A bag of words predicts part of the labels; the rest needs word order. All rows are generated here,
deterministically; nothing is downloaded.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_SIZES = {"train": 6000, "validation": 1000, "pretraining": 16000}
_SEED = 2021

_SUBJECTS = (
    "the film,the plot,the acting,the score,the script,the ending,the book,the story,the prose,the "
    "meal,the soup,the service,the wine,the hotel,the room,the view,the staff,the concert,the singer,the "
    "album,the lecture,the museum,the guide,the game,the pacing,the dialogue,the lead actor,the camera "
    "work,the menu,the dessert"
).split(",")
_POSITIVE = (
    "good,great,lovely,charming,moving,funny,clever,fresh,delightful,superb,warm,graceful,witty,gripping,"
    "elegant,brilliant,tender,honest,inventive,radiant,generous,thoughtful,memorable,vivid,polished,engag"
    "ing,subtle,joyful,splendid,stirring,luminous,exquisite,refined,lively,soulful,masterful,hearty,dazzl"
    "ing,assured,captivating"
).split(",")
_NEGATIVE = (
    "bad,poor,dull,boring,clumsy,bland,awful,stale,tedious,dreary,cold,shallow,crude,lifeless,messy,terri"
    "ble,noisy,false,lazy,grim,stingy,careless,forgettable,murky,sloppy,tiresome,obvious,joyless,dismal,h"
    "ollow,muddled,vulgar,coarse,limp,soulless,botched,greasy,ugly,timid,grating"
).split(",")
_EMPHATIC = ("very", "truly", "extremely", "remarkably", "quite")
_STRONG = ("", "", *_EMPHATIC)
_WEAK = ("slightly", "a little", "somewhat", "a touch")
_NEGATIONS = ("not", "never", "hardly", "far from", "anything but")
_CONTRASTS = ("but", "yet", "however", "still")
_OTHERS = (
    "my brother called it {},the poster promised something {},critics found it {},people say the first "
    "one was {},i was told it would be {},the neighbours thought it {},last year it was {},the reviews "
    "were {}"
).split(",")
_OPENERS = ("", "", "", "honestly ", "in the end ", "all in all ", "to my surprise ", "tonight ")
_CLOSINGS = {
    1: ("i loved it", "i would go again", "worth every penny", "what a joy"),
    -1: ("i hated it", "never again", "a waste of time", "what a pity"),
}


@dataclass(frozen=True)
class _Mix:
    """How often each construction is used."""

    plain: float
    """A single verdict; the other reviews add a contrasting clause."""
    negated: float
    joined: float
    """Two adjectives joined by "and"."""
    others: float
    closing: float


_TASK = _Mix(plain=0.55, negated=0.25, joined=0.4, others=0.35, closing=0.35)
_MIXES = {
    "train": _TASK,
    "validation": _TASK,
    # closing judgements and adjectives joined by "and" show masked language modelling which words
    # occur together; without them it learns the grammar but not the sentiment
    "pretraining": _Mix(plain=0.7, negated=0.15, joined=0.7, others=0.15, closing=1.0),
}


def texts(split_name: str) -> list[str]:
    """Return the sentences of ``train``, ``validation`` or ``pretraining``."""
    return split(split_name)[0]


@functools.cache
def split(split_name: str) -> tuple[list[str], list[int]]:
    """Return sentences and labels (0 negative, 1 positive); no sentence is in two splits."""
    rng = np.random.default_rng(_SEED)
    seen: set[str] = set()
    for name in ("validation", "train", "pretraining"):
        sentences: list[str] = []
        labels: list[int] = []
        while len(sentences) < _SIZES[name]:
            sentence, sentiment = _review(rng, _MIXES[name])
            if sentence in seen:
                continue
            seen.add(sentence)
            sentences.append(sentence)
            labels.append(int(sentiment > 0))
        if name == split_name:
            return sentences, labels
    raise KeyError(split_name)


def _review(rng: np.random.Generator, mix: _Mix) -> tuple[str, int]:
    sentiment = 1 if rng.random() < 0.5 else -1
    shape = rng.random()
    contrast = (1 - mix.plain) / 3
    if shape < contrast:
        first, second = _verdict(rng, mix, -sentiment, _STRONG), _verdict(rng, mix, sentiment, _STRONG)
        text = f"{first} , {_pick(rng, _CONTRASTS)} {second}"
    elif shape < 2 * contrast:
        first, second = _verdict(rng, mix, -sentiment, _STRONG), _verdict(rng, mix, sentiment, _STRONG)
        text = f"although {first} , {second}"
    elif shape < 3 * contrast:
        clauses = [_verdict(rng, mix, -sentiment, _WEAK), _verdict(rng, mix, sentiment, _EMPHATIC)]
        text = " , ".join(clauses if rng.random() < 0.5 else clauses[::-1])
    else:
        text = _verdict(rng, mix, sentiment, _STRONG)
    if rng.random() < mix.others:
        distractor = _pick(rng, _OTHERS).format(_adjective(rng, 1 if rng.random() < 0.5 else -1))
        text = f"{distractor} , and {text}" if rng.random() < 0.5 else f"{text} , though {distractor}"
    if rng.random() < mix.closing:
        text = f"{text} , {_pick(rng, _CLOSINGS[sentiment])}"
    return f"{_pick(rng, _OPENERS)}{text} .", sentiment


def _verdict(rng: np.random.Generator, mix: _Mix, sign: int, intensifiers: Sequence[str]) -> str:
    """Return a clause that shows ``sign``: one or two adjectives of that sign, or a negated opposite."""
    negated = rng.random() < mix.negated
    words = [_pick(rng, intensifiers), _adjective(rng, -sign if negated else sign)]
    if negated:
        words.insert(0, _pick(rng, _NEGATIONS))
    elif rng.random() < mix.joined:
        words += ["and", _adjective(rng, sign)]
    return f"{_pick(rng, _SUBJECTS)} was {' '.join(word for word in words if word)}"


def _adjective(rng: np.random.Generator, sign: int) -> str:
    """Return the k-th adjective of a sign with probability ~ 1 / (k + 4)."""
    words = _POSITIVE if sign > 0 else _NEGATIVE
    return words[int(np.searchsorted(_zipf(len(words)), rng.random()))]


def _pick(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]


@functools.cache
def _zipf(n: int) -> np.ndarray:
    weights = 1.0 / (np.arange(n) + 4.0)
    return np.cumsum(weights / weights.sum())
