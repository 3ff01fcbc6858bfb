"""Metrics of detections against ground truth, by the rules of COCO and of PASCAL VOC."""
