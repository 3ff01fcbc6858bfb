"""From TFRecords to batches of images and targets."""
