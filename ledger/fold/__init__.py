"""The pure fold: a batch of events in log order becomes changes of the books."""
