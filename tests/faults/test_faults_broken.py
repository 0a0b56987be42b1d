"""The breaks that the campaign has to find are breaks of the source as it is."""

from pathlib import Path

import pytest

from tests.faults.broken.breaks import BREAKS, Break, Edit, NotThere
from tests.faults.broken.proving import copy_with


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.name)
def test_every_break_fits_the_source_as_it_is_and_leaves_it_compilable(broken: Break, tmp_path: Path) -> None:
    copy_with(broken, tmp_path)
    for edit in broken.edits:
        compile((tmp_path / edit.file).read_text(), edit.file, "exec")


def test_an_edit_of_what_is_not_there_says_so(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("there = 1\n")
    with pytest.raises(NotThere, match="not there"):
        Edit("module.py", "not there", "").apply(tmp_path)
