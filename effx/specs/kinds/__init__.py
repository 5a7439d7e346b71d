"""The kinds of tasks, one module each: labels, predictions, scores, task head, and what is not supported.

classification         one class per row
regression             one number per row
multi_label            any number of labels per row
token_classification   a tag for each word of a row, of which entities consist
answer_span            an answer in a text: start and end logits of every token
ranking                candidates of a query in the order of their scores
embedding              a vector per text, whose cosine with another's predicts a score
retrieval              documents of a corpus whose vectors are near that of a query

Everything that depends on the kind of a task is a field of :class:`TaskKind`; the other packages ask it. Two
fields name what needs PyTorch: ``head``, a row of ``HEADS`` in :mod:`effx.models.heads`, and ``loss``, a row
of ``LOSSES`` in :mod:`effx.models.losses`. A new kind is a module here, an entry of ``KINDS``, and a row of
each of these two tables if none of theirs serves it; CONTRIBUTING.md says what else it may need.
"""

from __future__ import annotations

from collections.abc import Mapping

from effx.specs.kinds.answer_span import ANSWER_SPAN
from effx.specs.kinds.classification import CLASSIFICATION
from effx.specs.kinds.embedding import EMBEDDING
from effx.specs.kinds.kind import TaskKind
from effx.specs.kinds.multi_label import MULTI_LABEL
from effx.specs.kinds.ranking import RANKING
from effx.specs.kinds.regression import REGRESSION
from effx.specs.kinds.retrieval import RETRIEVAL
from effx.specs.kinds.token_classification import TOKEN_CLASSIFICATION

__all__ = ["KINDS", "TaskKind"]

KINDS: Mapping[str, TaskKind] = {
    kind.name: kind
    for kind in (
        CLASSIFICATION,
        REGRESSION,
        MULTI_LABEL,
        TOKEN_CLASSIFICATION,
        ANSWER_SPAN,
        RANKING,
        EMBEDDING,
        RETRIEVAL,
    )
}
