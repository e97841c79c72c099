"""The journal of a run: what is whole is kept, what is of another run is not."""

from common.runs.journal import Journal

HEADER = {"images": ["a.png", "b\udc80.png"], "seed": 0}


def written(path, batches=3):
    journal = Journal(path, HEADER)
    with journal.opened():
        for number in range(batches):
            journal.append(number, {"scores": [0.1 * number, float("inf")]})
    return journal


def test_a_journal_goes_on_behind_its_last_whole_line(tmp_path):
    path = tmp_path / "new/run.jsonl"
    whole = written(path)
    content = path.read_bytes()
    assert content.count(b"\n") == 4 and b' {"format": 2' in content
    for cut in (content[:-5], content + b'{"batch": 3, "sco', content[:-1]):
        path.write_bytes(cut)
        journal = Journal(path, HEADER)
        assert journal.read()
        kept = len(journal.batches)
        assert journal.batches == {n: whole.batches[n] for n in range(kept)} and kept >= 2
        with journal.opened():
            for number in range(kept, 3):
                journal.append(number, {"scores": [0.1 * number, float("inf")]})
        assert path.read_bytes() == content


def test_a_journal_of_something_else_is_started_over(tmp_path):
    path = tmp_path / "run.jsonl"
    written(path)
    for header in ({**HEADER, "seed": 1}, {**HEADER, "format": 0}):
        other = Journal(path, header)
        assert not other.read() and not other.batches
    path.write_bytes(b"no json\n")
    assert not Journal(path, HEADER).read()
    written(path, batches=1)
    again = Journal(path, HEADER)
    assert again.read() and list(again.batches) == [0]


def test_what_is_forgotten_is_dropped(tmp_path):
    path = tmp_path / "run.jsonl"
    journal = written(path)
    assert journal.read()
    journal.forget()
    with journal.opened():
        journal.append(7, {})
    assert list(journal.batches) == [7] and path.read_bytes().count(b"\n") == 2
