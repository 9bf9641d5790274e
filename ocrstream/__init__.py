"""The shared kit: messages, transports, stores, models and the loop that drives a stage. It knows no stage."""
