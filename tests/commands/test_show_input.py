from PIL import Image

from ssd_tf.commands import show_input


def test_numbers_and_a_sheet(tiny_data, tiny_config_file, tmp_path, capsys):
    sheet = tmp_path / "new" / "sheet.png"
    flags = [f"--config={tiny_config_file}", f"--data={tiny_data}", f"--output={sheet}", "--pictures=6", "--images=24"]
    assert show_input.main(["show_input", *flags, "--default_boxes", "--set=data.augment=caffe"]) == 0
    printed = capsys.readouterr().out
    for stage in ("parse", "zoom-out, crop, boxes", "decode", "resize", "colour", "canvas, flip", "match, encode", "rest"):
        assert stage in printed
    assert "images/s, batch 6" in printed
    with Image.open(sheet) as picture:
        assert picture.size == (4 * 320, 2 * 320)
        assert len(picture.getcolors(1 << 24)) > 100


def test_a_bad_split_and_a_bad_value(tiny_data, tiny_config_file, fails):
    flags = [f"--config={tiny_config_file}", f"--data={tiny_data}"]
    assert "has no split 'test'" in fails(show_input.main, *flags, "--split=test", code=1)
    assert "did you mean 'caffe'" in fails(show_input.main, *flags, "--set=data.augment=cafe", code=2)
