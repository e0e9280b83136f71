"""Edit distance of sequences, and error rates by it."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from eqxgen.metrics.mean import Mean


def edit_distance(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Least number of insertions, deletions and substitutions that make one sequence of the other (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, item in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (item != other))
    return row[-1]


class EditRate(NamedTuple):
    """Edit distance per item of the references: the phoneme error rate of phonemes, the word error rate of words."""

    edits: Mean = Mean()
    exact: Mean = Mean()

    def update(
        self, guesses: Sequence[Sequence[Hashable]], references: Sequence[Sequence[Sequence[Hashable]]]
    ) -> "EditRate":
        """With more guesses, each with one or more references, of which the nearest counts; of equally near ones, the
        first.

        Raises:
            ValueError: a guess has no reference, or their numbers differ.
        """
        if len(guesses) != len(references) or not all(references):
            raise ValueError(
                f"references must be one or more for each of {len(guesses)} guesses: got {len(references)} lists"
            )
        edits, exact = self
        for guess, allowed in zip(guesses, references):
            distance, length = min(((edit_distance(guess, one), len(one)) for one in allowed), key=lambda pair: pair[0])
            edits = Mean(edits.total + distance, edits.weight + length)
            exact = Mean(exact.total + (distance == 0), exact.weight + 1)
        return EditRate(edits, exact)

    def merge(self, other: "EditRate") -> "EditRate":
        """With what another one has seen."""
        return EditRate(self.edits.merge(other.edits), self.exact.merge(other.exact))

    def result(self) -> float:
        """Edits per item of the references; it can be above 1."""
        return self.edits.result()

    def exact_match(self) -> float:
        """Share of the guesses that equal a reference."""
        return self.exact.result()
