"""Hashes of the files of a method that is not paec_loss's."""

from __future__ import annotations

from hashlib import sha256

from recipe.lab.own_code import changed, hashes_of


def test_files_of_the_class_and_its_bases(small, own_method):
    assert hashes_of(small("method=paec", "also=[clip_higher]").stack) == {}
    file = own_method(0.1)
    assert small("method=my_method.Mine").own_code == {
        "my_base": sha256(file.with_name("my_base.py").read_bytes()).hexdigest(),
        "my_method": sha256(file.read_bytes()).hexdigest(),
    }


def test_the_file_that_changed_is_named(small, own_method):
    file = own_method(0.1)
    before = small("method=my_method.Mine").own_code
    assert changed(before, small("method=my_method.Mine").own_code) is None
    own_method(0.2)
    assert changed(before, small("method=my_method.Mine").own_code) == file
    assert changed({}, before) is None, "a run of before hashes were recorded"
