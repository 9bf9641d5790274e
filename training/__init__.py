"""Training of the project's own engines: data, synthesis, losses, and one time-boxed loop for both."""
