"""Lists of phrases: the default, a file, and one mined from responses."""

import pytest

from paec_loss.methods.hicra import CATEGORIES, PHRASES
from recipe.paec.analyse import phrases
from recipe.paec.analyse.phrases import DEFAULT, PhraseList, as_text, clustered, count, frequent, mined, read_phrases
from recipe.paec.common.errors import UserError


def test_the_default_is_the_methods_list():
    assert DEFAULT.phrases == PHRASES and DEFAULT.cluster_names == list(CATEGORIES)
    assert len(set(PHRASES)) == 36
    assert dict(zip(DEFAULT.phrases, DEFAULT.clusters, strict=True))["hold on"] == "looking back"


def test_a_file(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("# ours\nLet\u2019s see\n\n[turns]\nBut wait\nhold on\n[plans]\nfirst we\n")
    found = read_phrases(file)
    assert found.phrases == ("let's see", "but wait", "hold on", "first we")
    assert found.clusters == ("let's see", "turns", "turns", "plans") and found.name == str(file)
    assert read_phrases(file).cluster_names == ["let's see", "turns", "plans"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a b\n[x]\nA B\n", "line 3: 'a b' occurs twice: delete one of them"),
        (b"# nothing\n[x]\n", "contains no phrase: write one per line"),
        (b"\xff\xfe\xff", "cannot be read"),
    ],
)
def test_files_that_are_no_list(tmp_path, content, sentence):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        read_phrases(tmp_path / "list.txt")


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="--phrases .*gone.txt: cannot be read"):
        read_phrases(tmp_path / "gone.txt")


def test_occurrences():
    """Complete words, any case; a phrase within another counts for both."""
    assert count("Wait, no. But wait, no: withhold on, Hold on; so so", ["wait, no", "but wait", "hold on", "so"]) == [
        *(2, 1, 1, 2)
    ]


def test_a_mined_phrase_is_found_by_the_rule_that_counts():
    """Dashes, quotes and several blanks join no words of a phrase."""
    assert phrases.parts_of("let us - so  we' go on-to") == [["let", "us"], ["so"], ["we"], ["go", "on-to"]]
    texts = ["we go on - let us see", "we go on -- let us see", "don't we think so' a b c", "so we  go on let us see"]
    found = mined([*texts, *texts], "x")
    assert found.phrases and all(any(count(text, [phrase])[0] for text in texts) for phrase in found.phrases)


def test_runs_in_how_many_texts():
    given = ("Let us check it. Let us check", "so let us check 3 let us go on", "no")
    texts = [phrases.parts_of(text) for text in given]
    assert texts[0] == [["let", "us", "check", "it"], ["let", "us", "check"]]
    assert frequent(texts, 2) == {("let", "us", "check"): 2}
    assert frequent(texts, 1)[("let", "us", "check", "it")] == 1
    assert ("check", "let", "us") not in frequent(texts, 1), "no run across a number"


def test_clusters_by_shared_words():
    """Of the words shared with the first: 3 of 4, 2 of 5, 2 of 4 (just alike), none."""
    texts = ("let us check", "let us check it", "us check it again", "let us go", "we go on")
    found = clustered([tuple(text.split()) for text in texts])
    leaders = [" ".join(found[tuple(text.split())]) for text in texts]
    assert leaders == ["let us check", "let us check", "us check it again", "let us check", "we go on"]


def test_mining_by_hand():
    """Two clusters in 3 and 2 of 4 responses: 20 % of them, rounded up, is the first one."""
    responses = ["let us check.", "now let us check", "let us check; it must be so", "it must be so"]
    found = mined(responses, "list")
    assert found == PhraseList("list", ("let us check",), ("let us check",))
    assert as_text(found) == "[let us check]\nlet us check\n"


def test_mining_keeps_a_fifth_of_the_clusters_with_their_first_phrases(monkeypatch):
    """Ten runs that share no word, in 2 to 11 responses: two clusters; the longer runs of the first one join it."""
    words = [f"{a}{b}" for a in "abcdefghij" for b in "xyz"]
    responses = ["; ".join(" ".join(words[3 * i : 3 * i + 3]) for i in range(10) if n < i + 2) for n in range(11)]
    found = mined(responses, "list")
    assert found.phrases == ("jx jy jz", "ix iy iz") and found.clusters == found.phrases
    longer = [text.replace("jx jy jz", "jx jy jz q") for text in responses]
    assert mined(longer, "list").phrases == ("jx jy jz", "jx jy jz q", "jy jz q", "ix iy iz")
    assert mined(longer, "list").clusters == ("jx jy jz",) * 3 + ("ix iy iz",)
    monkeypatch.setattr(phrases, "MEMBERS", 2)
    assert mined(longer, "list").phrases == ("jx jy jz", "jx jy jz q", "ix iy iz")


def test_what_is_mined_can_be_read_again(tmp_path):
    found = mined(["let us check that it works", "so let us check that it holds"], str(tmp_path / "list.txt"))
    (tmp_path / "list.txt").write_text(as_text(found))
    assert read_phrases(tmp_path / "list.txt") == found and len(found.phrases) > 1


def test_nothing_to_mine():
    with pytest.raises(
        UserError, match="--mine list: no phrase occurs in at least 2 of the 2 responses: give more responses"
    ):
        mined(["let us check", "we go on"], "list")
