"""From split lists and video files to batches on the device (UniView): import from the defining file."""
