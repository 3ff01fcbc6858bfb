"""`ssd quickstart`: from a folder of labelled images to a trained and exported detector."""
