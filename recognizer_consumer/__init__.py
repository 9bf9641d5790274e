"""3/4  Crops -> Texts: the cut-out lines are read."""
