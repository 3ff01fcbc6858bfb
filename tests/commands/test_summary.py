import re

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
    # The first map: .4 of 64 px, and the square between .4 and .6.
    assert "26 x 26, 31 x 31, 18 x 36, 36 x 18" in text
    assert "conv_dw_5" in text and "DepthwiseConv2D" in text
    assert "multiply-adds: 0.0" in text and "G for one image of 64 x 96" in text
    assert "(3 classes)" in text and "ms" not in text.splitlines()[-1]


def test_receptive_field_of_each_map(report):
    _, output = report()
    rows = [line for line in output.out.splitlines() if " px " in line]
    # MobileNet v1: 3 pixels after conv1; 7, 11, 19, 27, 43 after conv_dw_1 to 5, whose cells are
    # 8 apart; the head's 3x3 adds two of those: 59. The second map: 59 after conv_dw_6,
    # 59 + 5 * 32 = 219 after conv_dw_11, 16 apart: 251. The third: 251 after conv_dw_12,
    # 251 + 64 = 315 after conv_dw_13, 32 apart: 379.
    assert [line.split(" px ")[0].split()[-1] for line in rows] == ["59", "251", "379"]


def test_default_boxes_are_shown_clipped(report):
    code, output = report("--set", "boxes={preset: torchvision_ssdlite}")
    assert code == 0
    # The third map: .95 of 64; sqrt(60.8 * 64); ratio 2, 86 x 43 and upright; ratio 3, 105 x 35 and
    # upright; all at most 64 high and 96 wide.
    assert "61 x 61, 62 x 62, 43 x 86, 64 x 43, 35 x 96, 64 x 35" in output.out


def test_batch_norm_statistics_are_not_trained(report):
    _, output = report()
    total, trained = re.search(
        r"parameters: ([\d,]+), of which ([\d,]+) are trained", output.out
    ).groups()
    # Two per channel of conv1 (8), of the depthwise (1,240) and 1x1 (1,488) convolutions, and of
    # the heads' depthwise convolutions (2 * 448).
    assert int(total.replace(",", "")) - int(trained.replace(",", "")) == 2 * (
        8 + 1240 + 1488 + 2 * (64 + 128 + 256)
    )


def test_time(report):
    code, output = report("--time")
    assert code == 0
    assert output.out.splitlines()[-1].startswith("one image through model and post-processing:")


def test_a_markdown_row(report):
    code, output = report("--row")
    assert code == 0
    name, size, boxes, *numbers = (
        cell.strip() for cell in output.out.strip().strip("|").split("|")
    )
    assert (name, size, boxes, len(numbers)) == ("tiny", "64 x 96", "504", 2)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.backbone.name=mobilnet", "unknown value 'mobilnet'; did you mean 'mobilenet'?"),
        (
            "model.num_levels=6",
            "map 6, as map 5 is 1 x 1 already: take a larger input or fewer model.num_levels "
            "(input 64 x 96)",
        ),
        (
            "model.input_hw=[24, 300]",
            "mobilenet needs an input of at least 32 x 32 pixels (input 24 x 300)",
        ),
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
