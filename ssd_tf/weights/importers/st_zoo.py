"""SSDs of ST's model zoo: the names of their outputs, and what its code does with them.

Source: STMicroelectronics/stm32ai-modelzoo, object_detection/src: models/
ssd_mobilenet_v2_fpnlite.py, postprocessing/postprocess.py, and the configs of its evaluations.
"""

# In a signature: moves of the corners xmin, ymin, xmax, ymax in sides of the default box [1, A, 4],
# softmax with the background first [1, A, C + 1], and these corners of the default boxes [1, A, 4].
OUTPUTS = ("bboxes_concat", "classes_softmax", "anchors_concat")
# The section eval.
EVAL = {
    "score_floor": 0.001,
    "nms_iou": 0.5,
    "class_agnostic": False,
    "max_detections": 100,
}
