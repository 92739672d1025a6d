"""The lab's promises: stable bytes, true labels, declared distances, honest splits."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter, defaultdict
from math import log
from pathlib import Path

import pytest

from adapterxlt import lab
from adapterxlt.lab import events, grammar, lexicon, meanings, rewordings, tasks, topics

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
LANGUAGES = tuple(lab.LANGUAGES)
TARGETS = LANGUAGES[1:]
TRAINED = tuple(task for task, spec in lab.TASKS.items() if "train" in spec.splits)


def digest(value: object) -> str:
    data = json.dumps(value, ensure_ascii=False, sort_keys=True).encode("utf-8")
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("language", LANGUAGES)
def test_generated_bytes_are_the_recorded_ones(language: str) -> None:
    """Whoever changes them raises lab.VERSION and records anew (see record() below)."""
    assert GOLDEN["version"] == lab.VERSION
    assert digests(language) == GOLDEN[language]


def digests(language: str) -> dict[str, str]:
    found = {
        f"{task}/{split}": digest(lab.rows(task, language, split))
        for task in lab.TASKS
        for split in splits(task, language)
    }
    found["text"] = digest(lab.text(language))
    found["parallel"] = digest(lab.parallel(language, 50))
    return found


def splits(task: str, language: str) -> tuple[str, ...]:
    spec = lab.TASKS[task]
    return spec.splits if spec.source or language != lab.SOURCE else ()


def test_bytes_do_not_hang_on_the_hash_seed() -> None:
    code = (
        "import hashlib, json; from adapterxlt import lab;"
        "print(hashlib.sha256(json.dumps(lab.rows('lab-pos', 'lab-far-none', 'validation'),"
        " ensure_ascii=False, sort_keys=True).encode('utf-8')).hexdigest())"
    )
    root = Path(lab.__file__).parents[2]
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == GOLDEN["lab-far-none"]["lab-pos/validation"]


def test_import_needs_no_heavy_package() -> None:
    code = (
        "import sys; import adapterxlt.lab;"
        "print([m for m in ('torch', 'numpy', 'transformers') if m in sys.modules])"
    )
    root = Path(lab.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("task", lab.TASKS)
def test_ids_are_unique_and_sizes_are_the_promised_ones(task: str) -> None:
    seen: Counter[str] = Counter()
    for language in LANGUAGES:
        for split in splits(task, language):
            rows = lab.rows(task, language, split)
            assert len(rows) == lab.size(task, language, split)
            seen.update(row["id"] for row in rows)
    assert max(seen.values()) == 1


def test_sizes_are_known_without_rows() -> None:
    before = tasks._series.cache_info().misses, tasks.rows.cache_info().misses
    assert lab.size("lab-qa", lab.SOURCE, "train") == 2000
    assert lab.size("lab-qa", "lab-far-mid", "train") == 500
    assert lab.size("lab-ranking", "lab-far-mid", "candidates") == 600
    assert (tasks._series.cache_info().misses, tasks.rows.cache_info().misses) == before


@pytest.mark.parametrize("task", ("lab-pos", "lab-nli", "lab-ner"))
def test_rows_are_whole(task: str) -> None:
    for language in LANGUAGES:
        for split in lab.SPLITS:
            for row in lab.rows(task, language, split):
                if task in ("lab-pos", "lab-ner"):
                    tags = row["upos" if task == "lab-pos" else "ner_tags"]
                    assert len(row["tokens"]) == len(tags) > 0
                    assert set(tags) <= set(lab.TASKS[task].labels)
                    assert all(token and " " not in token for token in row["tokens"])
                else:
                    assert row["premise"] and row["hypothesis"]
                    assert row["label"] in lab.TASKS[task].labels


@pytest.mark.parametrize("task", lab.TASKS)
def test_meanings_are_met_once_but_for_the_parallel_test(task: str) -> None:
    seen: Counter[object] = Counter()
    for language in LANGUAGES:
        for split in splits(task, language):
            if split in ("train", "validation"):
                seen.update(tasks.meanings(task, language, split))
    for split in set(lab.TASKS[task].splits) - {"train", "validation"}:
        same = tasks.meanings(task, TARGETS[0], split)
        seen.update(same)
        for language in LANGUAGES:
            if splits(task, language):
                assert tasks.meanings(task, language, split) == same
    assert max(seen.values()) == 1


def test_sizes_suffice_for_the_regimes() -> None:
    for task in TRAINED:
        for language in LANGUAGES:
            least = 2000 if language == lab.SOURCE else 500
            assert len(lab.rows(task, language, "train")) >= least
            assert len(lab.rows(task, language, "validation")) == 200
            assert len(lab.rows(task, language, "test")) == 300


@pytest.mark.parametrize("language", TARGETS)
def test_test_rows_say_the_same_in_every_language(language: str) -> None:
    """Content tags of row i agree as a bag: only articles may be missing."""
    for root, row in zip(
        lab.rows("lab-pos", lab.SOURCE, "test"), lab.rows("lab-pos", language, "test"), strict=True
    ):
        missing = Counter(root["upos"]) - Counter(row["upos"])
        assert not Counter(row["upos"]) - Counter(root["upos"])
        assert set(missing) <= {"DET"}
        assert not missing or not grammar.grammar(language).articles
    root_labels = [row["label"] for row in lab.rows("lab-nli", lab.SOURCE, "test")]
    assert [row["label"] for row in lab.rows("lab-nli", language, "test")] == root_labels


@pytest.mark.parametrize("language", TARGETS)
def test_cognate_share_is_the_declared_one(language: str) -> None:
    root, forms = lexicon.forms(lab.SOURCE), lexicon.forms(language)
    same = sum(forms[name] == lexicon.cognate(root[name], language) for name in lexicon.LEXEMES)
    assert same == round(lab.LANGUAGES[language].cognates * len(lexicon.LEXEMES))


@pytest.mark.parametrize("language", LANGUAGES)
def test_lexemes_do_not_collide(language: str) -> None:
    forms = lexicon.forms(language)
    stems = [forms[name] for name in lexicon.LEXEMES]
    assert len(set(stems)) == len(stems)


@pytest.mark.parametrize("language", LANGUAGES)
def test_word_order_is_the_declared_one(language: str) -> None:
    agent, patient = meanings.Phrase("name.0"), meanings.Phrase("name.2")
    said = grammar.say(meanings.Meaning((meanings.Clause(agent, "do.1", patient),)), language)
    forms = lexicon.forms(language)
    roles = {forms["name.0"]: "S", forms["name.2"]: "O", forms["do.1"]: "V"}
    assert "".join(roles[form] for form, _ in said) == lab.LANGUAGES[language].order


def test_distance_and_resource_are_graded() -> None:
    shares, lines = defaultdict(set), defaultdict(set)
    for language in lab.LANGUAGES.values():
        shares[language.distance].add(language.cognates)
        lines[language.resource].add(language.text_lines)
    assert min(shares["source"]) > max(shares["near"]) > max(shares["mid"]) > max(shares["far"])
    assert min(lines["high"]) > max(lines["mid"]) > max(lines["low"])
    assert {(row.distance, row.resource) for row in lab.LANGUAGES.values()} >= {
        ("near", "high"),
        ("near", "low"),
        ("mid", "mid"),
        ("far", "low"),
        ("far", "unseen"),
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_text(language: str) -> None:
    lines = lab.text(language)
    assert len(lines) == lab.LANGUAGES[language].text_lines > 0
    assert all(line == line.strip() and line for line in lines)
    assert len(set(lines)) > 0.9 * len(lines)


@pytest.mark.parametrize("language", LANGUAGES)
def test_entities_are_whole_and_the_same_in_every_language(language: str) -> None:
    """Every I- goes on with a span of its type, and test row i names the same as the source's."""
    for split in lab.SPLITS:
        for row in lab.rows("lab-ner", language, split):
            for before, tag in zip(["O", *row["ner_tags"]], row["ner_tags"], strict=False):
                assert not tag.startswith("I-") or before in ("B" + tag[1:], tag)
        met = {tag for row in lab.rows("lab-ner", language, split) for tag in row["ner_tags"]}
        assert met == set(lab.TASKS["lab-ner"].labels)
    for root, row in zip(
        lab.rows("lab-ner", lab.SOURCE, "test"), lab.rows("lab-ner", language, "test"), strict=True
    ):
        assert Counter(filter("O".__ne__, root["ner_tags"])) == Counter(
            filter("O".__ne__, row["ner_tags"])
        )


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_name_is_tagged_by_what_it_stands_for(language: str) -> None:
    forms = lexicon.forms(language)
    agent = meanings.Phrase("noun.0.1", name="name.0")
    thing, place = meanings.Phrase("noun.4.2", name="name.2"), meanings.Phrase("name.3")
    clause = meanings.Clause(agent, "do.1", thing, "", "adp.1", place)
    said = grammar.say_entities(meanings.Meaning((clause,)), language)
    tagged = [(form, tag) for form, tag in said if tag != "O"]
    later = grammar.grammar(language).prefixing
    names = ("B-", "I-")[later] + "PER", ("B-", "I-")[later] + "OBJ"
    assert {(forms["name.0"], names[0]), (forms["name.2"], names[1])} < set(tagged)
    assert (forms["name.3"], "B-LOC") in tagged and len(tagged) == 5
    alone = meanings.Clause(meanings.Phrase("name.3"), "go.1", place=place, adposition="adp.1")
    tags = [tag for _, tag in grammar.say_entities(meanings.Meaning((alone,)), language)]
    assert sorted(tag for tag in tags if tag != "O") == ["B-LOC", "B-PER"]
    assert [f for f, _ in said] == [
        f for f, _ in grammar.say(meanings.Meaning((clause,)), language)
    ]


