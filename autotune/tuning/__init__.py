"""One search: its run, the confirmation of the best, and the prediction for new shapes."""
