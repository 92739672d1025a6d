"""Labels of the lab's rows, found again from what the rows say, and what must not tell them."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from adapterxlt import lab
from adapterxlt.lab import events, grammar, lexicon, meanings, tasks, topics

LANGUAGES = tuple(lab.LANGUAGES)


def both(task: str, split: str = "train") -> list[tuple[Any, dict[str, Any]]]:
    """Meanings of the source's rows beside the rows."""
    meant = tasks.meanings(task, lab.SOURCE, split)
    return list(zip(meant, lab.rows(task, lab.SOURCE, split), strict=True))


def held_out(train: list[tuple[str, str]], test: list[tuple[str, str]], grams: int = 1) -> float:
    """Accuracy of logistic regression over (marked) words, or up to `grams` of them in a row."""
    words = CountVectorizer(token_pattern=r"\S+", lowercase=False, ngram_range=(1, grams))
    model = LogisticRegression(max_iter=1000)
    model.fit(words.fit_transform([text for text, _ in train]), [label for _, label in train])
    found = model.predict(words.transform([text for text, _ in test]))
    return sum(a == b for a, (_, b) in zip(found, test, strict=True)) / len(test)


def marked(mark: str, text: str) -> str:
    return " ".join(f"{mark}:{word}" for word in text.split())


# --- paraphrases ----------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_shared_words_do_not_tell_a_paraphrase(language: str) -> None:
    """Either all are shared, or all but the denial and the two verbs; by label alike."""
    for split in lab.SPLITS:
        shared: dict[str, Counter[int]] = defaultdict(Counter)
        for row in lab.rows("lab-paraphrase", language, split):
            one, two = apart(row)
            assert sorted((len(one), len(two))) in ([0, 0], [1, 2])
            assert row["sentence1"] != row["sentence2"]
            shared[row["label"]][len(one + two)] += 1
        assert shared["0"] == shared["1"] and len(shared) == 2
        assert shared["1"][0] == 0.3 * lab.size("lab-paraphrase", language, split)


def apart(row: dict[str, Any]) -> tuple[Counter[str], Counter[str]]:
    """The words that only the first, and only the second sentence of a row has."""
    one, two = (Counter(row[each].split()) for each in ("sentence1", "sentence2"))
    return one - two, two - one


def test_words_and_the_first_words_do_not_tell_a_paraphrase() -> None:
    def features(split: str) -> list[tuple[str, str]]:
        return [
            (
                f"{marked('1', row['sentence1'])} {marked('2', row['sentence2'])}"
                f" first:{row['sentence1'].split()[0] == row['sentence2'].split()[0]}"
                f" last:{row['sentence1'].split()[-1] == row['sentence2'].split()[-1]}",
                row["label"],
            )
            for row in lab.rows("lab-paraphrase", lab.SOURCE, split)
        ]

    assert held_out(features("train"), features("validation") + features("test")) < 0.6


@pytest.mark.parametrize("field", ["sentence1", "sentence2"])
def test_one_sentence_of_a_pair_tells_nothing(field: str) -> None:
    def features(split: str) -> list[tuple[str, str]]:
        return [(r[field], r["label"]) for r in lab.rows("lab-paraphrase", lab.SOURCE, split)]

    assert held_out(features("train"), features("validation") + features("test"), 2) < 0.58


def read(text: str) -> frozenset[tuple[str, str, str]]:
    """What a sentence of the source says, read from its words alone: by clause the place, the
    adverb, and the rest in order, wherever the place stands."""
    forms, found = lexicon.forms(lab.SOURCE), set()
    adverbs = {forms[each] for each in lexicon.ADVERBS if each not in lexicon.SHARED}
    adpositions = {forms[each] for each in lexicon.ADPOSITIONS}
    for clause in text.split(f" {forms['cconj.and']} "):
        adverb = " ".join(word for word in clause.split() if word in adverbs)
        words = [word for word in clause.split() if word not in adverbs]
        place: list[str] = []
        if words[0] in adpositions:
            place, words = words[:3], words[3:]
        elif words[-3:][0] in adpositions:
            words, place = words[:-3], words[-3:]
        found.add((" ".join(place), adverb, " ".join(words)))
    return frozenset(found)


