"""2/4  Frame -> Crops: text lines are found and cut out."""
