import pytest

from ssd_tf.commands import summary


@pytest.fixture
def report(tiny_config_file, capsys, monkeypatch):
    def run(*more):
        monkeypatch.setenv("COLUMNS", "160")
        code = summary.main(["summary", "--config", str(tiny_config_file), *more])
        return code, capsys.readouterr()

    return run


def test_layers_boxes_and_totals(report):
    code, output = report("--classes", "3")
    assert code == 0
    text = output.out
    # 64 x 96 on maps of 8 x 12, 4 x 6 and 2 x 3, with four default boxes each: 384 + 96 + 24.
    assert "504 default boxes" in text
    assert "8 x 12" in text and "384" in text
    # The first map: .4 of 64 px, and the square on the way to .6.
    assert "26 x 26, 31 x 31, 18 x 36, 36 x 18" in text
    assert "conv_dw_5" in text and "DepthwiseConv2D" in text
    assert "multiply-adds: 0.0" in text and "G for one image of 64 x 96" in text
    assert "(3 classes)" in text and "ms" not in text.splitlines()[-1]


def test_time(report):
    code, output = report("--time")
    assert code == 0
    assert output.out.splitlines()[-1].startswith("one image through model and post-processing:")


def test_a_row_of_a_table(report):
    code, output = report("--row")
    assert code == 0
    name, size, boxes, *numbers = (cell.strip() for cell in output.out.strip().strip("|").split("|"))
    assert (name, size, boxes, len(numbers)) == ("tiny", "64 x 96", "504", 2)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.backbone.name=mobilnet", "unknown value 'mobilnet'; did you mean 'mobilenet'?"),
        ("model.levels=6", "map 6, as map 5 is 1 x 1 already: take a larger input or fewer model.levels (input 64 x 96)"),
        ("model.input_hw=[24, 300]", "mobilenet wants an input of at least 32 x 32 pixels (input 24 x 300)"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(report, override, message):
    code, output = report("--set", override)
    assert code == 2
    assert output.err.startswith("error: ") and message in output.err
    assert len(output.err.strip().splitlines()) == 1


def test_no_config_at_that_path(capsys):
    assert summary.main(["summary", "--config", "nowhere.yaml"]) == 2
    assert capsys.readouterr().err == "error: no config file at nowhere.yaml\n"
