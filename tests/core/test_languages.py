"""Languages: the table's integrity, the published classes, look-ups, suggestions."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterxlt.core import languages
from adapterxlt.core.languages import Language, UnknownLanguage, canonical, get, resource_class
from adapterxlt.core.tasks import TASKS
from adapterxlt.core.tasks import XTREME_R as XTREME_R_TASKS

# Joshi et al. 2020, the 50 languages of XTREME-R.
XTREME_R = {
    5: "ar zh en fr de ja es",
    4: "eu nl fi hi hu it ko fa pl pt ru tr vi",
    3: "af bn bg et el he id ka kk lt ms ro ta th tl uk ur",
    2: "mr pa sw wo yo ht",
    1: "az gu jv ml my qu te",
}
JOSHI = {code: joshi for joshi, codes in XTREME_R.items() for code in codes.split()}

# XLM-R paper, table 6, the same 50 languages.
GIB = {
    "en": 300.8, "ru": 278, "id": 148.3, "vi": 137.3, "fa": 111.6, "uk": 84.6, "th": 71.7,
    "ja": 69.3, "de": 66.6, "ro": 61.4, "hu": 58.4, "bg": 57.5, "fr": 56.8, "fi": 54.3,
    "ko": 54.2, "es": 53.3, "pt": 49.1, "el": 46.9, "zh": 46.9, "pl": 44.6, "he": 31.6,
    "it": 30.2, "nl": 29.3, "ar": 28, "tr": 20.9, "hi": 20.2, "lt": 13.7, "ta": 12.2,
    "ka": 9.1, "ms": 8.5, "bn": 8.4, "ml": 7.6, "az": 6.5, "kk": 6.4, "et": 6.1, "ur": 5.7,
    "te": 4.7, "tl": 3.1, "mr": 2.8, "eu": 2.0, "my": 1.6, "gu": 1.9, "sw": 1.6, "af": 1.3,
    "pa": 0.8, "jv": 0.2, "ht": 0, "qu": 0, "wo": 0, "yo": 0,
}  # fmt: skip

# wikistats of July 2026, the same 50 languages; the groups of `wikipedia` one below the other.
ARTICLES = {
    "en": 7213388, "de": 3138349, "fr": 2771023, "nl": 2223739, "es": 2127367, "ru": 2111081,
    "it": 1979049, "pl": 1702538, "zh": 1545288, "ja": 1511352, "uk": 1429025, "ar": 1325511,
    "vi": 1303787, "pt": 1178670, "fa": 1080730,
    "id": 786443, "ko": 755164, "tr": 691763, "ur": 663567, "fi": 621879, "hu": 571571,
    "ro": 546139, "eu": 492756, "ms": 440210, "he": 401526, "bg": 311322, "el": 271243,
    "et": 261058, "kk": 244367, "lt": 226392, "az": 216282, "ka": 197569, "bn": 189562,
    "ta": 187972, "th": 185501, "hi": 170574, "af": 129885, "te": 126361, "sw": 121255,
    "my": 111335, "mr": 102406,
    "ml": 88251, "jv": 75332, "ht": 72039, "pa": 59630, "tl": 49150, "yo": 38336, "gu": 30862,
    "qu": 24545, "wo": 1742,
}  # fmt: skip

SIB200 = (
    "ace af am ar ay ban bg bjn bm bn bug ceb cs cy da de dik ee el en es et fa fi fo fon fr gd gu "
    "ha he hi hr ht hu hy id ig it ja jv ka kab kk kn ko lg lt luo lv mi min mos mr mt my ne nl ny "
    "pl pt quy ro ru rw sk sn sr su sv ta th tl tn tr tw ug uk ur vi xh yo zh zu"
)

TABLE = languages.all_languages()
KEYS = sorted({k for row in TABLE for k in (row.code, row.iso639_3, *row.aliases) if k})


def _shared_data() -> Path:
    repo = Path(__file__).resolve().parents[2]
    return Path(os.environ.get("ADAPTERXLT_SHARED", repo.parent / "shared")) / "data"


def test_every_folder_of_the_shared_data_is_a_code() -> None:
    data = _shared_data()
    if not data.is_dir():
        pytest.skip(f"no shared data at {data}; set ADAPTERXLT_SHARED to the folder above data/")
    folders = {path.name for path in data.glob("*/*") if path.is_dir()}
    assert folders
    assert [f for f in sorted(folders) if f not in {row.code for row in TABLE}] == []


def test_the_benchmarks_are_covered() -> None:
    americas_nli = "ay bzd cni gn hch nah oto quy shp tar"
    nusax = "ace ban bbc bjn bug en id jv mad min nij su"
    universal_ner = "ceb da de en hr pt ru sk sr sv tl zh"
    masakhaner = "am bm bbj ee fon ha ig rw lg luo mos ny pcm sn sw tn tw wo xh yo zu"
    spoken = {"AmericasNLI": americas_nli, "NusaX": nusax, "UNER": universal_ner}
    spoken |= {"MasakhaNER": masakhaner, "SIB-200": SIB200}
    spoken |= {name: " ".join(task.languages or ()) for name, task in TASKS.items() if not task.lab}
    assert {"xnli", "udpos", "wikiann", "tatoeba"} <= set(spoken)
    for name, codes in spoken.items():
        for code in codes.split():
            row = get(code)
            assert row.code == code, f"{name}: {code} is an alias of {row.code}"
            assert row.name and row.script and row.family, f"{name}: {code}"
            # Two of AmericasNLI's are groups of languages, which have no code of ISO 639-3.
            assert row.iso639_3 or code in {"nah", "oto"}, f"{name}: {code}"


def test_the_list_of_sib200_is_that_of_the_shared_data() -> None:
    data = _shared_data() / "sib200"
    if not data.is_dir():
        pytest.skip(f"no shared data at {data}; set ADAPTERXLT_SHARED to the folder above data/")
    assert sorted(SIB200.split()) == sorted(path.name for path in data.iterdir() if path.is_dir())


def test_the_languages_of_xtreme_r_are_those_of_its_tasks() -> None:
    spoken = {code for task in XTREME_R_TASKS for code in TASKS[task].languages or ()}
    assert spoken == set(JOSHI) and len(spoken) == 50
    for code in spoken:
        row = get(code)
        assert None not in (row.joshi, row.cc100_gib, row.wikipedia_articles)


def test_no_key_stands_for_two_languages() -> None:
    owners = Counter(key for row in TABLE for key in {row.code, row.iso639_3, *row.aliases} - {""})
    assert [key for key, n in owners.items() if n > 1] == []
    assert len({row.name for row in TABLE}) == len(TABLE)
    assert [row.code for row in TABLE] == sorted(row.code for row in TABLE)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.code)
def test_row_is_well_formed(row: Language) -> None:
    assert re.fullmatch("[a-z]{2,3}", row.code)
    assert re.fullmatch("[a-z]{3}", row.iso639_3) or row.code in {"nah", "oto", "ber"}
    assert len(row.code) == 2 or row.iso639_3 in {row.code, ""}
    assert re.fullmatch("[A-Z][a-z]{3}", row.script)
    assert re.fullmatch(r"[A-Z][\w-]+(:[A-Z][\w -]+)?", row.family)
    assert row.name
    assert row.name == row.name.strip()
    assert row.joshi in {None, 0, 1, 2, 3, 4, 5}
    assert row.cc100_gib is None or 0 <= row.cc100_gib <= 300.8
    assert row.wikipedia_articles is None or 0 < row.wikipedia_articles <= 7_213_388
    assert not {row.code, row.iso639_3} & set(row.aliases)


@pytest.mark.parametrize(("code", "joshi"), JOSHI.items())
def test_joshi_classes_of_xtreme_r(code: str, joshi: int) -> None:
    assert get(code).joshi == joshi


def test_joshi_groups_of_xtreme_r() -> None:
    groups = Counter(resource_class(code) for code in JOSHI)
    assert groups == {"high": 20, "mid": 17, "low": 13}


def test_joshi_classes_of_americas_nli() -> None:
    known = {"ay": 1, "gn": 1, "qu": 1, "nah": 1, "bzd": 0, "oto": 0, "tar": 0, "shp": 0, "hch": 0}
    assert {code: get(code).joshi for code in known} == known
    # The published list has no entry for these two; nothing is inferred from their relatives.
    assert [resource_class(code) for code in ("cni", "quy")] == ["unknown", "unknown"]


def test_cc100_sizes_of_xtreme_r() -> None:
    assert len(GIB) == 50
    assert {code: get(code).cc100_gib for code in GIB} == GIB


def test_cc100_groups_of_xtreme_r() -> None:
    groups: dict[str, set[str]] = {}
    for code in GIB:
        groups.setdefault(resource_class(code, "cc100"), set()).add(code)
    assert groups["unseen"] == {"ht", "qu", "wo", "yo"}
    assert groups["low"] == {"pa", "jv"}
    assert groups["mid"] == {
        "lt", "ta", "ka", "ms", "bn", "ml", "az", "kk", "et",
        "ur", "te", "tl", "mr", "eu", "my", "gu", "sw", "af",
    }  # fmt: skip
    assert len(groups["high"]) == 26
    assert set(groups) == {"high", "mid", "low", "unseen"}


@pytest.mark.parametrize(
    ("joshi", "group"),
    [(None, "unknown"), (0, "low"), (2, "low"), (3, "mid"), (4, "high"), (5, "high")],
)
def test_joshi_group_bounds(joshi: int | None, group: str) -> None:
    assert languages._joshi_group(joshi) == group


@pytest.mark.parametrize(
    ("gib", "group"),
    [
        (None, "unknown"), (0.0, "unseen"), (0.1, "low"), (0.9, "low"),
        (1.0, "mid"), (19.9, "mid"), (20.0, "high"), (300.8, "high"),
    ],
)  # fmt: skip
def test_cc100_group_bounds(gib: float | None, group: str) -> None:
    assert languages._cc100_group(gib) == group


@pytest.mark.parametrize(
    ("articles", "group"),
    [
        (None, "unknown"), (1, "low"), (99_999, "low"), (100_000, "mid"), (999_999, "mid"),
        (1_000_000, "high"),
    ],
)  # fmt: skip
def test_wikipedia_group_bounds(articles: int | None, group: str) -> None:
    assert languages._wikipedia_group(articles) == group


def test_wikipedia_sizes_and_groups_of_xtreme_r() -> None:
    assert len(ARTICLES) == 50
    assert {code: get(code).wikipedia_articles for code in ARTICLES} == ARTICLES
    groups = [resource_class(code, "wikipedia") for code in ARTICLES]
    assert groups == ["high"] * 15 + ["mid"] * 26 + ["low"] * 9


def test_what_a_wider_edition_has_is_not_passed_down() -> None:
    assert [get(code).wikipedia_articles for code in ("nb", "quy", "dik", "bho")] == [None] * 4
    assert resource_class("quy", "wikipedia") == resource_class("shp", "wikipedia") == "unknown"
    # Editions that go by another code, and the one whose code another language's would be.
    assert get("gsw").wikipedia_articles == 31_766 and get("yue").wikipedia_articles == 151_239


def test_the_two_schemes_disagree_where_the_literature_says_so() -> None:
    for code in ("id", "uk", "th", "ro", "bg", "el", "he"):
        assert (resource_class(code), resource_class(code, "cc100")) == ("mid", "high")
    assert (resource_class("eu"), resource_class("eu", "cc100")) == ("high", "mid")


def test_a_member_of_a_listed_macrolanguage_is_unknown_rather_than_unseen() -> None:
    assert resource_class("nb", "cc100") == resource_class("arz", "cc100") == "unknown"
    assert resource_class("quy", "cc100") == resource_class("shp", "cc100") == "unseen"


def test_unknown_scheme() -> None:
    assert languages.SCHEMES == ("joshi", "cc100", "wikipedia")
    with pytest.raises(ValueError, match="joshi, cc100, wikipedia"):
        resource_class("fi", "glottolog")


@given(st.sampled_from(KEYS))
def test_every_key_leads_back_to_its_row(key: str) -> None:
    row = get(key)
    assert key in {row.code, row.iso639_3, *row.aliases}
    assert canonical(key) == row.code
    assert canonical(canonical(key)) == canonical(key)
    assert get(row.code) is row
    for scheme in languages.SCHEMES:
        assert resource_class(key, scheme) == resource_class(row.code, scheme)


@pytest.mark.parametrize(
    ("alias", "code"),
    [
        ("iw", "he"), ("in", "id"), ("aym", "ay"), ("grn", "gn"), ("cmn", "zh"), ("arb", "ar"),
        ("pes", "fa"), ("deu", "de"), ("ger", "de"), ("que", "qu"), ("quy", "quy"), ("no", "no"),
    ],
)  # fmt: skip
def test_aliases(alias: str, code: str) -> None:
    assert canonical(alias) == code


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [
        ("finnish", "fi"), ("Finnish", "fi"), ("Finish", "fi"), ("EN", "en"), ("pt-BR", "pt"),
        ("zho_Hans", "zh"), ("swahilli", "sw"), ("Haitian", "ht"), ("kurdish", "ku"),
        ("fj1", "fj"), ("quyy", "quy"), ("xq", "xh"),
    ],
)  # fmt: skip
def test_suggestions(typed: str, suggested: str) -> None:
    with pytest.raises(UnknownLanguage) as caught:
        get(typed)
    assert suggested in caught.value.suggestions
    assert caught.value.code == typed
    assert repr(typed) in str(caught.value)
    assert suggested in str(caught.value)


@given(st.text(max_size=12).filter(lambda text: text not in KEYS))
def test_whatever_is_typed_suggestions_are_few_and_real(typed: str) -> None:
    with pytest.raises(KeyError) as caught:
        canonical(typed)
    error = caught.value
    assert isinstance(error, UnknownLanguage)
    assert len(error.suggestions) == len(set(error.suggestions)) <= 3
    assert all(canonical(code) == code for code in error.suggestions)


def test_nothing_near_nothing_suggested() -> None:
    with pytest.raises(UnknownLanguage) as caught:
        get("klingonese")
    assert caught.value.suggestions == ()
    assert str(caught.value) == "unknown language 'klingonese'"


def test_the_error_survives_a_process_boundary() -> None:
    copy = pickle.loads(pickle.dumps(UnknownLanguage("xx", ("xh",))))
    assert (copy.code, copy.suggestions, str(copy)) == (
        "xx", ("xh",), "unknown language 'xx'; did you mean xh?",
    )  # fmt: skip


def test_the_laboratory_is_elsewhere() -> None:
    assert [row.code for row in TABLE if row.code.startswith("lab-")] == []
    with pytest.raises(UnknownLanguage):
        get("lab-src")


def test_the_module_reads_nothing_until_asked() -> None:
    program = (
        "import sys, adapterxlt.core.languages as m; "
        "assert m.all_languages.cache_info().currsize == 0; m.get('fi'); "
        "assert m.all_languages.cache_info().currsize == 1; "
        "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
