"""Box arithmetic: geometry, default boxes, coding, matching. Numbers only: no config, no Keras."""
