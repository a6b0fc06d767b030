import pytest

from nas.runs.training_log import log_rows
from nas.training.health import TrainLog

HEAD = "step,steps,epoch,loss_largest\n"
WHOLE = "10,100,1,2.3\n"


@pytest.mark.parametrize(
    "damaged",
    [b"20,100,1,2\0\0.3", b"20,100,1,2,3,4", b"20", b"x,100,1,2", b"nan,100,1,2", b"20,0,1,2", b",,,", b"20,inf,1,2"],
)
def test_damaged_rows_are_left_out(tmp_path, damaged):
    path = tmp_path / "log.csv"
    path.write_bytes(HEAD.encode() + WHOLE.encode() + damaged + b"\n")
    assert [row["step"] for row in log_rows(path)] == ["10"]
    assert [row["step"] for row in TrainLog(path, 100).rows] == ["10"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0", b"a,b\n1,2\n", None])
def test_what_is_no_log_has_no_rows(tmp_path, content):
    path = tmp_path / "log.csv"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    assert log_rows(path) == TrainLog(path, 100).rows == []


def test_columns_of_another_version_do_not_stop_the_writing(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("step,steps,epoch,new\n10,100,1,5\n")
    TrainLog(path, 100).write()
    assert [row["step"] for row in log_rows(path)] == ["10"]
