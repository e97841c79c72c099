"""What a power cut may cost: a name that counts goes to what is on the disk, and is then on it too."""

import os
import stat
from pathlib import Path

import pytest
import torch
from PIL import Image

from common.runs import journal
from common.runs.journal import Journal
from common.runs.training import TrainingState, save_state
from common.system.errors import UserError
from common.system.output import place_folder, write_csv, write_json
from scripts import download_weights, reproduce_cell, score_images
from weights.loading import save_weights


class Disk:
    """Knows what a power cut would leave, by the calls that reach the system."""

    def __init__(self, root, monkeypatch):
        self.root, self.named = root, []
        self.synced = {}  # of the inode of each file: size and time of its content on the disk
        self.listed = {}  # of the inode of each folder: the names on the disk
        self._fsync, self._rename = os.fsync, os.rename
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(os, "rename", self.rename)
        monkeypatch.setattr(os, "replace", self.rename)

    def fsync(self, number):
        self._fsync(number)
        found = os.fstat(number)
        if stat.S_ISDIR(found.st_mode):
            self.listed[found.st_ino] = set(os.listdir(number))
        else:
            self.synced[found.st_ino] = found.st_size, found.st_mtime_ns

    def has_content(self, path):
        """Whether the content of a file is on the disk, or the names in a folder."""
        found = path.stat()
        if path.is_dir():
            return self.listed.get(found.st_ino) == set(os.listdir(path))
        return self.synced.get(found.st_ino) == (found.st_size, found.st_mtime_ns)

    def has_name(self, path):
        """Whether a name is on the disk, and those of the folders above it."""
        above = path.relative_to(self.root).parents
        places = [path, *(self.root / folder for folder in above if folder.name)]
        return all(place.name in self.listed.get(place.parent.stat().st_ino, ()) for place in places)

    def rename(self, source, target):
        source, target = Path(source), Path(target)
        if target.is_relative_to(self.root):
            inside = list(source.rglob("*")) if source.is_dir() else []
            lost = [path for path in (source, *inside) if not self.has_content(path)]
            assert not lost, f"{target} gets its name before {lost} is on the disk"
            self.named.append(target)
            self.listed.get(target.parent.stat().st_ino, set()).discard(target.name)
        self._rename(source, target)

    def check(self, *names):
        """Assert that these appeared whole, and that no name that was given would be lost."""
        assert {self.root / name for name in names} <= set(self.named)
        lost = [path for path in self.named if path.exists() and not self.has_name(path)]
        assert not lost, f"{lost} would be lost"


@pytest.fixture
def disk(tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    return Disk(tmp_path / "disk", monkeypatch)


def test_the_check_finds_what_is_not_synced(disk):
    (disk.root / "a").write_text("a")
    with pytest.raises(AssertionError, match="before .* is on the disk"):
        os.replace(disk.root / "a", disk.root / "b")
    (disk.root / "made").mkdir()
    (disk.root / "made/x").write_text("x")
    place_folder(disk.root / "made", disk.root / "c")
    disk.check("c")
    disk.rename(disk.root / "c/x", disk.root / "c/y")
    with pytest.raises(AssertionError, match="c/y.* would be lost"):
        disk.check()


def test_files_and_folders_are_synced_before_they_count(disk):
    write_json(disk.root / "new/er/x.json", {"a": 1})
    write_csv(disk.root / "x.csv", ["a"], [[1]])
    save_weights(disk.root / "w/x.safetensors", {"a": torch.zeros(3)}, {})
    save_state(disk.root / "x.resume.pth", {}, TrainingState(1, 0.0, [], {}, {}, {}), 1.0)
    folder = disk.root / "work/result"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/scores.csv").write_text("a\n")
    (folder / "result.json").write_text("{}")
    place_folder(folder, disk.root / "results/net/data/cell")
    disk.check("new/er/x.json", "x.csv", "w/x.safetensors", "x.resume.pth", "results/net/data/cell")


def test_a_result_is_on_the_disk_before_it_counts(disk, weights, tmp_path):
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for n in range(3):
        Image.new("RGB", (230, 230), (n * 80, 9, 9)).save(photographs / f"{n}.png")
    (photographs / "s.csv").write_text("image_name,MOS\n0.png,1\n1.png,2\n2.png,3\n")
    common = ["--backbone", "metaiqa", "--weights", str(weights), "--device", "cpu", "--workers", "0"]
    cell = [*common, "--data-root", str(photographs), "--method", "source", "--seeds", "1"]
    assert (
        reproduce_cell.main(
            [*cell, "--results", str(disk.root / "results"), "--json", str(disk.root / "json/x.json")]
        )
        == 0
    )
    assert (
        score_images.main(
            [str(photographs), *common, "--output", str(disk.root / "csv/s.csv"), "--protocol", "paper"]
        )
        == 0
    )
    by_hand = ["--dest", str(disk.root / "files"), "--from-file", f"metaiqa-tid2013-kadid10k={weights}"]
    assert download_weights.main(by_hand) == 0
    (result,) = (disk.root / "results").glob("*/*/*/result.json")
    cell_folder = result.parent.relative_to(disk.root)
    disk.check(
        "json/x.json", "csv/s.csv", cell_folder, "files/metaiqa-tid2013-kadid10k.pth", "files/lock.json"
    )


def test_a_journal_is_synced_every_few_seconds_and_when_it_ends(disk, monkeypatch):
    path, now = disk.root / "new/run.jsonl", [0.0]
    monkeypatch.setattr(journal.time, "monotonic", lambda: now[0])
    with Journal(path, {}).opened() as kept:
        assert disk.has_name(path)
        kept.append(0, {})
        assert not disk.has_content(path)  # each would cost more than a small episode
        now[0] += journal.SYNC + 0.1
        kept.append(1, {})
        assert disk.has_content(path)
        kept.append(2, {})
    assert disk.has_content(path)


def test_a_disk_that_fails_is_one_line(tmp_path, monkeypatch):
    def failing(number):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    for write in (lambda path: write_json(path, 1), lambda path: Journal(path, {}).opened().__enter__()):
        with pytest.raises(UserError, match="x cannot be written .Input/output error."):
            write(tmp_path / "x")
    assert not list(tmp_path.glob(".x*"))
