"""Planning of a training in several processes: memory, topology, layouts and their expected times."""
