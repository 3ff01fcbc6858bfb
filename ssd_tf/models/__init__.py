"""Image -> predictions -> detections."""
