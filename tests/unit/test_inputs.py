"""Which files of this machine go into a job: all that are meant, by names that a job may have, no others."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridx import filepaths, safetext
from gridx.errors import InvalidField, QuotaExceeded, TooLarge
from gridx.inputs import Found, check_limits, collect
from gridx.messages import FileCaps, FilePath, Limits

PART = st.text(st.sampled_from("abcdefg.~- ü漢"), min_size=1, max_size=8)
PATHS = st.lists(PART, min_size=1, max_size=3).map("/".join)


def names(found: list[Found]) -> list[str]:
    return [file.path for file in found]


def tree(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)
    return folder


def allowed(path: str) -> bool:
    try:
        msgspec.convert(path, FilePath)
    except (msgspec.ValidationError, UnicodeEncodeError):
        return False
    return True


def test_files_keep_their_path_below_the_folder_one_is_in(tmp_path):
    tree(tmp_path, "data.csv", "deep/er/x", "elsewhere/y")
    root = tmp_path / "deep"
    found = collect([tmp_path / "data.csv", "er/x", tmp_path / "elsewhere/y"], root)
    assert names(found) == ["data.csv", "er/x", "y"]
    assert names(collect(["./er/../er/x"], root)) == ["er/x"]
    assert names(collect(["../elsewhere/y"], root)) == ["y"]


def test_a_folder_goes_as_a_whole_under_its_name_or_another(tmp_path):
    tree(tmp_path, "d/a", "d/e/b", "d/e/c")
    assert names(collect(["d"], tmp_path)) == names(collect(["d/"], tmp_path)) == ["d/a", "d/e/b", "d/e/c"]
    assert names(collect(["new=d"], tmp_path)) == ["new/a", "new/e/b", "new/e/c"]
    assert names(collect(["new/x.csv=d/a"], tmp_path)) == ["new/x.csv"]
    assert names(collect([tmp_path / "d" / "e"], tmp_path / "d")) == ["e/b", "e/c"]


def test_all_of_the_folder_one_is_in_without_the_program_and_what_came_back(tmp_path):
    tree(tmp_path, "job.py", "out/old", "data", "sub/job.py")
    assert names(collect(["."], tmp_path)) == ["data", "sub/job.py"]


def test_a_file_whose_name_has_an_equals_sign_is_meant_when_it_is_there(tmp_path):
    tree(tmp_path, "a=b", "b")
    assert [file.source.name for file in collect(["a=b"], tmp_path)] == ["a=b"]


def test_size_and_whether_it_is_a_program_are_told(tmp_path):
    tree(tmp_path, "run", "data")
    (tmp_path / "run").chmod(0o755)
    run, data = collect(["run", "data"], tmp_path)
    assert (run.size, run.executable) == (3, True)
    assert (data.size, data.executable) == (4, False)


def test_ignore_files_are_read_like_gits_also_further_down(tmp_path):
    tree(
        tmp_path,
        *("d/a.log", "d/keep.log", "d/data/x", "d/sub/a.log", "d/sub/b", "d/sub/deep/b"),
        *("d/.git/config", "d/__pycache__/m.pyc", "d/m/__pycache__/x.pyc", "d/m/y"),
    )
    (tmp_path / "d/.gridxignore").write_text("# logs\n*.log\n!keep.log\n/data/\n")
    (tmp_path / "d/sub/.gridxignore").write_text("b\n!deep/b\n!a.log\n")
    assert names(collect(["d"], tmp_path)) == ["d/keep.log", "d/m/y", "d/sub/a.log", "d/sub/deep/b"]
    # What is named itself goes along.
    assert names(collect(["d/a.log"], tmp_path)) == ["d/a.log"]


@pytest.mark.parametrize("content", [b"a\n!\n", b"\xff\xfe"])
def test_an_ignore_file_that_cannot_be_read_is_named(tmp_path, content):
    tree(tmp_path, "d/a")
    (tmp_path / "d/.gridxignore").write_bytes(content)
    with pytest.raises(InvalidField, match="gridxignore"):
        collect(["d"], tmp_path)


def test_links_are_followed_inside_of_their_folder_only(tmp_path):
    tree(tmp_path, "secret", "d/a", "d/e/b")
    (tmp_path / "d/inside").symlink_to("e/b")
    assert names(collect(["d"], tmp_path)) == ["d/a", "d/e/b", "d/inside"]
    # One that is named itself is meant.
    (tmp_path / "link").symlink_to("secret")
    assert collect(["link"], tmp_path)[0].source.read_text() == "secret"
    for target in ("../secret", "nowhere", "/etc/passwd", "e", "../d", "/"):
        (tmp_path / "d/bad").symlink_to(target)
        with pytest.raises(InvalidField, match="bad cannot go along"):
            collect(["d"], tmp_path)
        (tmp_path / "d/bad").unlink()


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    tree(tmp_path, "d/a")
    os.mkfifo(tmp_path / "d/pipe")
    for name in ("pipe", "d", "/dev/null"):
        with pytest.raises(InvalidField, match="no regular file"):
            collect([name], tmp_path)


def test_a_folder_of_too_many_files_is_not_walked_to_its_end(tmp_path):
    tree(tmp_path, *(f"d/{number}" for number in range(2001)), "e/x")
    with pytest.raises(TooLarge, match="more than the 2,000 files"):
        collect(["e", "d"], tmp_path)
    (tmp_path / "d/2000").unlink()
    assert len(collect(["d"], tmp_path)) == 2000


@pytest.mark.parametrize("name", ["dta.csv", "nothing/at/all", "", "a\0b", "x" * 300])
def test_a_missing_file_is_said_with_what_may_be_meant(tmp_path, name):
    tree(tmp_path, "data.csv")
    with pytest.raises(InvalidField) as caught:
        collect(["data.csv", name], tmp_path) if name else collect(["nope"], tmp_path)
    if name == "dta.csv":
        assert caught.value.hint == "Did you mean data.csv?"


HOSTILE = [
    b"new\nline",
    b"esc\x1b[2J",
    "turn\u202e".encode(),
    b"bell\x07",
    b"not \xff utf-8",
    b"back\\slash",
    b"c:drive",
    "c1\x9b1m".encode(),
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_no_job_may_have_is_refused_and_shown_safely(tmp_path, name):
    (tmp_path / "d").mkdir()
    Path(os.fsdecode(bytes(tmp_path / "d") + b"/" + name)).write_text("x")
    with pytest.raises(InvalidField) as caught:
        collect(["d"], tmp_path)
    message = str(caught.value)
    message.encode()
    assert safetext.line(message, limit=2000) == message


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../b", "a//b", "./a", ".", "..", "a/.", "", "a\nb"])
def test_a_new_name_that_leads_elsewhere_is_refused(tmp_path, name):
    tree(tmp_path, "a")
    if name:
        with pytest.raises(InvalidField):
            collect([f"{name}=a"], tmp_path)
    assert not allowed(name)


def limits(**changes: int) -> Limits:
    values = {
        "code_bytes": 1,
        "file_bytes": 100,
        "inputs": 3,
        "quota_bytes": 1000,
        "used_bytes": 0,
        "output_cap_bytes": 1,
        "array_elements": 1,
        "queued": 1,
        "running": 0,
    }
    return Limits(**{**values, **changes}, out_files=FileCaps(total_bytes=1, files=1, depth=1))


def found(*sizes: int) -> list[Found]:
    return [Found(Path("x"), f"file{number}", size, False) for number, size in enumerate(sizes)]


def test_a_refusal_names_the_largest_files():
    with pytest.raises(TooLarge, match=r"file1 \(300 B\), file0 \(200 B\)"):
        check_limits(found(200, 300, 5), limits())
    with pytest.raises(TooLarge, match="4 files"):
        check_limits(found(1, 1, 1, 1), limits())
    with pytest.raises(QuotaExceeded) as caught:
        check_limits(found(60, 90, 70), limits(quota_bytes=200))
    assert "file1 (90 B), file2 (70 B), file0 (60 B)" in caught.value.message
    assert caught.value.details == {"used": 0, "allowed": 200, "wanted": 220}
    check_limits(found(100, 100, 100), limits(quota_bytes=300))


# -- properties --------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40) | PATHS)
def test_a_path_that_is_allowed_stays_inside_of_its_folder(path):
    if allowed(path):
        whole = os.path.normpath(f"/folder/{path}")
        assert whole == f"/folder/{path}"
        assert not any(ord(char) < 32 or ord(char) == 127 for char in path)


@settings(max_examples=150, deadline=None)
@given(st.lists(PATHS.filter(allowed), max_size=6))
def test_paths_that_pass_can_lie_beside_each_other_and_others_cannot(tmp_path_factory, paths):
    """What the rules say is what a real folder does."""
    folder = tmp_path_factory.mktemp("folder")
    blocked = filepaths.Folder().put_all(paths)
    last = len(paths) if blocked is None else blocked[0]
    for path in paths[:last]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).open("x").close()
    if blocked is not None:
        with pytest.raises(OSError):
            (folder / paths[last]).parent.mkdir(parents=True, exist_ok=True)
            (folder / paths[last]).open("x").close()


@settings(max_examples=60, deadline=None)
@given(shared=st.lists(PATHS.filter(allowed), max_size=4), own=st.lists(PATHS.filter(allowed), max_size=4))
def test_what_several_share_is_checked_like_one_list(shared, own):
    base = filepaths.Folder()
    if base.put_all(shared) is None:
        apart = filepaths.Folder(base).put_all(own)
        together = filepaths.Folder().put_all([*shared, *own])
        assert apart == (together and (together[0] - len(shared), together[1]))


@settings(max_examples=60, deadline=None)
@given(
    files=st.sets(PATHS.filter(allowed), max_size=6),
    ignored=st.lists(st.sampled_from(["a*", "b/", "!ab", "/c", "*.d", "g"]), max_size=3),
)
def test_every_file_of_a_folder_is_taken_or_left_out_by_the_ignore_file(tmp_path_factory, files, ignored):
    folder = tmp_path_factory.mktemp("folder")
    for path in sorted(files):
        try:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(path)
        except OSError:  # in the way of one before it
            continue
    everything = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if stat.S_ISREG(path.lstat().st_mode)
    }
    whole = collect(["d=" + str(folder)])
    assert {file.path for file in whole} == {f"d/{path}" for path in everything}
    (folder / ".gridxignore").write_text("\n".join(ignored))
    some = collect(["d=" + str(folder)])
    assert {file.path for file in some} <= {file.path for file in whole}
    for file in some:
        assert file.source.read_text() == file.path.removeprefix("d/")
        assert allowed(file.path)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_name_is_shown_in_one_harmless_line(data):
    shown = safetext.name(os.fsdecode(data))
    shown.encode()
    assert shown == safetext.line(shown)
    assert "\n" not in shown
    assert "\x1b" not in shown
