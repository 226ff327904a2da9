"""The model of time: how long a recorded kernel takes on a NeuronCore, and why."""