def test_paraphrases_are_those_that_read_the_same() -> None:
    """The label is found again from the words of both sentences of the source."""
    forms = lexicon.forms(lab.SOURCE)
    verbs = {
        forms[verb] + affix: verb
        for verb in lexicon.TRANSITIVE
        for affix in ("", forms["affix.past"])
    }
    denied = 0
    for split in lab.SPLITS:
        for row in lab.rows("lab-paraphrase", lab.SOURCE, split):
            one, two = (set(each) - {forms["part.not"]} for each in apart(row))
            if one:
                denied += 1
                same = verbs[one.pop()] == meanings.antonym(verbs[two.pop()])
            else:
                same = read(row["sentence1"]) == read(row["sentence2"])
            assert same == (row["label"] == "1")
    assert denied == 1000


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_reordering_of_one_sentence_gives_its_negative(language: str) -> None:
    for item in tasks.meanings("lab-paraphrase", language, "test"):
        if item.second.clauses[0].negative:
            continue
        orders = (item.first, meanings.Meaning(item.first.clauses[::-1], item.first.link))
        said = {
            grammar.sentence(each, language, moved) for each in orders for moved in (False, True)
        }
        assert (grammar.sentence(item.second, language, item.moved) in said) == (item.label == "1")


# --- choices --------------------------------------------------------------------------------------


def verb_of(text: str, language: str) -> str:
    """The transitive verb of a sentence whose only verb it is, by its form."""
    forms = lexicon.forms(language)
    prefixing = grammar.grammar(language).prefixing
    found = set()
    for verb in lexicon.TRANSITIVE:
        for affix in ("", forms["affix.past"]):
            if (affix + forms[verb] if prefixing else forms[verb] + affix) in text.split():
                found.add(verb)
    # Some verbs look like nouns; no language has two verbs in one clause.
    return found.pop() if len(found) == 1 else ""


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_right_choice_is_the_cause_or_effect_by_the_rule(language: str) -> None:
    checked = 0
    for row in lab.rows("lab-choice", language, "test"):
        verb, *others = (verb_of(row[each], language) for each in ("premise", "choice1", "choice2"))
        if not verb or not all(others):
            continue
        step = 8 if row["question"] == "cause" else 4
        wanted = f"do.{(int(verb.removeprefix('do.')) + step) % 12}"
        assert others[row["label"]] == wanted != others[1 - row["label"]]
        checked += 1
    assert checked > 150


def test_cause_and_effect_are_one_another_s_inverse() -> None:
    for verb in lexicon.TRANSITIVE:
        assert events.cause(events.effect(verb)) == verb == events.effect(events.cause(verb))
        assert len({verb, events.cause(verb), events.effect(verb)}) == 3


@pytest.mark.parametrize("language", LANGUAGES)
def test_choices_are_balanced_by_label_and_question(language: str) -> None:
    for split in lab.SPLITS:
        rows = lab.rows("lab-choice", language, split)
        counts = Counter((row["question"], row["label"]) for row in rows)
        assert len(counts) == 4 and max(counts.values()) == min(counts.values())
        assert all(row["choice1"] != row["choice2"] for row in rows)


def test_choices_have_their_participants_in_common_with_the_premise() -> None:
    for item, _ in both("lab-choice"):
        told = [choice.clauses[0] for choice in item.choices]
        premise = item.premise.clauses[0]
        assert told[0].agent == told[1].agent and told[0].patient == told[1].patient
        assert told[0].agent.head == premise.agent.head
        assert told[0].patient.head == premise.patient.head


