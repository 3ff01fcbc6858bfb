"""Detections against ground truth, by the rules of COCO and of VOC."""
