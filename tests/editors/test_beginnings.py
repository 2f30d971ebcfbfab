"""The own text's sentences, each as a text of its own."""

from __future__ import annotations

from editors.beginnings import with_beginnings
from editors.moments import Corpus

WORDS = {1: "The", 2: " river", 3: " runs", 4: ".", 5: " It", 6: " is", 7: " long", 8: "\n", 9: "It", 10: " No"}


class Tokenizer:
    """A word a token; a sentence's first word without its space is another token."""

    def decode(self, ids: list[int]) -> str:
        return "".join(WORDS[one] for one in ids)

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": [next(one for one, word in WORDS.items() if word == text)]}


def test_sentences_after_a_rows_first_follow_the_rows_and_begin_like_a_text() -> None:
    row = (1, 2, 3, 4, 5, 6, 7, 2, 4, 8, 9, 6, 7, 2)
    found = with_beginnings(Corpus("own", (row,)), Tokenizer())
    assert found.name == "own and its sentences"
    assert found.sequences == (row, (9, 6, 7, 2, 4), (9, 6, 7, 2))


def test_what_is_too_short_to_be_a_sentence_is_left_out() -> None:
    rows = ((1, 2, 3, 4, 5, 6, 7), (1, 2), (1, 2, 4, 8))
    assert with_beginnings(Corpus("own", rows), Tokenizer()).sequences == rows
