"""The engine's processes: dispatcher, workers, archive, Manager."""