def test_wrong_verbs_are_as_frequent_as_right_ones() -> None:
    right, wrong, turned = Counter(), Counter(), 0
    for item, row in both("lab-choice"):
        verbs = [choice.clauses[0].verb for choice in item.choices]
        right[verbs[row["label"]]] += 1
        wrong[verbs[1 - row["label"]]] += 1
        premise = item.premise.clauses[0].verb
        turned += verbs[1 - row["label"]] in (events.cause(premise), events.effect(premise))
    assert 0.28 < turned / 2000 < 0.39
    assert all(abs(right[verb] - wrong[verb]) < 60 for verb in lexicon.TRANSITIVE)


def _choice_texts(split: str, crossed: bool) -> list[tuple[str, str]]:
    """Features of each row; crossed: pairs of a word of the premise and one of only one choice."""
    found = []
    for row in lab.rows("lab-choice", lab.SOURCE, split):
        words = [set(row[f"choice{n}"].split()) for n in (1, 2)]
        if crossed:
            text = " ".join(
                f"{row['question']}:{n}:{given}:{word}"
                for n in (0, 1)
                for word in words[n] - words[1 - n]
                for given in row["premise"].split()
            )
        else:
            choices = f"{marked('1', row['choice1'])} {marked('2', row['choice2'])}"
            text = f"{marked('p', row['premise'])} q:{row['question']} {choices}"
        found.append((text, str(row["label"])))
    return found


def test_words_do_not_tell_the_choice_but_pairs_of_words_do() -> None:
    """The rule is one of pairs of verbs: with pairs as features it is learnt from the rows."""
    for crossed in (False, True):
        train, test = _choice_texts("train", crossed), _choice_texts("test", crossed)
        accuracy = held_out(train, test + _choice_texts("validation", crossed))
        assert accuracy > 0.9 if crossed else accuracy < 0.58


# --- topics ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_topics_are_balanced(language: str) -> None:
    for split in lab.SPLITS:
        counts = Counter(row["label"] for row in lab.rows("lab-topic", language, split))
        assert set(counts) == set(lab.TASKS["lab-topic"].labels)
        assert max(counts.values()) - min(counts.values()) <= 1
        texts = [
            row["text"].split(f" {lab.STOP} ") for row in lab.rows("lab-topic", language, split)
        ]
        assert {len(each) for each in texts} == {1, 2}


def test_most_words_of_a_text_belong_to_its_topic() -> None:
    """Counted anew from the words of the source; a form may be that of two concepts."""
    forms, owners = lexicon.forms(lab.SOURCE), defaultdict(set)
    for concept in lexicon.CONCEPTS:
        for affix in ("", "affix.plural", "affix.past"):
            owners[forms[concept] + (forms[affix] if affix else "")].add(concept)
    checked = 0
    for row in lab.rows("lab-topic", lab.SOURCE, "train"):
        words = [owners[word] for word in row["text"].split()]
        if any(len({topics.topics_of(concept) for concept in each}) > 1 for each in words):
            continue
        found = Counter(topic for each in words for topic in topics.topics_of(next(iter(each), "")))
        assert found.most_common(1)[0][0] == row["label"]
        checked += 1
    assert checked > 200


def test_one_word_is_not_enough_for_a_topic_but_all_are() -> None:
    train, test = ([(r["text"], r["label"]) for r in lab.rows("lab-topic", lab.SOURCE, split)]
                   for split in ("train", "test"))  # fmt: skip
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for text, label in train:
        for word in text.split():
            seen[word][label] += 1

    def sure(word: str) -> float:
        return max(seen[word].values()) / seen[word].total() if seen[word].total() > 9 else 0.0

    right = sum(
        bool(seen[best]) and seen[best].most_common(1)[0][0] == label
        for best, label in ((max(text.split(), key=sure), label) for text, label in test)
    )
    assert right / len(test) < 0.65
    assert held_out(train, test) > 0.75