def test_a_word_list_does_not_find_the_entities() -> None:
    """Most frequent tag of each word: the same noun is named here and common there."""
    tags: dict[str, Counter[str]] = defaultdict(Counter)
    for row in lab.rows("lab-ner", lab.SOURCE, "train"):
        for token, tag in zip(row["tokens"], row["ner_tags"], strict=True):
            tags[token][tag] += 1
    missed = total = 0
    for row in lab.rows("lab-ner", lab.SOURCE, "test"):
        for token, tag in zip(row["tokens"], row["ner_tags"], strict=True):
            if tag != "O":
                total += 1
                missed += not tags[token] or tags[token].most_common(1)[0][0] != tag
    assert total > 400 and missed / total > 0.4


def test_some_words_have_several_tags() -> None:
    tags: dict[str, Counter[str]] = defaultdict(Counter)
    for row in lab.rows("lab-pos", lab.SOURCE, "train"):
        for token, tag in zip(row["tokens"], row["upos"], strict=True):
            tags[token][tag] += 1
    total = right = 0
    for row in lab.rows("lab-pos", lab.SOURCE, "test"):
        for token, tag in zip(row["tokens"], row["upos"], strict=True):
            total += 1
            right += bool(tags[token]) and tags[token].most_common(1)[0][0] == tag
    assert right / total < 0.96


