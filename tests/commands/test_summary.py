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


def test_layers_boxes_receptive_fields_and_totals(report):
    code, output = report("--classes", "3")
    assert code == 0
    text = output.out
    # 64 x 96 on maps of 8 x 12, 4 x 6 and 2 x 3, with four default boxes each: 384 + 96 + 24.
    assert "504 default boxes" in text
    assert "8 x 12" in text and "384" in text
    # The first map: .4 of 64 px, and the square between .4 and .6.
    assert "26 x 26, 31 x 31, 18 x 36, 36 x 18" in text
    assert "stage3_conv2" in text and "DepthwiseConv2D" in text
    assert "multiply-adds: 0.0" in text and "G for one image of 64 x 96" in text
    assert "(3 classes)" in text and "ms" not in text.splitlines()[-1]
    # Receptive fields:
    # 3 pixels after stage 1; 7 and 15 after the convolutions of stage 2, 23 and 39 after those of
    # stage 3, whose cells are 8 apart; the head's 3x3 adds two of those: 55. The second map: 55 and
    # 87 after stage 4, 16 apart: 119. The third: 119 and 183 after stage 5, 32 apart: 247.
    rows = [line for line in text.splitlines() if " px " in line]
    assert [line.split(" px ")[0].split()[-1] for line in rows] == ["55", "119", "247"]
    total, trained = re.search(
        r"parameters: ([\d,]+), of which ([\d,]+) are trained", text
    ).groups()
    # The statistics of batch norm are not trained: two per channel of the convolutions of the five
    # stages, and of the heads' depthwise ones.
    assert int(total.replace(",", "")) - int(trained.replace(",", "")) == 2 * (
        16 + 2 * (32 + 64 + 96 + 128) + 2 * (64 + 96 + 128)
    )


def test_default_boxes_are_shown_clipped(report):
    code, output = report("--set", "boxes={preset: torchvision_ssdlite}")
    assert code == 0
    # The third map: .95 of 64; sqrt(60.8 * 64); ratio 2, 86 x 43 and upright; ratio 3, 105 x 35 and
    # upright; all at most 64 high and 96 wide.
    assert "61 x 61, 62 x 62, 43 x 86, 64 x 43, 35 x 96, 64 x 35" in output.out


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
    ("overrides", "message"),
    [
        ("model.backbone.name=mobilnet", "unknown value 'mobilnet'; did you mean 'mobilenet'?"),
        (
            "model.num_levels=6",
            "map 6, as map 5 is 1 x 1 already: take a larger input or fewer model.num_levels "
            "(input 64 x 96)",
        ),
        (
            "model.input_hw=[24,300] model.backbone.name=mobilenet",
            "mobilenet needs an input of at least 32 x 32 pixels (input 24 x 300)",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(report, overrides, message):
    code, output = report("--set", *overrides.split())
    assert code == 2
    assert output.err.startswith("error: ") and message in output.err
    assert len(output.err.strip().splitlines()) == 1


def test_no_config_at_that_path(capsys):
    assert summary.main(["summary", "--config", "nowhere.yaml"]) == 2
    assert capsys.readouterr().err == "error: no config file at nowhere.yaml\n"
