"""REPRODUCTION.md is what its script makes of the records."""

from experiments import reproduction


def test_documented_the_page_is_made_from_the_records():
    assert reproduction.PAGE.read_text() == reproduction.page(), "run: python experiments/reproduction.py"


def test_documented_what_has_no_record_is_open(monkeypatch):
    monkeypatch.setattr(reproduction, "record", lambda name: None)
    page = reproduction.page()
    assert page.count("open") > 12
    assert "7.77" in page  # the paper's numbers stand all the same
