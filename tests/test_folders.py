"""The results folder: where a cell lies in it, and its index."""

import csv
from dataclasses import replace

import pytest

from common.protocols import METHODS, PAPER
from common.runs.folders import (
    COLUMNS,
    INDEX,
    cell_folder,
    check_layout,
    find_cell,
    finished_folders,
    settings_of,
    write_index,
)
from common.runs.grid import Cell, Entry, Target
from common.runs.results import FILES, CellResult, Failure, Gain, OverSeeds, Summary
from common.system.errors import UserError

CELL = Cell("metaiqa", "metaiqa-kadid10k", Target("koniq10k"), METHODS["rank+gc"], PAPER, (0, 1))


def lay(root, cell, **content):
    """A folder of a cell with some content in each of its files."""
    folder = root / cell_folder(cell)
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text(content.get(name.partition(".")[0], "{}"))
    return folder


def read_index(root):
    with (root / INDEX).open(newline="", encoding="utf-8") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def test_a_cell_lies_where_people_look_for_it_and_its_id_decides(tmp_path):
    assert cell_folder(CELL).as_posix() == f"metaiqa/koniq10k/rank+gc-{CELL.id}"
    renamed = replace(CELL, method=replace(CELL.method, name="both"))
    assert find_cell(tmp_path, renamed) == tmp_path / f"metaiqa/koniq10k/both-{CELL.id}"
    folder = lay(tmp_path, CELL)
    assert find_cell(tmp_path, renamed) == find_cell(tmp_path, CELL) == folder
    odd = replace(CELL, backbone="failed", target=Target("../a:b*"), method=replace(CELL.method, name=".x/y"))
    assert cell_folder(odd).parts == ("failed_", "___a_b_", f"_x_y-{odd.id}")


def test_only_whole_cells_are_finished(tmp_path):
    folder = lay(tmp_path, CELL)
    other = lay(tmp_path, replace(CELL, backbone="tres"))
    lay(tmp_path, replace(CELL, seeds=(0,)), run="")
    lay(tmp_path / ".work", CELL)
    lay(tmp_path / "failed", CELL)
    (lay(tmp_path, replace(CELL, seeds=(1,))) / "scores.csv").unlink()
    assert list(finished_folders(tmp_path)) == [folder, other]


def test_the_previous_layout_is_refused(tmp_path):
    check_layout(tmp_path / "nowhere")
    lay(tmp_path, CELL)
    check_layout(tmp_path)
    (tmp_path / CELL.id).mkdir()
    (tmp_path / CELL.id / "result.json").write_text("{}")
    with pytest.raises(UserError, match="previous layout.*give another results folder"):
        check_layout(tmp_path)


def test_the_index_has_a_row_for_each_cell(tmp_path):
    band = replace(CELL, target=Target("live_iqa", between=(40.0, 50.0)), limit=30)
    five = replace(CELL, method=replace(CELL.method, niter=5, adapt=("bn", "ln")))
    asked = [
        Entry("1", "metaiqa", CELL.weights, CELL.target, "TTA-IQA", CELL),
        Entry("2", "metaiqa", CELL.weights, CELL.target, "rank+gc", CELL),
        Entry("fig4", "metaiqa", band.weights, band.target, "rank", band),
    ]
    source, adapted = (
        {"srocc": OverSeeds(srocc), "plcc": OverSeeds((0.25, None))} for srocc in ((0.5, 0.6), (0.6, 0.8))
    )
    summary = Summary(12, (0, 1), source, adapted, Gain(0.15, (-0.1, 0.4)), {}, 0, 0, 0, 0)
    finished = {CELL.id: CellResult(CELL, summary, {}, {}, {}, 1.0)}
    write_index(tmp_path, asked, finished, {five.id: Failure(five, "no\nmemory, here")})
    rows = read_index(tmp_path)
    assert list(rows) == [CELL.id, band.id, five.id]
    done, todo, failed = rows.values()
    assert done["places"] == "Table 1: TTA-IQA; Table 2: rank+gc" and done["folder"] == str(cell_folder(CELL))
    numbers = [done[name] for name in COLUMNS[COLUMNS.index("state") :]]
    assert numbers == ["done", "", "12", "0.5500", "0.7000", "0.1500", "-0.1000", "0.4000", "", ""]
    assert (todo["state"], todo["subset"], todo["limit"]) == ("to do", "40 to 50", "30")
    assert (failed["state"], failed["reason"], failed["places"]) == ("failed", "no memory, here", "")
    assert (failed["settings"], failed["seeds"]) == ("niter=5; adapt=bn+ln", "0 1")
    severities = replace(PAPER.severities, blur_high=(7.5, 9.0), whole_image=True)
    odd = replace(CELL, protocol=replace(PAPER, severities=severities))
    assert settings_of(odd) == "severities.blur_high=7.5 to 9.0; severities.whole_image=True"
