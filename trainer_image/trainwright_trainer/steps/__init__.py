"""The steps of a run: each takes typed values, returns one, and knows neither the others nor a cluster."""