@pytest.mark.parametrize("language", LANGUAGES)
def test_inference_labels_are_balanced(language: str) -> None:
    for split in lab.SPLITS:
        counts = Counter(row["label"] for row in lab.rows("lab-nli", language, split))
        assert max(counts.values()) - min(counts.values()) <= 1


def bayes(train: list[tuple[list[str], str]], test: list[tuple[list[str], str]]) -> float:
    """Accuracy of naive Bayes over words and the length."""
    words: dict[str, Counter[str]] = defaultdict(Counter)
    for features, label in train:
        words[label].update(features)
    totals = {label: sum(counts.values()) + 1000 for label, counts in words.items()}

    def score(features: list[str], label: str) -> float:
        return sum(log((words[label][each] + 1) / totals[label]) for each in features)

    right = sum(max(words, key=lambda label: score(f, label)) == y for f, y in test)
    return right / len(test)


@pytest.mark.parametrize(("field", "limit"), [("hypothesis", 0.40), ("premise", 0.58)])
def test_one_sentence_alone_does_not_give_the_label_away(field: str, limit: float) -> None:
    def features(split: str) -> list[tuple[list[str], str]]:
        rows = lab.rows("lab-nli", lab.SOURCE, split)
        return [
            ([*row[field].split(), f"#{len(row[field].split())}"], row["label"]) for row in rows
        ]

    assert bayes(features("train"), features("test") + features("validation")) < limit


