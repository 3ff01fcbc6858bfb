"""From a folder of labelled images to a trained, evaluated and exported detector."""
