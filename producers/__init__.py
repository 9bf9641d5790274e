"""1/4  Source -> Frame: cameras, streams, files and folders become frames."""