@pytest.mark.parametrize("label", meanings.LABELS)
def test_negation_is_met_under_every_label(label: str) -> None:
    pairs = [m for m in tasks.meanings("lab-nli", lab.SOURCE, "train") if m[2] == label]
    for side in (0, 1):
        share = sum(any(c.negative for c in m[side].clauses) for m in pairs) / len(pairs)
        assert 0.38 < share < 0.52


def test_entailed_hypothesis_says_nothing_the_premise_does_not() -> None:
    for premise, told, label in tasks.meanings("lab-nli", lab.SOURCE, "train"):
        clause = told.clauses[0]
        holds = any(
            given.verb == clause.verb
            and given.negative == clause.negative
            and given.agent.adjective in (clause.agent.adjective, given.agent.adjective)
            and (not clause.agent.adjective or given.agent.adjective == clause.agent.adjective)
            and (not clause.adverb or given.adverb == clause.adverb)
            and (not clause.place or (given.adposition, given.place) == _where(clause))
            and given.agent.head in (clause.agent.head, *_members(clause.agent.head))
            for given in premise.clauses
        )
        assert holds == (label == "entailment")


def _where(clause: meanings.Clause) -> tuple[str, meanings.Phrase | None]:
    return clause.adposition, clause.place


def _members(head: str) -> tuple[str, ...]:
    return lexicon.NOUNS[meanings.class_of(head)] if head.startswith("class.") else ()


def test_parallel_starts_with_the_same_pairs_whatever_its_length() -> None:
    pairs = lab.parallel("lab-far-mid", 20)
    assert pairs[:5] == lab.parallel("lab-far-mid", 5)
    assert all(len(root) and len(other) and root != other for root, other in pairs)
    assert all(root == other for root, other in lab.parallel(lab.SOURCE, 5))
    with pytest.raises(ValueError, match="-1"):
        lab.parallel("lab-far-mid", -1)


def test_unknown_names_raise() -> None:
    for call in (
        lambda: lab.text("lab-moon"),
        lambda: lab.parallel("lab-moon", 1),
        lambda: lab.rows("lab-ner2", lab.SOURCE, "train"),
        lambda: lab.rows("lab-pos", "lab-moon", "train"),
        lambda: lab.rows("lab-pos", lab.SOURCE, "dev"),
        lambda: lab.rows("lab-pos", lab.SOURCE, "candidates"),
        lambda: lab.rows("lab-bitext", lab.SOURCE, "test"),
        lambda: lab.rows("lab-bitext", "lab-far-mid", "train"),
        lambda: lab.size("lab-moon", lab.SOURCE, "train"),
        lambda: lab.size("lab-pos", "lab-moon", "train"),
        lambda: lab.size("lab-pos", lab.SOURCE, "candidates"),
        lambda: lab.size("lab-bitext", lab.SOURCE, "test"),
        lambda: rewordings.draw_rewording(tasks.generator(1), "2", 0),
        lambda: events.draw_choice(tasks.generator(1), "why", 0),
        lambda: topics.draw_about(tasks.generator(1), "moon"),
        lambda: meanings.draw_pair(tasks.generator(1), "maybe"),
    ):
        with pytest.raises(KeyError):
            call()


def record() -> None:
    """Write golden.json anew: python -c 'import test_lab; test_lab.record()' in this folder."""
    found = {"version": lab.VERSION, **{language: digests(language) for language in LANGUAGES}}
    (Path(__file__).parent / "golden.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    record()
